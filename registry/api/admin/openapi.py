"""The OpenAPI 3.1 document, made from the table of operations."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from ocispec.reference import MAX_NAME
from registry.api.admin.operation import FORMS, Operation, Strict

REFERENCE = "#/components/schemas/{name}"
WORDS = {
    400: "the request is malformed; the message says where", 401: "log in first", 403: "not allowed",
    404: "no such thing", 405: "the path does not answer to this method", 408: "the client stopped sending",
    409: "it exists already, or the state does not permit this", 413: "the body is too large",
    429: "too many requests; see Retry-After", 501: "not done by this registry", 503: "try again",
}
ALWAYS = (400, 401, 403, 404, 405, 408, 413, 429, 503)
"""What the layers around an operation may answer whatever it is."""


class Failure(msgspec.Struct):
    code: str
    message: str
    detail: Any = None


class Failures(msgspec.Struct):
    """The distribution specification's error document."""

    errors: list[Failure]


def document(operations: Sequence[Operation]) -> Mapping[str, Any]:
    kinds = [kind for operation in operations for kind in (operation.body, operation.result) if kind is not None]
    schemas, components = msgspec.json.schema_components([*kinds, Failures], ref_template=REFERENCE)
    by_kind = dict(zip([*map(_key, kinds), _key(Failures)], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Seawall registry administration", "version": version("seawall")},
        "servers": [{"url": "/api/v1"}],
        "security": [{"basic": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"},
                                "bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(operation: Operation, schemas: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_path(operation), *_query(operation.query)],
        "responses": {str(operation.status if operation.result is not None else 204): _success(operation, schemas),
                      **_failures(operation, schemas)},
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _json(schemas[_key(operation.body)])}
    if operation.needs is None:
        described["security"] = [{}]
    return described


def _path(operation: Operation) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True,
             "schema": {"type": "string", "minLength": 1, **_form(name)}} for name in operation.parameters]


def _form(name: str) -> dict[str, Any]:
    """A repository's name has at most 255 characters (`ocispec.reference`)."""
    form: dict[str, Any] = {"pattern": FORMS[name]} if name in FORMS else {}
    return form | ({"maxLength": MAX_NAME} if name == "repository" else {})


def _query(kind: type[Strict]) -> list[dict[str, Any]]:
    definitions = msgspec.json.schema(kind)["$defs"]
    fields = definitions[kind.__name__]
    return [{"name": name, "in": "query", "required": name in fields.get("required", ()),
             "schema": _resolved(form, definitions)} for name, form in fields["properties"].items()]


def _resolved(form: Any, definitions: Mapping[str, Any]) -> Any:
    """With what it refers to in its place: a parameter's schema stands alone."""
    if isinstance(form, list):
        return [_resolved(item, definitions) for item in form]
    if not isinstance(form, dict):
        return form
    if "$ref" in form:
        return _resolved(definitions[form["$ref"].rpartition("/")[2]], definitions)
    return {name: _resolved(item, definitions) for name, item in form.items()}


def _success(operation: Operation, schemas: Mapping[str, Any]) -> dict[str, Any]:
    if operation.result is None:
        return {"description": "done"}
    return {"description": "done", "content": _json(schemas[_key(operation.result)])}


def _failures(operation: Operation, schemas: Mapping[str, Any]) -> dict[str, Any]:
    statuses = sorted({*ALWAYS, *operation.failures})
    return {str(status): {"description": WORDS[status], "content": _json(schemas[_key(Failures)])}
            for status in statuses}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _key(kind: Any) -> str:
    return repr(kind)
