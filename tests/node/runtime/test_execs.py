"""Further processes in a running container."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from node.containers.monitor import Monitor, MonitorGone, StartFailed
from node.linux import capabilities
from node.linux.cgroups import detect
from tests.conftest import Until
from tests.node.runtime.conftest import Boxes, Stream, process
from tests.node.runtime.test_lifecycle import monitor_pid

pytestmark = pytest.mark.root


PTRACE = [*capabilities.DEFAULT, "CAP_SYS_PTRACE"]


@pytest.fixture(params=["born inside", "born outside"])
async def monitor(request: pytest.FixtureRequest, boxes: Boxes) -> Monitor:
    """Of a container that sleeps; what might trace its execs' birth does not see them before."""
    more = {"caps": PTRACE} if request.param == "born outside" else {}
    box = boxes("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done", **more)
    (box.root / "home").chmod(0o777)
    monitor = await box.create()
    await monitor.start()
    return monitor


async def run(monitor: Monitor, *args: str, **fields: object) -> tuple[int, bytes]:
    name = os.urandom(4).hex()
    tty = bool(fields.pop("tty", False))
    await monitor.exec(name, process(*args, **fields), tty=tty, stdin=False)
    stream = Stream(await monitor.attach(stdin=False, stdout=True, stderr=True, exec_id=name))
    await monitor.exec_start(name)
    if tty:
        output = await stream.all()
    else:
        frames = await stream.frames()
        output = frames[1] + frames[2]
    return (await monitor.exec_wait(name)).code, output


async def test_output_and_exit_code(monitor: Monitor) -> None:
    assert await run(monitor, "sh", "-c", "echo out; echo err >&2; exit 5") == (5, b"out\nerr\n")


async def test_it_is_in_the_containers_namespaces_and_cgroup(monitor: Monitor, boxes: Boxes) -> None:
    _, output = await run(monitor, "sh", "-c", "for n in pid net ipc mnt uts cgroup; do readlink /proc/self/ns/$n; done")
    kinds = ("pid", "net", "ipc", "mnt", "uts", "cgroup")
    assert output.decode().split() == [os.readlink(f"/proc/{monitor.pid}/ns/{kind}") for kind in kinds]
    pid = await monitor.exec("long", process("sleep", "100"), tty=False, stdin=False)
    assert await monitor.exec_start("long") == pid
    assert pid in detect().open(f"{boxes.parent}/box0").procs()


async def test_its_confinement_is_the_containers(monitor: Monitor) -> None:
    _, output = await run(monitor, "grep", "-E", "Seccomp:|NoNewPrivs|CapInh|CapEff", "/proc/self/status",
                          user={"uid": 1000, "gid": 1000})
    assert [line.split()[1] for line in output.decode().splitlines()] == ["0" * 16, "0" * 16, "1", "2"]


async def test_user_folder_and_environment(monitor: Monitor) -> None:
    code, output = await run(monitor, "sh", "-c", "id -u; pwd; echo $X", cwd="/home", user={"uid": 7, "gid": 8},
                             env=["PATH=/bin", "X=y"])
    assert (code, output) == (0, b"7\n/home\ny\n")


async def test_stdin_and_its_end(monitor: Monitor) -> None:
    await monitor.exec("cat", process("cat"), tty=False, stdin=True)
    stream = Stream(await monitor.attach(stdin=True, stdout=True, stderr=True, exec_id="cat"))
    await monitor.exec_start("cat")
    await stream.send(b"hello")
    stream.end_input()
    assert (await stream.frames())[1] == b"hello"
    assert (await monitor.exec_wait("cat")).code == 0


async def test_a_prepared_exec_does_not_hold_anothers_stdin(monitor: Monitor) -> None:
    await monitor.exec("cat", process("cat"), tty=False, stdin=True)
    stream = Stream(await monitor.attach(stdin=True, stdout=True, stderr=True, exec_id="cat"))
    await monitor.exec_start("cat")
    await monitor.exec("later", process("true"), tty=False, stdin=True)
    stream.end_input()
    await stream.all()
    assert (await asyncio.wait_for(monitor.exec_wait("cat"), 5)).code == 0


async def test_a_terminal(monitor: Monitor) -> None:
    name = "tty"
    await monitor.exec(name, process("sh", "-c", "tty; stty size; read x; stty size; exit 3",
                                     consoleSize={"height": 10, "width": 20}), tty=True, stdin=True)
    stream = Stream(await monitor.attach(stdin=True, stdout=True, stderr=True, exec_id=name))
    await monitor.exec_start(name)
    assert b"/dev/pts/" in await stream.until(b"10 20")
    await monitor.resize(30, 40, name)
    await stream.send(b"\n")
    await stream.until(b"30 40")
    await stream.all()
    assert (await monitor.exec_wait(name)).code == 3


@pytest.mark.parametrize(("command", "kind", "message"), [
    ("foo", "not-found", 'exec: "foo": executable file not found in $PATH'),
    ("/etc", "is-directory", 'exec: "/etc": is a directory'),
    ("/etc/passwd", "permission", 'exec: "/etc/passwd": permission denied'),
    ("/x", "not-found", 'exec: "/x": stat /x: no such file or directory'),
])
async def test_why_a_command_cannot_run(monitor: Monitor, command: str, kind: str, message: str) -> None:
    with pytest.raises(StartFailed) as failed:
        await monitor.exec("bad", process(command), tty=False, stdin=False)
    assert (failed.value.kind, failed.value.message) == (kind, message)
    assert (await run(monitor, "true"))[0] == 0


