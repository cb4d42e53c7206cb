"""The state machine: what each verb does in each state, what is released, who is told, and what races come to."""

import asyncio

import pytest

from node.containers.errors import (
    CannotInvoke,
    CannotStart,
    InvalidName,
    NameInUse,
    NoSuchContainer,
    NotRunning,
    WrongState,
)
from node.containers.filters import Filters
from node.containers.live import WaitResult
from node.containers.model import CreateSpec, NetworkSpec, Port, PublishedPort, RestartMode, RestartPolicy
from node.containers.monitor import StartFailed
from node.containers.mountspec import MountSpec
from node.images.errors import ImageNotFound
from node.network.model import EndpointSpec
from node.snapshots.store import NoSpace
from node.state.database import StateUnusable
from ocispec.errors import InvalidArgument
from tests.node.containers.fakes import PortTaken

ALWAYS = RestartPolicy(RestartMode.ALWAYS)
WEB = NetworkSpec(bindings=(PublishedPort(Port(80), "", 8080),))


async def test_a_life(node, until):
    container_id = await node.run()
    assert await node.status() == "running"
    assert (await node.containers.get("box")).state.pid
    assert node.networks.attached == {container_id: "bridge"}
    assert await node.containers.start("box") is False
    waiting = await node.containers.wait("box")
    node.launcher.last.end(3)
    assert await waiting == WaitResult(3)
    state = (await node.containers.get("box")).state
    assert (state.status, state.exit_code, state.pid) == ("exited", 3, 0)
    assert node.networks.attached == {}
    assert node.launcher.last.closed
    await node.containers.remove("box")
    with pytest.raises(NoSuchContainer, match="No such container: box"):
        await node.containers.get("box")
    await until(lambda: not node.snapshots.held and not list((node.home / "containers").iterdir()))
    assert node.actions() == ["create", "start", "die", "destroy"]


async def test_names_ids_and_prefixes(node):
    first = await node.run("first")
    await node.run("second")
    for name in ("first", "/first", first, first[:12]):
        assert (await node.containers.get(name)).id == first
    with pytest.raises(NameInUse, match='The container name "/first" is already in use by container'):
        await node.containers.create(CreateSpec("alpine", name="first"))
    with pytest.raises(InvalidName):
        await node.containers.create(CreateSpec("alpine", name="-no"))
    made_up = await node.containers.create(CreateSpec("alpine"))
    assert "_" in (await node.containers.get(made_up.id)).name


async def test_two_creates_of_one_name_at_once(node):
    results = await asyncio.gather(
        *(node.containers.create(CreateSpec("alpine", name="one")) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, NameInUse) for result in results) == 4
    assert len(node.snapshots.held) == 1


@pytest.mark.parametrize("image", ["missing"])
async def test_a_create_that_fails_leaves_nothing(node, image):
    with pytest.raises(ImageNotFound):
        await node.containers.create(CreateSpec(image, name="box"))
    node.snapshots.failure = NoSpace("full")
    with pytest.raises(NoSpace):
        await node.containers.create(CreateSpec("alpine", name="box", volumes=("/data",)))
    assert node.volumes.held == {}
    assert list((node.home / "containers").iterdir()) == []
    node.snapshots.failure = None
    await node.containers.create(CreateSpec("alpine", name="box"))


@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [("not-found", CannotInvoke, 127), ("permission", CannotInvoke, 126), ("other", CannotStart, 128)],
)
async def test_a_start_that_fails_gives_everything_back(node, kind, error, code):
    await node.containers.create(CreateSpec("alpine", name="box", network=WEB))
    node.launcher.start_failure = StartFailed(kind, "exec: nope")
    place = await node.containers.attach("box", stdin=False, stdout=True, stderr=True)
    with pytest.raises(error, match="unable to start container process: exec: nope"):
        await node.containers.start("box")
    state = (await node.containers.get("box")).state
    assert (state.status, state.exit_code, state.pid) == ("created", code, 0)
    assert "exec: nope" in state.error
    assert node.networks.attached == {}
    assert node.networks.ports == {}
    assert node.launcher.last.closed
    # The place that was filled sees its end by the monitor's hanging up; a later one by the next start.
    stream = await place.open()
    assert stream is not None
    stream.close()
    node.launcher.last.hang_up()
    node.launcher.start_failure = None
    assert await node.containers.start("box") is True
    assert (await node.containers.get("box")).state.error == ""


