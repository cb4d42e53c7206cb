"""Containers over HTTP: create, lists, inspect, verbs, logs."""

from dataclasses import replace

import pytest

from node.api.types.containers import command, status_text
from node.api.types.units import human_span, parse_time
from node.containers.model import ContainerState, Health, Status
from node.containers.sizes import parse_size
from ocispec.errors import InvalidArgument
from tests.node.api.conftest import Node
from tests.node.api.fakes import frame
from tests.node.api.test_streams import make

# The keys of Docker 28's answers: a client that reads one must never meet a hole.
INSPECT = {
    "Id", "Created", "Path", "Args", "State", "Image", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "Name",
    "RestartCount", "Driver", "Platform", "MountLabel", "ProcessLabel", "AppArmorProfile", "ExecIDs", "HostConfig",
    "GraphDriver", "Mounts", "Config", "NetworkSettings",
}  # fmt: skip
STATE = {
    "Status", "Running", "Paused", "Restarting", "OOMKilled", "Dead", "Pid", "ExitCode", "Error", "StartedAt",
    "FinishedAt",
}  # fmt: skip
LIST = {
    "Id", "Names", "Image", "ImageID", "Command", "Created", "Ports", "Labels", "State", "Status", "HostConfig",
    "NetworkSettings", "Mounts",
}  # fmt: skip


async def test_create_answers_id_and_warnings(node: Node) -> None:
    status, body = await node.call(
        "POST", "/containers/create?name=web", {"Image": "busybox", "HostConfig": {"Memory": 1}}
    )
    assert status == 201
    assert len(body["Id"]) == 64
    assert body["Warnings"] == ["a warning"]
    status, again = await node.call("POST", "/containers/create?name=web", {"Image": "busybox"})
    assert status == 409
    assert again["message"] == (
        f'Conflict. The container name "/web" is already in use by container "{body["Id"]}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    assert await node.call("POST", "/containers/create", {"Image": "missing"}) == (
        404, {"message": "No such image: missing:latest"},
    )  # fmt: skip