async def test_a_missing_folder(monitor: Monitor) -> None:
    with pytest.raises(StartFailed) as failed:
        await monitor.exec("bad", process("true", cwd="/absent"), tty=False, stdin=False)
    assert failed.value.message == (
        'chdir to cwd ("/absent") set in config.json failed: no such file or directory')


async def test_a_folder_of_leaked_descriptors(monitor: Monitor) -> None:
    for number in range(3, 12):
        with pytest.raises(StartFailed):
            await monitor.exec(f"fd{number}", process("pwd", cwd=f"/proc/self/fd/{number}"), tty=False, stdin=False)


async def test_it_ends_with_the_container(monitor: Monitor) -> None:
    await monitor.exec("long", process("sleep", "100"), tty=False, stdin=False)
    await monitor.exec_start("long")
    waiting = asyncio.ensure_future(monitor.exec_wait("long"))
    await monitor.signal(signal.SIGTERM)
    assert (await waiting).code == 137
    assert (await monitor.wait()).code == 0
    with pytest.raises(MonitorGone):
        await monitor.exec("late", process("true"), tty=False, stdin=False)


async def test_what_it_leaves_behind_goes_on(monitor: Monitor) -> None:
    code, _ = await asyncio.wait_for(run(monitor, "sh", "-c", "(sleep 0.2; touch /tmp/done) & true"), 5)
    assert code == 0
    for _ in range(200):
        if (await run(monitor, "test", "-e", "/tmp/done"))[0] == 0:
            return
    raise AssertionError("the background process was killed")


async def test_one_that_nobody_starts_goes_with_who_prepared_it(monitor: Monitor, boxes: Boxes, until: Until) -> None:
    other = await Monitor.connect(boxes.made[0].folder)
    pid = await other.exec("orphan", process("true"), tty=False, stdin=False)
    await other.close()
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_many_at_once(monitor: Monitor) -> None:
    results = await asyncio.gather(*(run(monitor, "sh", "-c", f"echo {n}; exit {n}") for n in range(20)))
    assert results == [(n, f"{n}\n".encode()) for n in range(20)]


async def test_ended_ones_are_forgotten_in_the_end(monitor: Monitor) -> None:
    fds = Path(f"/proc/{monitor_pid(monitor.pid)}/fd")
    before = len(list(fds.iterdir()))
    await monitor.exec("first", process("true"), tty=False, stdin=False)
    await monitor.exec_start("first")
    for start in range(0, 120, 20):
        await asyncio.gather(*(run(monitor, "true") for _ in range(start, start + 20)))
    assert len(list(fds.iterdir())) <= before
    with pytest.raises(MonitorGone, match="no exec first"):
        await monitor.exec_wait("first")


async def test_the_same_id_twice(monitor: Monitor) -> None:
    await monitor.exec("one", process("sleep", "1"), tty=False, stdin=False)
    with pytest.raises(StartFailed, match="exists"):
        await monitor.exec("one", process("sleep", "1"), tty=False, stdin=False)
    await monitor.exec_start("one")
    with pytest.raises(StartFailed, match="started"):
        await monitor.exec_start("one")


async def test_the_interpreter_cannot_be_reached_from_inside(boxes: Boxes) -> None:
    """CVE-2019-5736: the new process is not dumpable while it is in the container, so its exe is closed to root there
    without CAP_SYS_PTRACE."""
    box = boxes("sh", "-c", "while :; do for p in /proc/[0-9]*; do readlink $p/exe; done; done 2>/dev/null | grep python")
    monitor = await box.create()
    await monitor.start()
    for number in range(10):
        await monitor.exec(f"e{number}", process("true"), tty=False, stdin=False)
        await monitor.exec_start(f"e{number}")
    await monitor.kill_all()
    await monitor.wait()
    assert box.output() == ""


WATCHER = """
echo watching
while :; do
  for p in /proc/[0-9]*; do
    [ $p = /proc/1 ] && continue
    while read -r key value; do
      [ "$key" = CapPrm: ] && [ $value != $OWN ] && echo "seen $value"
    done < $p/status
  done
done 2>/dev/null
"""


async def test_a_container_that_may_trace_never_sees_an_exec_with_our_capabilities(boxes: Boxes) -> None:
    own = f"{sum(1 << capabilities.ALL.index(name) for name in PTRACE):016x}"
    box = boxes("sh", "-c", WATCHER, caps=PTRACE, env=["PATH=/usr/bin:/bin", f"OWN={own}"])
    monitor = await box.create()
    stream = Stream(await monitor.attach(stdin=False, stdout=True, stderr=True))
    await monitor.start()
    for _ in range(30):
        assert await run(monitor, "true", caps=PTRACE) == (0, b"")
    await monitor.kill_all()
    frames = await stream.frames()
    assert frames[1].startswith(b"watching")
    assert b"seen" not in frames[1], frames[1][:200]
