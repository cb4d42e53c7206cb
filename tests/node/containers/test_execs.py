"""Further processes in a container, and the health checks that are such processes."""


import pytest

from node.containers import clock
from node.containers.errors import CannotInvoke, InvalidSpec, NoSuchContainer, NoSuchExec, NotRunning, WrongState
from node.containers.health import judged, span
from node.containers.model import ExecSpec, Health, Healthcheck, HealthResult
from node.containers.monitor import MonitorGone, StartFailed

MILLISECOND = 10**6


async def test_an_exec_lives_once(node):
    container_id = await node.run()
    exec_id = await node.execs.create("box", ExecSpec(("id", "-u"), attach_stdout=True))
    assert node.execs.get(exec_id).running is False
    stream = await node.execs.start(exec_id)
    assert stream is not None
    held = node.execs.get(exec_id)
    assert (held.running, held.container_id, held.pid > 0) == (True, container_id, True)
    assert (await node.containers.get("box")).exec_ids == (exec_id,)
    with pytest.raises(WrongState, match="already running"):
        await node.execs.start(exec_id)
    node.launcher.last.end_exec(exec_id, 4)
    assert await node.execs.wait(exec_id) == 4
    with pytest.raises(WrongState, match="already run"):
        await node.execs.start(exec_id)
    stream.close()
    node.launcher.last.hang_up()
    assert "exec_start: id -u" in node.actions()


async def test_detached(node):
    await node.run()
    exec_id = await node.execs.create("box", ExecSpec(("true",)))
    assert await node.execs.start(exec_id, detach=True) is None
    assert node.launcher.last.attached == []


@pytest.mark.parametrize(("kind", "code"), [("not-found", 127), ("permission", 126), ("is-directory", 126)])
async def test_what_cannot_be_invoked(node, kind, code):
    await node.run()
    exec_id = await node.execs.create("box", ExecSpec(("nope",)))
    node.launcher.start_failure = StartFailed(kind, "exec: nope")
    with pytest.raises(CannotInvoke, match="OCI runtime exec failed"):
        await node.execs.start(exec_id)
    held = node.execs.get(exec_id)
    assert (held.running, held.exit_code) == (False, code)


async def test_refusals(node):
    with pytest.raises(NoSuchContainer):
        await node.execs.create("box", ExecSpec(("x",)))
    with pytest.raises(NoSuchExec):
        node.execs.get("x")
    await node.run()
    for words in ((), ("",), ("a\0b",)):
        with pytest.raises(InvalidSpec):
            await node.execs.create("box", ExecSpec(words))
    await node.containers.pause("box")
    with pytest.raises(WrongState, match="is paused"):
        await node.execs.create("box", ExecSpec(("x",)))
    await node.containers.stop("box")
    with pytest.raises(NotRunning):
        await node.execs.create("box", ExecSpec(("x",)))


async def test_the_container_ends_under_an_exec(node):
    await node.run()
    exec_id = await node.execs.create("box", ExecSpec(("sleep",)))
    await node.execs.start(exec_id, detach=True)
    node.launcher.last.execs[exec_id].set_exception(MonitorGone("gone"))
    assert await node.execs.wait(exec_id) == 137


async def test_finished_execs_do_not_pile_up(node):
    await node.run()
    for _ in range(300):
        exec_id = await node.execs.create("box", ExecSpec(("true",)))
        await node.execs.start(exec_id, detach=True)
        node.launcher.last.end_exec(exec_id, 0)
        await node.execs.wait(exec_id)
    assert len((await node.containers.get("box")).exec_ids) <= 257


async def test_execs_that_nobody_starts_do_not_pile_up(node):
    await node.run()
    running = await node.execs.create("box", ExecSpec(("true",)))
    await node.execs.start(running, detach=True)
    made = [await node.execs.create("box", ExecSpec(("true",))) for _ in range(600)]
    assert len((await node.containers.get("box")).exec_ids) <= 514
    assert node.execs.get(running).running
    assert not node.execs.get(made[-1]).running
    with pytest.raises(NoSuchExec):
        node.execs.get(made[0])


async def probe(node, until, code):
    """Answer the next health check."""
    monitor = node.launcher.last
    exec_id = await until(lambda: next((key for key, end in monitor.execs.items() if not end.done()), None))
    await until(lambda: monitor.attached)
    monitor.attached.pop().close()
    monitor.end_exec(exec_id, code)
    await until(lambda: exec_id not in [e for e in monitor.execs if not monitor.execs[e].done()])


async def health(node):
    return (await node.containers.get("box")).state.health


