"""Versions, routes, errors: what every call goes through."""

import io
from dataclasses import fields

import pytest

from node.access.rules import Access
from node.api.dispatch import Dispatcher, Route
from node.api.guard.guard import Guard
from node.api.routes import Groups, routes
from node.api.version import NEWEST, OLDEST, ApiVersion, WrongVersion, split_version
from tests.node.api.conftest import Node


class Anything:
    def __getattr__(self, name: str) -> "Anything":
        return self


UNGUARDED = Guard(Access(None), Anything())  # type: ignore[arg-type]


@pytest.fixture
def table() -> list[Route]:
    anything = Anything()
    return routes(Groups(*[anything] * len(fields(Groups))))  # type: ignore[arg-type]


def test_the_table_has_all_of_dockers_operations_once(table: list[Route]) -> None:
    assert len(table) == 110
    assert len({(route.method, route.path) for route in table}) == 110
    assert len({route.operation for route in table}) == 110


@pytest.mark.parametrize(
    ("method", "path", "operation", "variables"),
    [
        ("GET", "/containers/json", "ContainerList", {}),
        ("GET", "/containers/abc/json", "ContainerInspect", {"id": "abc"}),
        ("GET", "/images/json", "ImageList", {}),
        ("GET", "/images/127.0.0.1:5000/team/web:1.0/json", "ImageInspect", {"name": "127.0.0.1:5000/team/web:1.0"}),
        ("POST", "/images/a/b/c/push", "ImagePush", {"name": "a/b/c"}),
        ("DELETE", "/images/a/b", "ImageDelete", {"name": "a/b"}),
        ("GET", "/images/get", "ImageGetAll", {}),
        ("GET", "/images/get/json", "ImageInspect", {"name": "get"}),
        ("POST", "/containers/create", "ContainerCreate", {}),
        ("GET", "/volumes/v", "VolumeInspect", {"name": "v"}),
        ("POST", "/plugins/x/y:z/enable", "PluginEnable", {"name": "x/y:z"}),
    ],
)
def test_routes(table: list[Route], method: str, path: str, operation: str, variables: dict[str, str]) -> None:
    found = Dispatcher(table, UNGUARDED).find(method, path)
    assert found is not None
    assert (found[0].operation, dict(found[1])) == (operation, variables)


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/containers"), ("PATCH", "/containers/json"),
                                              ("GET", "/containers/a/b/json"), ("POST", "/containers//start")])
def test_no_route(table: list[Route], method: str, path: str) -> None:
    assert Dispatcher(table, UNGUARDED).find(method, path) is None


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.24/info", OLDEST, "/info"),
        ("/v1.51/_ping", NEWEST, "/_ping"),
        ("/info", NEWEST, "/info"),
        ("/v1.41/v1.41/info", ApiVersion(1, 41), "/v1.41/info"),
        ("/version", NEWEST, "/version"),
        ("/volumes", NEWEST, "/volumes"),
    ],
)
def test_versions(path: str, version: ApiVersion, rest: str) -> None:
    assert split_version(path) == (version, rest)


@pytest.mark.parametrize("path", ["/v1.52/info", "/v2.0/info", "/v1.23/info", "/v0.9/info"])
def test_wrong_versions(path: str) -> None:
    with pytest.raises(WrongVersion):
        split_version(path)


async def test_ping_says_what_clients_negotiate_with(node: Node) -> None:
    for method in ("GET", "HEAD"):
        async with node.http.request(method, "http://node/_ping") as answer:
            assert answer.status == 200
            assert answer.headers["Api-Version"] == "1.51"
            assert answer.headers["Ostype"] == "linux"
            assert answer.headers["Docker-Experimental"] == "false"
            assert answer.headers["Builder-Version"] == "1"
            assert answer.headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
            assert await answer.text() == ("OK" if method == "GET" else "")


async def test_version_texts_are_dockers(node: Node) -> None:
    assert await node.call("GET", "/v1.99/info") == (
        400, {"message": "client version 1.99 is too new. Maximum supported API version is 1.51"},
    )  # fmt: skip
    status, body = await node.call("GET", "/v1.12/info")
    assert status == 400
    assert body["message"] == (
        "client version 1.12 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )


async def test_unknown_and_not_yet(node: Node) -> None:
    assert await node.call("GET", "/nothing") == (404, {"message": "page not found"})
    status, body = await node.call("POST", "/v1.41/session")
    assert (status, body["message"]) == (501, "Session (POST /session) is not supported yet")
    status, body = await node.call("GET", "/swarm")
    assert (status, body["message"]) == (501, "SwarmInspect (GET /swarm) is not supported yet")


async def test_errors_are_plain_json(node: Node) -> None:
    """Docker's older clients compare the content type as a whole."""
    async with node.http.get("http://node/containers/none/json") as answer:
        assert answer.status == 404
        assert answer.headers["Content-Type"] == "application/json"
        assert await answer.json() == {"message": "No such container: none"}
        assert answer.headers["Api-Version"] == "1.51"


async def test_bodies(node: Node) -> None:
    async def post(data: bytes, kind: str = "application/json") -> tuple[int, str]:
        headers = {"Content-Type": kind}
        async with node.http.post("http://node/containers/create", data=io.BytesIO(data), headers=headers) as answer:
            return answer.status, (await answer.json())["message"]

    assert (await post(b"{"))[0] == 400
    assert (await post(b"[1]"))[1] == "invalid JSON: the body is not an object"
    assert (await post(b"[" * 100_000))[0] == 400
    assert (await post(b"{}", "text/plain"))[1].startswith("unsupported Content-Type header (text/plain)")
    assert (await post(b'{"Image": "' + b"a" * 5_000_000 + b'"}'))[0] == 413
    assert (await post(b""))[1] == "config cannot be empty in order to create a container"


async def test_a_bug_of_ours_is_a_500_without_details(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_name: str) -> None:
        raise RuntimeError("secret")

    node.containers.pause = broken  # type: ignore[method-assign]
    assert await node.call("POST", "/containers/x/pause") == (
        500, {"message": "internal error, see the daemon's log"},
    )  # fmt: skip
    assert "secret" in caplog.text