async def test_shapes_are_whole(node: Node) -> None:
    container = await make(node, "sleep", "two words")
    await node.call("POST", f"/containers/{container}/start")
    _, document = await node.call("GET", f"/containers/{container}/json")
    assert set(document) == INSPECT | {"EffectiveCaps", "BoundingCaps"}  # these two are Podman's
    assert set(document["State"]) == STATE
    assert document["State"]["Status"] == "running"
    assert len(document["HostConfig"]) >= 60
    assert document["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == ""
    _, sized = await node.call("GET", f"/containers/{container}/json?size=1")
    assert (sized["SizeRw"], sized["SizeRootFs"]) == (4096, 4096 + 1234567)
    _, listed = await node.call("GET", "/containers/json")
    assert set(listed[0]) == LIST
    assert listed[0]["Command"] == "sleep 'two words'"
    assert listed[0]["State"] == "running"


async def test_list_filters(node: Node) -> None:
    await make(node, "sleep")
    running = await make(node, "sleep")
    await node.call("POST", f"/containers/{running}/start")
    assert [c["Id"] for c in (await node.call("GET", "/containers/json"))[1]] == [running]
    assert len((await node.call("GET", "/containers/json?all=1"))[1]) == 2
    assert len((await node.call("GET", "/containers/json?all=true&limit=1"))[1]) == 1
    for filters in ('{"status":["created"]}', '{"status":{"created":true,"running":false}}'):
        found = (await node.call("GET", "/containers/json", params={"all": "1", "filters": filters}))[1]
        assert [c["State"] for c in found] == ["created"]
    status, body = await node.call("GET", "/containers/json", params={"filters": '{"nonsense":["x"]}'})
    assert (status, body["message"]) == (400, "invalid filter 'nonsense'")
    assert (await node.call("GET", "/containers/json", params={"filters": "{"}))[0] == 400
    assert (await node.call("GET", "/containers/json?limit=many"))[0] == 400


async def test_a_name_that_moved_on_is_shown_as_the_id(node: Node) -> None:
    container = await make(node, "sleep")
    held = node.containers.find(container)
    held.container = replace(held.container, image_id=f"sha256:{'e' * 64}")
    (listed,) = (await node.call("GET", "/containers/json?all=1"))[1]
    assert listed["Image"] == f"sha256:{'e' * 64}"


async def test_verbs_and_their_statuses(node: Node) -> None:
    container = await make(node, "sleep")

    async def verb(name: str) -> int:
        return (await node.call("POST", f"/containers/{container}/{name}"))[0]

    assert await verb("stop") == 304
    assert await verb("kill") == 409
    assert await verb("start") == 204
    assert await verb("start") == 304
    assert await verb("pause") == 204
    assert await verb("unpause") == 204
    assert await verb("restart?t=1") == 204
    assert await verb("resize?h=24&w=80") == 200
    assert node.containers.find(container).size == (24, 80)
    assert await verb("resize?h=a&w=80") == 400
    assert await verb("rename?name=other") == 204
    assert await verb("rename") == 400
    assert await verb("kill?signal=TERM") == 204
    assert node.containers.find(container).signals[-2:] == ["TERM", "stop None"]
    assert (await node.call("DELETE", "/containers/other?force=1&v=1"))[0] == 204
    assert await verb("start") == 404


async def test_logs(node: Node) -> None:
    container = await make(node, "err", "bad")
    await node.call("POST", f"/containers/{container}/start")
    async with node.http.get(f"http://node/containers/{container}/logs?stderr=1&follow=1") as answer:
        assert answer.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
        assert await answer.read() == frame(2, b"bad\n", tty=False)
    status, body = await node.call("GET", f"/containers/{container}/logs")
    assert (status, body["message"]) == (400, "Bad parameters: you must choose at least one stream")
    assert (await node.call("GET", "/containers/none/logs?stdout=1"))[0] == 404
    assert (await node.call("GET", f"/containers/{container}/logs?stdout=1&since=yesterday"))[0] == 400


async def test_top(node: Node) -> None:
    container = await make(node, "sleep")
    assert (await node.call("GET", f"/containers/{container}/top?ps_args=aux"))[1] == {
        "Titles": ["PID", "CMD"], "Processes": [["4242", "aux"]],
    }  # fmt: skip


NOW = 1_800_000_000.0
EARLIER = "2027-01-15T07:58:20Z"  # 100 s before


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (ContainerState(), "Created"),
        (ContainerState(Status.RUNNING, started_at=EARLIER), "Up About a minute"),
        (ContainerState(Status.PAUSED, started_at=EARLIER), "Up About a minute (Paused)"),
        (ContainerState(Status.RUNNING, started_at=EARLIER, health=Health("starting")),
         "Up About a minute (health: starting)"),
        (ContainerState(Status.RUNNING, started_at=EARLIER, health=Health("healthy")), "Up About a minute (healthy)"),
        (ContainerState(Status.EXITED, exit_code=3, finished_at=EARLIER), "Exited (3) About a minute ago"),
        (ContainerState(Status.RESTARTING, exit_code=1, finished_at=EARLIER), "Restarting (1) About a minute ago"),
        (ContainerState(Status.DEAD), "Dead"),
        (ContainerState(Status.REMOVING), "Removal In Progress"),
    ],
)  # fmt: skip
def test_status_texts(state: ContainerState, text: str) -> None:
    assert status_text(state, NOW) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (120, "2 minutes"),
     (3600, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"),
     (14 * 86400, "2 weeks"), (61 * 86400, "2 months"), (800 * 86400, "2 years")],
)  # fmt: skip
def test_spans(seconds: float, text: str) -> None:
    assert human_span(seconds) == text


def test_command_words() -> None:
    assert command("sh", []) == "sh"
    assert command("sh", ["-c", "echo hi"]) == "sh -c 'echo hi'"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("", 0), ("0", 0), ("10", 10 * 10**9), ("10.5", 10_500_000_000), ("1970-01-01T00:00:01Z", 10**9),
     ("1970-01-01T01:00:00.000000007+01:00", 7), ("1970-01-02", 86400 * 10**9), ("10s", 90 * 10**9),
     ("1m30s", 10 * 10**9)],
)  # fmt: skip
def test_times(text: str, nanoseconds: int) -> None:
    assert parse_time(text, 100.0) == nanoseconds


@pytest.mark.parametrize("text", ["x", "10x", "1970-13-01T00:00:00Z", "1e5", "10.x", "-", "١٠"])
def test_no_times(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_time(text, 100.0)


def test_sizes() -> None:
    assert parse_size("10m") == 10_000_000
    assert parse_size("1.5k") == 1500
    with pytest.raises(InvalidArgument):
        parse_size("-1")
