"""One call of the Engine API: the request, the version it speaks, and readers for its path, query and body."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from node.api.filters import parse_filters
from node.api.types.fields import Fields
from node.api.version import ApiVersion
from ocispec.errors import InvalidArgument, ResourceExhausted

_FALSE = frozenset({"", "0", "no", "false", "none"})


class InvalidQuery(InvalidArgument):
    """A query parameter cannot be what it is; the message names it."""


class InvalidBody(InvalidArgument):
    """The body is no JSON object, or says it is something else."""


class BodyTooLarge(ResourceExhausted):
    """HTTP 413."""


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a caller with limited rights has added to what it asks (`node.api.guard`)."""

    filters: str = ""
    """A label that everything listed must carry."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Of what is made."""

    pinned: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the body with ids where it had names: what was looked at is what is meant, also later."""


@dataclass(frozen=True, slots=True)
class Call:
    """Handlers read query and body here only: a narrowing is applied in these methods."""

    request: web.Request
    version: ApiVersion
    path: Mapping[str, str]
    """The variable parts of the path, decoded."""

    narrowing: Narrowing | None = None

    def text(self, name: str, default: str = "") -> str:
        value = self.request.query.get(name, default)
        if name == "filters" and self.narrowing is not None and self.narrowing.filters:
            filters = dict(parse_filters(value))
            return json.dumps({**filters, "label": [*filters.get("label", ()), self.narrowing.filters]})
        return value

    def texts(self, name: str) -> list[str]:
        """Of a parameter that may be repeated."""
        return self.request.query.getall(name, [])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Docker's rule: everything but "", 0, no, false and none is true."""
        value = self.request.query.get(name)
        return default if value is None else value.strip().lower() not in _FALSE

    def number(self, name: str) -> int | None:
        """Raises InvalidQuery."""
        value = self.request.query.get(name)
        if not value:
            return None
        try:
            if not value.isascii() or len(value) > 20 or "_" in value:
                raise ValueError
            return int(value)
        except ValueError:
            raise InvalidQuery(f"invalid value {value[:50]!r} for {name}: not a whole number") from None

    def stream(self) -> AsyncIterator[bytes]:
        """A body of any length, as it comes."""
        return self.request.content.iter_any()

    async def fields(self) -> Fields:
        """The body's object; an empty body has no fields. Raises InvalidBody."""
        body = await self._object()
        if self.narrowing is not None and body:
            body = {**body, **self.narrowing.pinned}
        if self.narrowing is not None and self.narrowing.labels and body:
            body = {**body, "Labels": {**Fields(body).mapping("Labels"), **self.narrowing.labels}}
        return Fields(body)

    async def _object(self) -> Mapping[str, Any]:
        try:
            raw = await self.request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise BodyTooLarge(f"the request body is larger than {error.text or 'allowed'}") from error
        if not raw.strip():
            return {}
        kind = self.request.content_type
        if kind != "application/json":
            raise InvalidBody(f"unsupported Content-Type header ({kind}): must be 'application/json'")
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise InvalidBody(f"invalid JSON: {error}") from error
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidBody("invalid JSON: the body is not an object")
        return value
