"""save, load, import and commit on the wire."""

import io

import pytest

from node.images.archive.errors import NotAnArchive
from ocispec.digest import Digest
from tests.node.api.conftest import Node


async def test_save(node: Node) -> None:
    async with node.http.get("http://node/images/get?names=a&names=b,c") as response:
        assert (response.status, response.content_type) == (200, "application/x-tar")
        assert await response.read() == b"archive of a b c"
    async with node.http.get("http://node/images/team/web:1/get") as response:
        assert await response.read() == b"archive of team/web:1"
    assert (await node.call("GET", "/images/none/get"))[0] == 404
    assert (await node.call("GET", "/images/get"))[0] == 400
    assert (await node.call("GET", "/images/a/get?platform=linux"))[0] == 400


async def test_load_says_what_came(node: Node) -> None:
    async with node.http.post("http://node/images/load?quiet=1", data=io.BytesIO(b"x" * 100_000)) as response:
        assert response.status == 200
        lines = (await response.text()).split("\r\n")
    assert lines[:2] == ['{"stream":"Loaded image: busybox:1\\n"}',
                         f'{{"stream":"Loaded image ID: {Digest.of(b"x")}\\n"}}']  # fmt: skip
    assert [event.action for event in node.bus.past() if event.type == "image"] == ["load", "load"]
    node.archives.failure = NotAnArchive("no image")
    assert await node.call("POST", "/images/load") == (400, {"message": "no image"})


async def test_import(node: Node) -> None:
    query = "fromSrc=-&repo=mine&tag=1&message=hey&changes=CMD%20ls&changes=ENV%20A=1"
    async with node.http.post(f"http://node/images/create?{query}", data=b"a tar") as response:
        assert response.status == 200
        assert str(Digest.of(b"imported")) in await response.text()
    data, recipe, target = node.archives.taken[0]
    assert (data, str(target)) == (b"a tar", "docker.io/library/mine:1")
    assert recipe.config == {"Cmd": ["/bin/sh", "-c", "ls"], "Env": ["A=1"]}
    assert recipe.comment == "hey"
    for wrong in ("changes=RUN%20x", "repo=UPPER", "repo=a@sha256:" + "0" * 64):
        assert (await node.call("POST", f"/images/create?fromSrc=-&{wrong}"))[0] == 400


async def test_commit(node: Node) -> None:
    body = {"Env": ["A=1"], "Cmd": "ls", "Hostname": "gone", "ExposedPorts": {"80/tcp": {}}}
    status, answer = await node.call("POST", "/commit?container=box&repo=a/b&comment=c&pause=0&changes=USER%20x", body)
    assert (status, answer) == (201, {"Id": str(Digest.of(b"committed"))})
    asked = node.commits.asked[0]
    assert (asked.container, str(asked.target), asked.comment, asked.pause) == ("box", "docker.io/a/b", "c", False)
    assert asked.config == {"Env": ["A=1"], "Cmd": ["ls"], "ExposedPorts": {"80/tcp": {}}}
    assert asked.changes == ("USER x",)
    assert (await node.call("POST", "/commit?container=box"))[0] == 201
    assert node.commits.asked[1].pause


@pytest.mark.parametrize("body", [{"Env": "x"}, {"Cmd": 1}, {"Labels": []}, {"Healthcheck": "x"}])
async def test_a_commit_of_a_wrong_type_is_named(node: Node, body: dict[str, object]) -> None:
    status, answer = await node.call("POST", "/commit?container=box", body)
    assert status == 400
    assert next(iter(body)) in answer["message"]
