"""update, prune and stats as clients see them."""

import asyncio
import json

import aiohttp
import pytest

from node.api.types.stats import usage
from node.containers.changing import Change
from node.containers.errors import NoSuchContainer
from node.containers.model import Container, CreateSpec, Port, PublishedPort, Resources, RestartMode, RestartPolicy
from node.containers.usage import Look, Machine, Traffic
from node.linux.cgroups.stats import Cpu, Io, Memory, Pids, Stats
from tests.node.api.conftest import Node

# What Docker's client 28.2 sends for `docker update --restart always x`.
CLI_UPDATE = {
    "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": None,
    "BlkioDeviceReadBps": None, "BlkioDeviceWriteBps": None, "BlkioDeviceReadIOps": None,
    "BlkioDeviceWriteIOps": None, "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0,
    "CpusetCpus": "", "CpusetMems": "", "Devices": None, "DeviceCgroupRules": None, "DeviceRequests": None,
    "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": None, "OomKillDisable": None, "PidsLimit": None,
    "Ulimits": None, "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
    "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
}  # fmt: skip
CONTAINER = Container("i" * 64, "box", "t", "x", "sha256:x", CreateSpec("x"), "sh", ())


async def test_update(node: Node) -> None:
    await node.call("POST", "/containers/create?name=web", {"Image": "busybox"})
    assert await node.call("POST", "/containers/web/update", CLI_UPDATE) == (200, {"Warnings": None})
    status, body = await node.call(
        "POST", "/containers/web/update", {"Memory": 1 << 26, "PidsLimit": -1, "Labels": {"a": "b", "c": None}}
    )
    assert (status, body) == (200, {"Warnings": ["a warning"]})
    assert node.containers.changes == [
        Change(restart=RestartPolicy(RestartMode.ALWAYS)),
        Change(Resources(memory=1 << 26, pids_limit=-1), -1, labels={"a": "b", "c": None}),
    ]
    await node.call("POST", "/containers/web/update", {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    assert node.containers.changes[-1] == Change(bindings=(PublishedPort(Port(80), "", 8080),))
    for wrong, status, words in (
        ({"Memory": "x"}, 400, "Memory must be a whole number"),
        ({"Labels": {"a": 5}}, 400, "Labels must be an object of strings"),
        ({"PortBindings": {"x": []}}, 400, "invalid port specification"),
        ({"RestartPolicy": {"Name": "sometimes"}}, 400, "unknown policy 'sometimes'"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1}]}, 501, "Ulimits is not supported yet"),
    ):
        found, body = await node.call("POST", "/containers/web/update", wrong)
        assert (found, words in body["message"]) == (status, True), body
    assert (await node.call("POST", "/containers/nothere/update", {}))[0] == 404


async def test_prune(node: Node) -> None:
    for name, labels in (("a", {"x": "1"}), ("b", {})):
        await node.call("POST", f"/containers/create?name={name}", {"Image": "busybox", "Labels": labels})
    for wrong in ({"name": ["a"]}, {"until": ["1h", "2h"]}, {"until": ["never"]}):
        assert (await node.call("POST", "/containers/prune", params={"filters": json.dumps(wrong)}))[0] == 400
    status, body = await node.call("POST", "/containers/prune", params={"filters": json.dumps({"label": ["x"]})})
    assert (status, len(body["ContainersDeleted"]), body["SpaceReclaimed"]) == (200, 1, 10)
    status, body = await node.call("POST", "/containers/prune", params={"filters": '{"label!":{"x":true}}'})
    assert (status, len(body["ContainersDeleted"])) == (200, 1)
    assert await node.call("POST", "/containers/prune") == (200, {"ContainersDeleted": None, "SpaceReclaimed": 0})


async def test_stats_once(node: Node) -> None:
    await node.call("POST", "/containers/create?name=web", {"Image": "busybox", "Cmd": ["sleep"]})
    status, empty = await node.call("GET", "/containers/web/stats?stream=false")
    assert (status, empty["read"], empty["memory_stats"], empty["name"]) == (200, "0001-01-01T00:00:00Z", {}, "/web")
    await node.call("POST", "/containers/web/start")
    _, shot = await node.call("GET", "/containers/web/stats?stream=false&one-shot=true")
    assert shot["preread"] == "0001-01-01T00:00:00Z"
    _, pair = await node.call("GET", "/containers/web/stats?stream=false")
    assert 0 < pair["precpu_stats"]["cpu_usage"]["total_usage"] < pair["cpu_stats"]["cpu_usage"]["total_usage"]
    assert pair["cpu_stats"]["online_cpus"] == 2
    assert (await node.call("GET", "/containers/web/stats?stream=true&one-shot=true"))[0] == 400
    assert (await node.call("GET", "/containers/nothere/stats"))[0] == 404