@pytest.mark.parametrize("part", ["mount", "launcher"])
async def test_whatever_fails_the_network_is_let_go(node, part):
    await node.containers.create(CreateSpec("alpine", name="box", network=WEB))
    place = await node.containers.attach("box", stdin=False, stdout=True, stderr=True)
    if part == "mount":
        node.snapshots.mount_failure = NoSpace("full")
    else:
        node.launcher.failure = OSError(28, "No space left on device")
    with pytest.raises((NoSpace, CannotStart)):
        await node.containers.start("box")
    assert node.networks.attached == {}
    assert node.networks.ports == {}
    assert node.networks.closed == 1
    assert await place.open() is None


async def test_a_port_in_use_is_the_second_ones_problem(node):
    await node.run("first", network=WEB)
    with pytest.raises(PortTaken, match="port is already allocated"):
        await node.run("second", network=WEB)
    assert await node.status("first") == "running"
    assert await node.status("second") == "created"
    await node.containers.stop("first")
    assert await node.containers.start("second")


async def test_an_auto_removed_container_is_gone_when_its_waiter_hears(node):
    await node.containers.create(CreateSpec("alpine", name="box", auto_remove=True, volumes=("/data",)))
    waiting = await node.containers.wait("box", "removed")
    await node.containers.start("box")
    node.launcher.last.end(7)
    assert (await waiting).status_code == 7
    assert await node.containers.list(all=True) == []
    assert node.volumes.held == {}
    assert node.actions()[-3:] == ["die", "unmount", "destroy"]


async def test_an_auto_removed_container_that_cannot_start_is_removed(node):
    node.launcher.start_failure = StartFailed("not-found", "exec: nope")
    with pytest.raises(CannotInvoke):
        await node.run(auto_remove=True)
    assert await node.containers.list(all=True) == []


async def test_stop_asks_then_kills(node):
    await node.run()
    node.launcher.last.ignores = {15}
    assert await node.containers.stop("box", timeout=0) is True
    assert node.launcher.last.signals == [15, 9]
    assert await node.containers.stop("box") is False
    await node.run("quiet", stop_signal="SIGINT", stop_timeout=0)
    await node.containers.stop("quiet")
    assert node.launcher.last.signals == [2, 9]


async def test_kill(node):
    await node.run()
    await node.containers.kill("box", "HUP")
    assert node.launcher.last.signals == [1]
    with pytest.raises(InvalidArgument, match="invalid signal: NOPE"):
        await node.containers.kill("box", "NOPE")
    await node.containers.kill("box")
    assert (await node.containers.get("box")).state.exit_code == 137
    with pytest.raises(NotRunning, match="is not running"):
        await node.containers.kill("box")


async def test_remove_needs_force_while_it_runs(node):
    await node.run()
    with pytest.raises(WrongState, match='cannot remove container "box": container is running'):
        await node.containers.remove("box")
    await node.containers.remove("box", force=True)
    assert node.launcher.last.signals == [9]
    assert await node.containers.list(all=True) == []


async def test_start_and_forced_remove_at_once(node):
    await node.containers.create(CreateSpec("alpine", name="box"))
    node.launcher.delay = 0.02
    starting = asyncio.create_task(node.containers.start("box"))
    await asyncio.sleep(0.005)
    await node.containers.remove("box", force=True)
    assert await starting is True
    assert await node.containers.list(all=True) == []
    assert node.networks.attached == {}
    assert node.launcher.last.ended.done()


