"""Finds the operation that a method and a path name, checks what came with it, and calls it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import msgspec

from ocispec.errors import InvalidArgument, NotFound, PermissionDenied
from registry.api.admin.operation import Asked, Operation, Strict
from registry.errors import MethodNotAllowed

MAX_BODY = 4 * 1024 * 1024
CHANGING = frozenset({"POST", "PUT", "PATCH"})


class NoSuchOperation(NotFound):
    def __init__(self, path: str) -> None:
        super().__init__(f"no operation at {path[:200]}: see /api/v1/openapi.json")


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is JSON, or empty with 204."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is what follows `/api/v1`, still escaped. `caller` has principal, access and origin set."""

    method: str
    path: str
    caller: Asked
    query: Sequence[tuple[str, str]] = ()
    body: bytes = b""


class Administration:
    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = operations
        self._encoder = msgspec.json.Encoder()
        self._by_path: dict[tuple[str, ...], dict[str, Operation]] = {}
        for operation in operations:
            self._by_path.setdefault(_shape(operation.path), {})[operation.method] = operation

    async def answer(self, request: Request) -> Answer:
        """Raises NoSuchOperation, MethodNotAllowed, InvalidArgument, and what `Access.require` and the operation do."""
        operation, parameters = self.find(request.method, request.path)
        asked = replace(request.caller, parameters=parameters, query=_query(request.query, operation.query))
        _require(operation, asked)
        result = await operation.run(replace(asked, body=_body(request.body, operation.body)))
        if operation.result is None:
            return Answer(204, b"")
        return Answer(operation.status, self._encoder.encode(result))

    def permit(self, method: str, path: str, caller: Asked) -> None:
        """To be asked before the body is read: who may not do this shall not make us hold 4 MiB for it. Raises what
        `answer` does for the path and the caller."""
        operation, parameters = self.find(method, path)
        _require(operation, replace(caller, parameters=parameters))

    def find(self, method: str, path: str) -> tuple[Operation, Mapping[str, str]]:
        """Raises NoSuchOperation, MethodNotAllowed."""
        segments = tuple(path.strip("/").split("/"))
        for shape, methods in self._by_path.items():
            if not _fits(shape, segments):
                continue
            operation = methods.get("GET" if method == "HEAD" else method)
            if operation is None:
                raise MethodNotAllowed(method, (*methods, "HEAD") if "GET" in methods else tuple(methods))
            values = [unquote(segment) for part, segment in zip(shape, segments, strict=True) if part.startswith("{")]
            return operation, dict(zip(operation.parameters, values, strict=True))
        raise NoSuchOperation(path)


def _require(operation: Operation, asked: Asked) -> None:
    if operation.needs is None:
        return
    if asked.principal.grants is not None:
        # Clients hand registry tokens to whatever they pull through (Quay's CVE-2026-123710).
        raise PermissionDenied("a registry token is not good for administration")
    # Before the body is looked at: what may not be done is not explained either.
    repository = asked.repository if "repository" in asked.parameters else None
    asked.access.require(asked.principal, operation.needs, repository)


def _shape(path: str) -> tuple[str, ...]:
    """Parameters by place, not by name: `/users/{name}` and `/users/{user}` are one path."""
    return tuple("{}" if part.startswith("{") else part for part in path.strip("/").split("/"))


def _fits(shape: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    return len(shape) == len(segments) and all(
        part == segment or (part == "{}" and segment != "") for part, segment in zip(shape, segments, strict=True))


def _query(given: Sequence[tuple[str, str]], kind: type[Strict]) -> Any:
    values: dict[str, str] = {}
    for name, value in given:
        if name in values:
            raise InvalidArgument(f"the parameter {name[:50]} comes twice")
        values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"query: {error}") from error


def _body(raw: bytes, kind: type[Strict] | None) -> Any:
    if kind is None:
        if raw.strip():
            raise InvalidArgument("this operation takes no body")
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"body: {error}") from error