async def test_health_is_told_and_counted(node, until):
    check = Healthcheck(("CMD", "probe"), interval=MILLISECOND, timeout=10**9, retries=2)
    await node.run(healthcheck=check)
    assert (await health(node)).status == "starting"

    async def becomes(status):
        async def there():
            return (await health(node)).status == status

        await until(there)

    await probe(node, until, 0)
    await becomes("healthy")
    await probe(node, until, 1)
    await probe(node, until, 1)
    await becomes("unhealthy")
    assert (await health(node)).failing_streak == 2
    await probe(node, until, 0)
    await becomes("healthy")
    # It is told once it is written down, which is after it is known.
    wanted = ["health_status: healthy", "health_status: unhealthy", "health_status: healthy"]
    await until(lambda: [action for action in node.actions() if action.startswith("health_status")] == wanted)
    await node.containers.stop("box")
    node.launcher.last.hang_up()


async def test_a_check_that_takes_too_long_is_a_failure_and_is_killed(node, until):
    check = Healthcheck(("CMD-SHELL", "sleep 9"), interval=MILLISECOND, timeout=5 * MILLISECOND, retries=1)
    await node.run(healthcheck=check)

    async def unhealthy():
        return (await health(node)).status == "unhealthy"

    await until(unhealthy)
    assert (await health(node)).log[0].output == "Health check exceeded timeout (5ms)"
    assert (await health(node)).log[0].exit_code == -1
    monitor = node.launcher.last
    assert next(iter(monitor.execs.values())).result().code == 137
    await node.containers.stop("box")
    monitor.hang_up()


async def test_what_does_not_run_is_unhealthy(node, until):
    check = Healthcheck(("CMD", "probe"), interval=MILLISECOND, timeout=10**9)
    await node.run(healthcheck=check)
    await probe(node, until, 0)
    await until(lambda: "health_status: healthy" in node.actions())
    await node.containers.pause("box")
    assert (await health(node)).status == "unhealthy"
    await node.containers.unpause("box")
    await node.containers.stop("box")
    node.launcher.last.hang_up()
    assert (await health(node)).status == "unhealthy"
    kept = len((await health(node)).log)
    await node.containers.start("box")
    assert (await health(node)).status == "starting"
    assert len((await health(node)).log) == kept
    await node.containers.stop("box")


@pytest.mark.parametrize(
    ("before", "age", "code", "after", "streak"),
    [
        ("starting", 1, 1, "starting", 0),
        ("starting", 11, 1, "starting", 1),
        ("starting", 1, 0, "healthy", 0),
        ("healthy", 1, 1, "healthy", 1),
    ],
)
def test_failures_inside_the_start_period_do_not_count(before, age, code, after, streak):
    check = Healthcheck(("CMD", "x"), start_period=10 * 10**9, retries=2)
    began = 1_700_000_000 * 10**9
    result = HealthResult(clock.written(began + age * 10**9), clock.written(began + age * 10**9), code, "")
    found = judged(Health(before), result, check, clock.written(began))
    assert (found.status, found.failing_streak) == (after, streak)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "500ms"), (1.5, "1.5s"), (30, "30s"), (60, "1m0s"), (3661, "1h1m1s")]
)
def test_spans_read_as_in_docker(seconds, text):
    assert span(seconds) == text


async def test_unhealthy_is_ended_and_started_again_where_asked(node, until):
    check = Healthcheck(("CMD", "probe"), interval=MILLISECOND, timeout=10**9, retries=1)
    await node.run(healthcheck=check, labels={"seawall.restart-unhealthy": "true"})
    first = node.launcher.last
    await probe(node, until, 1)
    await until(lambda: len(node.launcher.monitors) == 2)
    first.hang_up()
    assert first.signals == [15]

    async def runs():
        return await node.status() == "running"

    await until(runs)
    assert (await node.containers.get("box")).state.restart_count == 1
    await node.containers.stop("box")
    node.launcher.last.hang_up()


async def test_unhealthy_alone_ends_nothing(node, until):
    check = Healthcheck(("CMD", "probe"), interval=MILLISECOND, timeout=10**9, retries=1)
    await node.run(healthcheck=check, labels={"seawall.restart-unhealthy": "no"})
    await probe(node, until, 1)
    await until(lambda: "health_status: unhealthy" in node.actions())
    await probe(node, until, 0)
    await until(lambda: "health_status: healthy" in node.actions())
    assert node.launcher.last.signals == []
    await node.containers.stop("box")
    node.launcher.last.hang_up()