async def test_many_verbs_at_once_leave_one_truth(node, until):
    await node.containers.create(CreateSpec("alpine", name="box", network=WEB))
    node.launcher.delay = 0.002
    verbs = [node.containers.start, node.containers.stop, node.containers.restart, node.containers.kill]
    results = await asyncio.gather(*(verbs[turn % 4]("box") for turn in range(40)), return_exceptions=True)
    assert {type(result) for result in results if isinstance(result, BaseException)} <= {NotRunning, WrongState}
    alive = [monitor for monitor in node.launcher.monitors if not monitor.ended.done()]
    status = await node.status()
    assert len(alive) == (1 if status == "running" else 0)
    assert len(node.networks.attached) == len(alive)
    await node.containers.remove("box", force=True)
    await until(lambda: not node.snapshots.held)


async def test_removing_twice_at_once(node):
    await node.run()
    results = await asyncio.gather(
        *(node.containers.remove("box", force=True) for _ in range(3)), return_exceptions=True
    )
    assert results.count(None) == 1
    assert all(result is None or "already in progress" in str(result) for result in results)


async def test_a_caller_that_leaves_does_not_stop_a_start_in_the_middle(node, until):
    await node.containers.create(CreateSpec("alpine", name="box"))
    node.launcher.delay = 0.02
    starting = asyncio.create_task(node.containers.start("box"))
    await asyncio.sleep(0.005)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    async def running():
        return await node.status() == "running"

    await until(running)


async def test_pause_and_what_it_forbids(node):
    container_id = await node.run()
    await node.containers.pause("box")
    assert node.freezer.frozen == {container_id}
    with pytest.raises(WrongState, match="already paused"):
        await node.containers.pause("box")
    with pytest.raises(WrongState, match="cannot start a paused container"):
        await node.containers.start("box")
    with pytest.raises(WrongState, match="unpause and then stop"):
        await node.containers.remove("box")
    await node.containers.unpause("box")
    with pytest.raises(WrongState, match="is not paused"):
        await node.containers.unpause("box")
    await node.containers.pause("box")
    await node.containers.stop("box")
    assert node.freezer.frozen == set()


async def test_rename(node):
    await node.run("old")
    await node.run("taken")
    with pytest.raises(NameInUse):
        await node.containers.rename("old", "taken")
    with pytest.raises(InvalidArgument, match="same name"):
        await node.containers.rename("old", "old")
    await node.containers.rename("old", "new")
    assert (await node.containers.get("new")).name == "new"
    with pytest.raises(NoSuchContainer):
        await node.containers.get("old")


async def test_attached_before_the_start_by_many(node):
    await node.containers.create(CreateSpec("alpine", name="box", open_stdin=True))
    places = [await node.containers.attach("box", stdin=True, stdout=True, stderr=True) for _ in range(3)]
    places[1].cancel()
    await node.containers.start("box")
    streams = [await places[0].open(), await places[2].open()]
    assert all(streams)
    assert len(node.launcher.last.attached) == 2
    for stream in streams:
        stream.close()
    node.launcher.last.hang_up()


async def test_a_place_in_a_container_that_is_removed(node):
    await node.containers.create(CreateSpec("alpine", name="box"))
    place = await node.containers.attach("box", stdin=False, stdout=True, stderr=True)
    await node.containers.remove("box")
    assert await place.open() is None


async def test_wait_conditions(node):
    await node.containers.create(CreateSpec("alpine", name="box"))
    assert await asyncio.wait_for(await node.containers.wait("box"), 1) == WaitResult(0)
    next_exit = await node.containers.wait("box", "next-exit")
    assert not next_exit.done()
    await node.containers.start("box")
    node.launcher.last.end(5)
    assert await next_exit == WaitResult(5)
    with pytest.raises(InvalidArgument, match="invalid condition"):
        await node.containers.wait("box", "someday")


async def test_a_policy_starts_it_again_with_patience(node, until):
    await node.run(restart=ALWAYS)
    node.launcher.last.end(1)
    await until(lambda: len(node.launcher.monitors) == 2)
    assert (await node.containers.get("box")).state.restart_count == 1
    node.launcher.last.end(0)

    async def resting():
        return await node.status() == "restarting"

    await until(resting)
    assert [c.name for c in await node.containers.list()] == ["box"]
    assert await node.containers.stop("box") is True
    assert await node.status() == "exited"
    await asyncio.sleep(0.25)
    assert len(node.launcher.monitors) == 2


