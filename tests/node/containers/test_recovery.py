"""One daemon after another over the same disk, network and monitors."""

import pytest

from node.containers.model import ExecSpec, Healthcheck, NetworkSpec, Port, PublishedPort, RestartMode, RestartPolicy
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


async def test_a_start_whose_record_was_lost(cold_node, until):
    """Its addresses and ports are lost with it: left alone, it would run on without a network."""
    async with cold_node.opened() as node:
        container_id = await node.run(network=WEB)
        await node.rows.set_state(container_id, "{}")
    async with cold_node.opened() as node:
        assert node.launcher.monitors[0].ended.done()

        async def again():
            return len(node.launcher.monitors) == 2 and await node.status() == "running"

        await until(again)
        assert (await node.containers.get("box")).network.endpoints


async def test_a_start_without_networks_whose_record_was_lost(cold_node):
    async with cold_node.opened() as node:
        container_id = await node.run(network=NetworkSpec("none"))
        await node.rows.set_state(container_id, "{}")
    async with cold_node.opened() as node:
        assert await node.status() == "running"
        assert not node.launcher.last.ended.done()


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


async def test_execs_are_known_again(cold_node, until):
    async with cold_node.opened() as node:
        await node.run()
        running = await node.execs.create("box", ExecSpec(("sleep", "9"), env=("SECRET=1",), user="12:34"))
        ended = await node.execs.create("box", ExecSpec(("true",)))
        for exec_id in (running, ended):
            await node.execs.start(exec_id, detach=True)
        node.launcher.last.end_exec(ended, 3)
    async with cold_node.opened() as node:
        assert node.execs.get(running).running
        assert node.execs.get(running).spec == ExecSpec(("sleep", "9"), user="12:34")
        assert node.execs.get(ended).exit_code == 3
        node.launcher.last.end_exec(running, 5)
        assert await node.execs.wait(running) == 5


async def test_health_goes_on_where_it_was(cold_node, until):
    check = Healthcheck(("CMD", "probe"), interval=10**6, timeout=10**9)
    async with cold_node.opened() as node:
        await node.run(healthcheck=check)
        monitor = node.launcher.last
        exec_id = await until(lambda: next(iter(monitor.execs), None))
        await until(lambda: monitor.attached)
        monitor.attached.pop().close()
        monitor.end_exec(exec_id, 0)
        await until(lambda: "health_status: healthy" in node.actions())
        await until(lambda: len(monitor.execs) > 1)
    monitor.hang_up()
    async with cold_node.opened() as node:
        assert (await node.containers.get("box")).state.health.status == "healthy"
        await node.containers.stop("box")
    monitor.hang_up()


def stack(service, depends="", **more):
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": service}
    return {"labels": labels | {"com.docker.compose.depends_on": depends}, **more}


async def test_a_stack_comes_up_in_its_order(cold_node, until):
    """db must be healthy before app starts, app started before web; nobody waits for himself."""
    check = Healthcheck(("CMD", "probe"), interval=10**6, timeout=10**9)
    always = RestartPolicy(RestartMode.ALWAYS)
    async with cold_node.opened() as node:
        await node.run("web", restart=always, **stack("web", "app:service_started:false,web:service_healthy:false"))
        await node.run("app", restart=always, **stack("app", "db:service_healthy:true,web"))
        await node.run("db", restart=always, **stack("db", healthcheck=check))
        old = list(node.launcher.monitors)
    for monitor in old:
        monitor.end(137)
        monitor.hang_up()
    async with cold_node.opened() as node:
        await until(lambda: len(node.launcher.monitors) > 3)
        monitor = node.launcher.last
        exec_id = await until(lambda: next(iter(monitor.execs), None))
        assert [await node.status(name) for name in ("db", "app", "web")] == ["running", "exited", "exited"]
        await until(lambda: monitor.attached)
        monitor.attached.pop().close()
        monitor.end_exec(exec_id, 0)
        await until(lambda: node.actions().count("start") == 3)
        started = [event.attributes["name"] for event in node.events.past() if event.action == "start"]
        assert started == ["db", "app", "web"]
        await node.containers.stop("db")
    monitor.hang_up()


async def test_what_is_needed_and_does_not_come_is_not_waited_for(cold_node, until, caplog):
    always = RestartPolicy(RestartMode.ALWAYS)
    async with cold_node.opened() as node:
        await node.run("job")
        await node.run("box", restart=always, labels={"seawall.depends-on": "job:completed_successfully,gone,job"})
    for monitor in node.launcher.monitors:
        monitor.end(1)
    async with cold_node.opened() as node:
        await until(lambda: len(node.launcher.monitors) == 3)
        assert "although job is not completed_successfully" in caplog.text
