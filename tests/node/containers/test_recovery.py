"""One daemon after another over the same disk, network and monitors."""

import pytest

from node.containers.model import NetworkSpec, Port, PublishedPort, RestartMode, RestartPolicy
from node.containers.persistence import StateUnreadable

WEB = NetworkSpec(bindings=(PublishedPort(Port(80), "", 8080),))


async def test_running_containers_are_taken_over(cold_node):
    async with cold_node.opened() as node:
        container_id = await node.run(network=WEB, labels={"a": "b"})
        before = await node.containers.get("box")
    assert not node.launcher.last.ended.done(), "ending the daemon ends no container"
    async with cold_node.opened() as node:
        after = await node.containers.get("box")
        assert after == before
        assert node.networks.readopted == [container_id]
        waiting = await node.containers.wait("box")
        node.launcher.last.end(9)
        assert (await waiting).status_code == 9


async def test_what_ended_meanwhile_is_booked(cold_node):
    async with cold_node.opened() as node:
        container_id = await node.run(network=WEB)
    exit_file = cold_node.home / "containers" / container_id / "exit.json"
    exit_file.write_text(
        '{"exit_code": 6, "oom_killed": true, "finished_at": "2026-01-01T00:00:00.000000000Z", "error": ""}'
    )
    node.launcher.last.end(6)
    async with cold_node.opened() as node:
        state = (await node.containers.get("box")).state
        assert (state.status, state.exit_code, state.oom_killed, state.pid) == ("exited", 6, True, 0)
        assert node.networks.attached == {}


async def test_what_was_lost_is_137(cold_node):
    async with cold_node.opened() as node:
        await node.run(network=WEB)
    node.launcher.last.end(0)
    async with cold_node.opened() as node:
        state = (await node.containers.get("box")).state
        assert (state.status, state.exit_code) == ("exited", 137)
        assert "left no exit status" in state.error
        await node.containers.start("box")


@pytest.mark.parametrize(
    ("mode", "by_user", "again"),
    [
        (RestartMode.NO, False, False),
        (RestartMode.ALWAYS, False, True),
        (RestartMode.ALWAYS, True, True),
        (RestartMode.UNLESS_STOPPED, False, True),
        (RestartMode.UNLESS_STOPPED, True, False),
        (RestartMode.ON_FAILURE, False, True),
        (RestartMode.ON_FAILURE, True, False),
    ],
)
async def test_policies_hold_over_a_restart(cold_node, until, mode, by_user, again):
    async with cold_node.opened() as node:
        await node.run(restart=RestartPolicy(mode))
        if by_user:
            await node.containers.stop("box")
    if not by_user:
        node.launcher.last.end(1)
    async with cold_node.opened() as node:
        if again:
            await until(lambda: len(node.launcher.monitors) == 2)
        else:
            assert await node.status() == "exited"


async def test_a_created_container_is_not_started(cold_node):
    async with cold_node.opened() as node:
        await node.run("other")
        await node.containers.stop("other")
        await node.containers.rename("other", "renamed")
    async with cold_node.opened() as node:
        assert await node.status("renamed") == "exited"
        assert len(node.launcher.monitors) == 1


async def test_rm_is_kept_for_what_ended_meanwhile(cold_node, until):
    async with cold_node.opened() as node:
        await node.run(auto_remove=True)
    node.launcher.last.end(0)
    async with cold_node.opened() as node:

        async def gone():
            return await node.containers.list(all=True) == []

        await until(gone)


async def test_a_start_whose_record_was_lost(cold_node):
    async with cold_node.opened() as node:
        container_id = await node.run()
        await node.rows.set_state(container_id, "{}")
    async with cold_node.opened() as node:
        assert await node.status() == "running"


async def test_leftovers_of_a_killed_daemon_are_swept(cold_node):
    orphan = cold_node.home / "containers" / ("f" * 64)
    orphan.mkdir()
    (orphan / "config.json").write_text("{}")
    cold_node.snapshots.held.add("f" * 64)
    async with cold_node.opened() as node:
        assert node.snapshots.held == set()
        assert not orphan.exists()


async def test_a_record_that_cannot_be_read_names_the_container(cold_node):
    async with cold_node.opened() as node:
        container_id = await node.run()
        await node.rows.set_state(container_id, "[]")
    with pytest.raises(StateUnreadable, match="container box"):
        async with cold_node.opened():
            pass
