"""`POST /build` on the wire: what is asked for, what is refused, how it ends."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest

from node.api.progress import BACKLOG, Lines
from node.build.values import StepFailed
from ocispec.digest import Digest
from storage.remote.auth import Credentials
from tests.node.api.conftest import Node


async def built(node: Node, headers: dict[str, str] | None = None, **query: object) -> tuple[int, list[dict[str, object]]]:
    address = f"http://node/build?{urlencode(query, doseq=True)}"
    async with node.http.post(address, data=b"FROM scratch\n", headers=headers or {}) as response:
        text = await response.text()
    return response.status, [json.loads(line) for line in text.splitlines() if line]


async def test_everything_that_is_asked_for(node: Node) -> None:
    logins = {"https://index.docker.io/v1/": {"username": "a", "password": "b"}, "r.example": {"auth": "Yzpk"}}
    header = {"X-Registry-Config": base64.urlsafe_b64encode(json.dumps(logins).encode()).decode()}
    status, lines = await built(
        node, header, t=["a:1", "r.example/b"], target="x", nocache=1, pull=1, buildargs='{"A": "1", "B": null}',
        labels='{"l": "m"}', memory=1 << 30, cpusetcpus="0", shmsize=1 << 20, networkmode="none", extrahosts="h:1.2.3.4",
        ulimits='[{"Name": "nofile", "Soft": 10, "Hard": 20}]', platform="linux/arm64", rm=0,
    )  # fmt: skip
    assert (status, lines[0]) == (200, {"stream": "Step 1/1 : FROM scratch\n"})
    (asked,) = node.builds.asked
    assert asked.dockerfile == b"FROM scratch\n"
    assert [str(tag) for tag in asked.tags] == ["docker.io/library/a:1", "r.example/b"]
    assert (asked.options.target, asked.options.build_args, asked.labels) == ("x", {"A": "1"}, {"l": "m"})
    assert (asked.no_cache, asked.pull, asked.keep_failed, str(asked.platform)) == (True, True, True, "linux/arm64")
    limits = asked.limits
    assert (limits.resources.memory, limits.resources.cpuset_cpus, limits.resources.shm_size) == (1 << 30, "0", 1 << 20)
    assert (limits.network, limits.extra_hosts, limits.resources.ulimits[0].hard) == ("none", ("h:1.2.3.4",), 20)
    assert asked.credentials == {"docker.io": Credentials("a", "b"), "r.example": Credentials("c", "d")}
    assert [event.attributes["name"] for event in node.bus.past() if event.action == "tag"] == ["a:1", "r.example/b:latest"]


async def test_quiet(node: Node) -> None:
    assert await built(node, q=1) == (200, [{"stream": f"{Digest.of(b'FROM scratch' + bytes((10,)))}\n"}])


async def test_a_command_that_failed_has_its_code(node: Node) -> None:
    node.builds.failure = StepFailed("The command 'x' returned a non-zero code: 7", 7)
    status, lines = await built(node)
    assert status == 200
    assert lines[-1] == {"errorDetail": {"code": 7, "message": node.builds.failure.message},
                         "error": node.builds.failure.message}  # fmt: skip


@pytest.mark.parametrize(("query", "status"), [
    ({"buildargs": "x"}, 400), ({"buildargs": "[]"}, 400), ({"buildargs": '{"A": 1}'}, 400), ({"labels": "3"}, 400),
    ({"ulimits": "{}"}, 400), ({"t": "UPPER"}, 400), ({"t": "a@sha256:" + "0" * 64}, 400), ({"memory": "lots"}, 400),
    ({"isolation": "hyperv"}, 400), ({"platform": "/"}, 400), ({"squash": "1"}, 501), ({"version": "2"}, 501),
    ({"outputs": '[{"Type": "tar"}]'}, 501), ({"session": "abc"}, 501), ({"remote": "https://x/y.git#main"}, 501),
    ({"remote": "ftp://x"}, 400),
])  # fmt: skip
async def test_what_is_refused(node: Node, query: dict[str, str], status: int) -> None:
    assert (await built(node, **query))[0] == status
    assert not node.builds.asked


async def test_broken_logins(node: Node) -> None:
    for wrong in ("?", base64.urlsafe_b64encode(b"[]").decode()):
        assert (await built(node, {"X-Registry-Config": wrong}))[0] == 400


async def test_prune(node: Node) -> None:
    filters = json.dumps({"until": ["2026-01-02T00:00:00Z"]})
    status, answer = await node.call("POST", "/build/prune?" + urlencode({"filters": filters, "keep-storage": 5}))
    assert (status, answer) == (200, {"CachesDeleted": ["ab" * 32], "SpaceReclaimed": 1000})
    assert node.builds.pruned == [(datetime(2026, 1, 2, tzinfo=UTC), 5)]
    for wrong in ('{"label": ["a"]}', '{"inuse": ["true"]}', '{"type": ["frontend"]}', '{"parent": ["x"]}'):
        assert (await node.call("POST", "/build/prune?" + urlencode({"filters": wrong})))[0] == 400
    filters = json.dumps({"id": ["ab"], "inuse": {"false": True}})
    assert (await node.call("POST", "/build/prune?" + urlencode({"filters": filters})))[0] == 200
    assert node.builds.pruned[1:] == [(None, 0, "ab")]


async def test_disk_usage_shows_the_cache(node: Node) -> None:
    status, answer = await node.call("GET", "/v1.43/system/df?type=build-cache")
    assert (status, answer["BuildCache"][0]["Size"], answer["BuilderSize"]) == (200, 1000, 1000)


async def test_a_client_that_does_not_read_slows_the_command_down() -> None:
    """Output is not held in memory for it."""
    lines = Lines()
    await lines.ready()
    for _ in range(BACKLOG + 1):
        lines.stream("x")
    waiting = asyncio.ensure_future(lines.ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    lines.take()
    await waiting


async def test_a_cache_from_elsewhere_is_no_silent_wish(node: Node) -> None:
    _, lines = await built(node, cachefrom='["a:1"]')
    assert "cache-from is not used" in str(lines[0])
    assert "cache-from" not in str((await built(node, cachefrom="[]"))[1])
