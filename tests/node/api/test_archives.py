"""docker cp, diff and export on the wire."""

import base64
import io
import json

import pytest

from ocispec.errors import Unavailable
from tests.node.api.conftest import Node


@pytest.fixture
async def box(node: Node) -> str:
    status, body = await node.call("POST", "/containers/create?name=box", {"Image": "busybox", "Cmd": ["sleep"]})
    assert status == 201, body
    return "box"


async def test_the_stat_header_is_dockers(node: Node, box: str) -> None:
    for method in ("HEAD", "GET"):
        async with node.http.request(method, f"http://node/containers/{box}/archive?path=/etc/motd") as response:
            assert response.status == 200
            told = json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))
            assert told == {"name": "motd", "size": 5, "mode": 0o644, "mtime": "1970-01-01T00:00:01.000000000Z",
                            "linkTarget": ""}  # fmt: skip
            assert await response.read() == (b"tar" if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
async def test_a_path_must_be_named(node: Node, box: str, method: str) -> None:
    async with node.http.request(method, f"http://node/containers/{box}/archive") as response:
        assert response.status == 400


async def test_what_is_not_there(node: Node, box: str) -> None:
    status, body = await node.call("GET", f"/containers/{box}/archive?path=/none")
    assert (status, body["message"]) == (404, "Could not find the file /none in container box")
    for method, path in (("GET", "archive?path=/etc/motd"), ("PUT", "archive?path=/"), ("GET", "export"),
                         ("GET", "changes")):  # fmt: skip
        assert (await node.call(method, f"/containers/nobody/{path}"))[0] == 404


async def test_an_archive_larger_than_any_body_of_json_is_taken(node: Node, box: str) -> None:
    data = bytes(6 << 20)
    query = "path=/tmp&noOverwriteDirNonDir=true&copyUIDGID=1"
    async with node.http.put(f"http://node/containers/{box}/archive?{query}", data=io.BytesIO(data)) as response:
        assert response.status == 200
    assert [(path, len(got), keep, user) for path, got, keep, user in node.files.put] == [
        ("/tmp", len(data), True, True)]  # fmt: skip


async def test_a_stream_that_breaks_is_not_taken_for_whole(node: Node, box: str) -> None:
    node.files.failure = Unavailable("gone")
    with pytest.raises(Exception, match=r"(?i)payload|disconnect|reset|closed"):
        async with node.http.get(f"http://node/containers/{box}/export") as response:
            await response.read()


async def test_changes(node: Node, box: str) -> None:
    assert await node.call("GET", f"/containers/{box}/changes") == (
        200, [{"Path": "/new", "Kind": 1}, {"Path": "/gone", "Kind": 2}])  # fmt: skip