async def test_on_failure_counts_and_gives_up(node, until):
    await node.run(restart=RestartPolicy(RestartMode.ON_FAILURE, 1))
    node.launcher.last.end(1)
    await until(lambda: len(node.launcher.monitors) == 2)
    node.launcher.last.end(1)

    async def over():
        return await node.status() == "exited"

    await until(over)
    await node.run("fine", restart=RestartPolicy(RestartMode.ON_FAILURE))
    node.launcher.last.end(0)
    assert (await (await node.containers.wait("fine"))).status_code == 0
    assert await node.status("fine") == "exited"


async def test_killed_by_hand_stays_down(node):
    await node.run(restart=ALWAYS)
    await node.containers.kill("box")
    assert await node.status() == "exited"


async def test_restart_keeps_what_rm_would_take(node):
    await node.run(auto_remove=True)
    await node.containers.restart("box")
    assert await node.status() == "running"
    assert len(node.launcher.monitors) == 2
    assert node.actions().count("restart") == 1


async def test_a_full_disk_hides_no_exit(node):
    await node.run()
    node.rows.failure = StateUnusable("disk full")
    waiting = await node.containers.wait("box")
    node.launcher.last.end(4)
    assert (await asyncio.wait_for(waiting, 2)).status_code == 4
    assert node.networks.attached == {}
    assert await node.containers.start("box")
    assert await node.status() == "running"


async def test_a_lost_monitor_is_137_and_its_cgroup_is_emptied(node):
    container_id = await node.run()
    waiting = await node.containers.wait("box")
    node.launcher.last.vanish()
    assert (await waiting).status_code == 137
    assert node.freezer.cleared == [container_id]


async def test_out_of_memory_is_told(node):
    await node.run()
    waiting = await node.containers.wait("box")
    node.launcher.last.end(137, oom=True)
    await waiting
    assert (await node.containers.get("box")).state.oom_killed
    assert node.actions()[-2:] == ["oom", "die"]


async def test_lists(node):
    await node.run("one", labels={"a": "1"})
    await node.containers.create(CreateSpec("alpine", name="two"))
    await node.run("three")
    assert [c.name for c in await node.containers.list()] == ["three", "one"]
    assert [c.name for c in await node.containers.list(all=True)] == ["three", "two", "one"]
    assert [c.name for c in await node.containers.list(limit=2)] == ["three", "two"]
    assert [c.name for c in await node.containers.list(filters=Filters.parse({"label": ["a=1"]}))] == ["one"]
    since = Filters.parse({"since": ["one"]})
    assert [c.name for c in await node.containers.list(all=True, filters=since)] == ["three", "two"]
    assert node.containers.counts() == {"running": 2, "paused": 0, "stopped": 1}


async def test_volumes_are_shared_and_outlive_their_first_container(node):
    await node.run("first", volumes=("/data",), mounts=(MountSpec.parse_bind("named:/named"),))
    await node.run("second", volumes_from=("first",))
    await node.containers.remove("first", force=True, volumes=True)
    assert len(node.volumes.held) == 2, "the second still uses both"
    await node.containers.remove("second", force=True, volumes=True)
    assert "named" in node.volumes.held


async def test_an_anonymous_volume_goes_with_rm_v(node):
    await node.run(volumes=("/data",))
    assert node.volumes.filled == ["/data"]
    await node.containers.remove("box", force=True)
    assert len(node.volumes.held) == 1
    await node.run("other", volumes=("/data",))
    await node.containers.remove("other", force=True, volumes=True)
    assert len(node.volumes.held) == 1


async def test_a_projects_network_is_remembered_by_id(node):
    """The network may be removed, and its name be another's, before the container starts again."""
    await node.run(labels={"seawall.project": "shop"})
    await node.containers.connect("box", EndpointSpec("front"))
    wanted = (await node.containers.get("box")).wanted
    assert [(one.network, one.network_id) for one in wanted if one.network_id == "f" * 64] == [("f" * 64, "f" * 64)]
