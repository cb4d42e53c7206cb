"""Every operation with input that cannot be right: an answer that says so, never a failure of ours, never a hang."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from node.api.dispatch import Route
from node.api.routes import Groups, routes
from tests.node.api.conftest import Node
from tests.node.api.test_create import CLI_BODY
from tests.node.api.test_dispatch import Anything

MALFORMED = (b"{", b'{"a":', b"[]", b'"x"', b"5", b"\xff\xfe", b"{" * 5000, b"[" * 100_000, b'{"a": NaN}', b'{"a":1}x')
WRONG: tuple[Any, ...] = (
    True, 1, -1, 1.5, "x", "\0", "", [], {}, [1], ["x"], [[]], [None], [{}], {"a": 1}, {"a": None}, {"a": ["b"]},
    {"a": {}}, {"": ""}, 1 << 70, "a" * 5000,
)  # fmt: skip
QUERIES = (
    "t=x", "t=1e9", "h=x&w=-5", "limit=x", "tail=x&stdout=1", "since=yesterday&stdout=1", "until=%00&stdout=1",
    "filters=%7B", "filters=[]", "filters=5", 'filters={"x":["y"]}', 'filters={"label":5}', 'filters={"status":["z"]}',
    "signal=NOPE", "condition=never", "name=%2F..%2F", "platform=a/b/c/d/e", "detachKeys=ctrl-", "fromImage=UPPER",
    "stream=1&one-shot=1", "size=maybe", "ps_args=%00", "tag=:::", "repo=A&tag=b", "noprune=x", "path=..%2F..%2Fetc",
    "term=", "type=nothing", "verbose=x",
)  # fmt: skip
# Of these the body is a stream of another kind, or the answer has no end.
STREAMS = {"SystemEvents", "ImageLoad", "PutContainerArchive", "Session", "ImageBuild"}
BODIES: dict[str, dict[str, Any]] = {
    "/containers/create": CLI_BODY,
    "/containers/web/update": {**CLI_BODY["HostConfig"], "Labels": {}},
    "/containers/web/exec": dict.fromkeys(
        ("AttachStdin", "AttachStdout", "AttachStderr", "DetachKeys", "Tty", "Env", "Cmd", "Privileged", "User",
         "WorkingDir", "ConsoleSize")
    ),
    "/volumes/create": dict.fromkeys(("Name", "Driver", "DriverOpts", "Labels", "ClusterVolumeSpec")),
    "/networks/create": dict.fromkeys(
        ("Name", "CheckDuplicate", "Driver", "Scope", "Internal", "Attachable", "Ingress", "ConfigOnly", "ConfigFrom",
         "IPAM", "EnableIPv4", "EnableIPv6", "Options", "Labels")
    ),
    "/networks/bridge/connect": dict.fromkeys(("Container", "EndpointConfig")),
    "/networks/bridge/disconnect": dict.fromkeys(("Container", "Force")),
    "/auth": dict.fromkeys(("username", "password", "serveraddress", "identitytoken", "auth", "email")),
}  # fmt: skip


def served() -> list[Route]:
    table = routes(Groups(*[Anything()] * len(Groups.__dataclass_fields__)))  # type: ignore[arg-type]
    return [route for route in table if route.operation not in STREAMS]


def path_of(route: Route) -> str:
    return route.path.replace("{id}", "nothere").replace("{name...}", "not/here").replace("{name}", "nothere")


async def answer(node: Node, method: str, path: str, **options: Any) -> None:
    async with node.http.request(method, f"http://node{path}", **options) as response:
        text = await response.read()
        shown = f"{method} {path} {str(options)[:300]}: {response.status} {text[:300]!r}"
        assert response.status < 500 or response.status == 501, shown
        if response.status >= 400 and method != "HEAD":
            message = json.loads(text)["message"]
            assert message and "Traceback" not in message, shown


@pytest.mark.parametrize("route", served(), ids=lambda route: route.operation)
async def test_malformed_bodies_and_queries(node: Node, route: Route) -> None:
    if route.method in ("POST", "PUT"):
        for body in MALFORMED:
            headers = {"Content-Type": "application/json"}
            await answer(node, route.method, path_of(route), data=body, headers=headers)
        await answer(node, route.method, path_of(route), data=b"{}", headers={"Content-Type": "text/plain"})
    for query in QUERIES:
        await answer(node, route.method, f"{path_of(route)}?{query}")


def spoiled(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The body with each of its fields, to the second level, wrong in every way."""
    for name, value in body.items():
        for wrong in WRONG:
            yield {**body, name: wrong}
        if isinstance(value, dict):
            for inner in value:
                for wrong in WRONG:
                    yield {**body, name: {**value, inner: wrong}}


@pytest.mark.parametrize("path", BODIES)
async def test_wrong_types_in_every_field(node: Node, path: str) -> None:
    await node.call("POST", "/containers/create?name=web", {"Image": "busybox"})
    for body in spoiled(BODIES[path]):
        await answer(node, "POST", path, json=body)


async def test_ids_that_no_container_has(node: Node) -> None:
    for name in ("nothere", "%2F", "..", "%00", "a" * 5000, "%F0%9F%90%B3", "a%0Ab", "'; drop"):
        for method, verb in (("GET", "json"), ("POST", "start"), ("POST", "kill"), ("GET", "top"), ("GET", "stats"),
                             ("POST", "update"), ("GET", "logs?stdout=1"), ("POST", "wait"), ("POST", "rename?name=x")):  # fmt: skip
            await answer(node, method, f"/containers/{name}/{verb}")