async def test_stats_stream_until_the_container_is_gone(node: Node) -> None:
    await node.call("POST", "/containers/create?name=web", {"Image": "busybox", "Cmd": ["sleep"]})
    await node.call("POST", "/containers/web/start")
    async with node.http.get("http://node/containers/web/stats") as response:
        assert response.headers["Content-Type"].startswith("application/json")
        first, second = [json.loads(await response.content.readline()) for _ in range(2)]
        assert first["precpu_stats"]["cpu_usage"]["total_usage"] == 0
        assert second["precpu_stats"] == first["cpu_stats"]
        assert second["preread"] == first["read"]
        await node.call("DELETE", "/containers/web?force=1")
        await asyncio.wait_for(response.content.read(), 5)
        assert response.content.at_eof()


async def test_a_listener_that_leaves_ends_its_stream(node: Node) -> None:
    await node.call("POST", "/containers/create?name=web", {"Image": "busybox"})
    await node.call("POST", "/containers/web/start")
    with pytest.raises(TimeoutError):
        await node.call("GET", "/containers/web/stats", timeout=aiohttp.ClientTimeout(total=0.3))
    looks = node.containers.looks
    await asyncio.sleep(1.3)
    assert node.containers.looks <= looks + 1


def test_the_first_version_is_shown_as_docker_shows_it() -> None:
    stats = Stats(
        memory=Memory(usage=5, peak=6, limit=None, failures=2, detail={"cache": 1}),
        cpu=Cpu(total=9, user=4, system=5, each=(4, 5), periods=1, throttled_periods=2, throttled=3),
        pids=Pids(3, None),
        io_bytes=(Io(8, 0, "read", 10), Io(8, 0, "write", 20), Io(8, 0, "sync", 30), Io(8, 0, "async", 0)),
    )
    shown = usage(CONTAINER, Look(1, stats, Machine(100, 2, 1000), {"eth0": Traffic(1, 2, 3, 4, 5, 6, 7, 8)}))
    assert shown["memory_stats"] == {"usage": 5, "max_usage": 6, "stats": {"cache": 1}, "failcnt": 2, "limit": 1000}
    assert shown["pids_stats"] == {"current": 3}
    assert shown["cpu_stats"] == {
        "cpu_usage": {
            "total_usage": 9, "percpu_usage": [4, 5], "usage_in_kernelmode": 5, "usage_in_usermode": 4
        },
        "system_cpu_usage": 100, "online_cpus": 2,
        "throttling_data": {"periods": 1, "throttled_periods": 2, "throttled_time": 3},
    }  # fmt: skip
    assert [(entry["op"], entry["value"]) for entry in shown["blkio_stats"]["io_service_bytes_recursive"]] == [
        ("Read", 10), ("Write", 20), ("Sync", 30), ("Async", 0), ("Total", 30)
    ]  # fmt: skip
    assert shown["blkio_stats"]["io_queue_recursive"] == []
    assert shown["networks"]["eth0"] == {
        "rx_bytes": 1, "rx_packets": 2, "rx_errors": 3, "rx_dropped": 4, "tx_bytes": 5, "tx_packets": 6,
        "tx_errors": 7, "tx_dropped": 8,
    }  # fmt: skip


def test_the_second_version_is_shown_as_docker_shows_it() -> None:
    stats = Stats(version=2, memory=Memory(usage=5, peak=6, limit=7, detail={"anon": 1}), pids=Pids(3, None),
                  io_bytes=(Io(8, 0, "read", 10),))  # fmt: skip
    shown = usage(CONTAINER, Look(1, stats, Machine(100, 2, 1000)))
    assert shown["memory_stats"] == {"usage": 5, "stats": {"anon": 1}, "limit": 7}
    assert shown["pids_stats"] == {"current": 3, "limit": 2**64 - 1}
    assert "percpu_usage" not in shown["cpu_stats"]["cpu_usage"]
    assert shown["blkio_stats"]["io_service_bytes_recursive"] == [{"major": 8, "minor": 0, "op": "read", "value": 10}]
    assert shown["blkio_stats"]["io_queue_recursive"] is None
    assert "networks" not in shown


async def test_only_a_missing_image_is_not_found_by_a_create(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client pulls the image then and tries again, which helps nobody whose volume is missing."""

    async def refuse(_spec: CreateSpec) -> None:
        raise NoSuchContainer("other")

    assert (await node.call("POST", "/containers/create", {"Image": "missing"}))[0] == 404
    monkeypatch.setattr(node.containers, "create", refuse)
    status, body = await node.call("POST", "/containers/create", {"Image": "busybox"})
    assert (status, body["message"]) == (400, "No such container: other")
