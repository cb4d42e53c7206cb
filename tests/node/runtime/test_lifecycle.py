"""From create to exit: statuses, signals, what a monitor outlives, and what is left when one is killed."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from node.containers.launcher import Launcher
from node.containers.monitor import ExitStatus, Monitor, MonitorGone, StartFailed, read_exit
from node.linux.cgroups import detect
from tests.conftest import Until
from tests.node.runtime.conftest import Boxes, leftovers

pytestmark = pytest.mark.root


def monitor_pid(container_pid: int) -> int:
    status = Path(f"/proc/{container_pid}/status").read_text()
    return int(status.split("PPid:")[1].split()[0])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_exit_code_is_the_commands(boxes: Boxes, code: int) -> None:
    status, _ = await boxes("sh", "-c", f"exit {code}").run()
    assert (status.code, status.oom_killed, status.error) == (code, False, "")


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "USR1"])
async def test_a_signal_ends_it_with_128_and_its_number(boxes: Boxes, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    # The first process of a pid namespace is spared signals it does not handle, but not those from outside that kill.
    monitor = await boxes("sh", "-c", "sleep 100 & wait").create()
    await monitor.start()
    await monitor.signal(number)
    if number != signal.SIGKILL:
        await asyncio.sleep(0)
        await monitor.kill_all()
        number = signal.SIGKILL
    assert (await monitor.wait()).code == 128 + number


async def test_a_handled_signal_reaches_the_process(boxes: Boxes, until: Until) -> None:
    box = boxes("sh", "-c", "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.01; done")
    monitor = await box.create()
    await monitor.start()
    await until(lambda: "ready" in box.output())
    await monitor.signal(signal.SIGTERM)
    assert (await monitor.wait()).code == 3
    assert "got it" in box.output()


async def test_signals_are_not_ignored_inside(boxes: Boxes) -> None:
    status, output = await boxes("sh", "-c", "grep SigIgn /proc/self/status; yes | head -1").run()
    assert status.code == 0
    assert "SigIgn:\t0000000000000000" in output


async def test_wait_answers_many_and_again_after_the_end(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "echo out; exit 4")
    monitor = await box.create()
    waiting = [asyncio.ensure_future(monitor.wait()) for _ in range(5)]
    await monitor.start()
    statuses = await asyncio.gather(*waiting)
    assert {status.code for status in statuses} == {4}
    assert (await monitor.wait()) == statuses[0]
    assert read_exit(box.folder) == statuses[0]
    assert box.output() == "out\n", "the log is whole before wait answers"
    assert not leftovers(boxes.parent), "the group is gone before wait answers"


async def test_exit_json_is_what_the_contract_says(boxes: Boxes) -> None:
    box = boxes("false")
    status, _ = await box.run()
    held = json.loads((box.folder / "exit.json").read_text())
    assert held["exit_code"] == 1
    assert held["finished_at"] == status.finished_at
    assert status.finished_at.endswith("Z") and len(status.finished_at.partition(".")[2]) == 10


async def test_it_starts_again_in_the_same_place(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "echo run; exit 2")
    for _ in range(5):
        status, _ = await box.run()
        assert status.code == 2
    assert box.output() == "run\n" * 5


async def test_orphans_die_with_the_container(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "setsid sh -c 'while :; do sleep 1; done' & sleep 0.05; exit 0")
    group = detect().open(f"{boxes.parent}/{box.name}")
    status, _ = await box.run()
    assert status.code == 0
    assert group.procs() == []


async def test_orphans_are_reaped_without_a_pid_namespace(boxes: Boxes, until: Until) -> None:
    box = boxes("sh", "-c", "for i in 1 2 3; do sh -c 'true & exec true' & done; wait; echo done; sleep 100")
    box.config["linux"]["namespaces"] = [n for n in box.config["linux"]["namespaces"] if n["type"] != "pid"]
    monitor = await box.create()
    await monitor.start()
    await until(lambda: "done" in box.output())
    parent = monitor_pid(monitor.pid)
    children = Path(f"/proc/{parent}/task/{parent}/children")
    await until(lambda: children.read_text().split() == [str(monitor.pid)], what="orphans are reaped")
    await monitor.kill_all()
    assert (await monitor.wait()).code == 137


async def test_a_container_that_is_never_started_leaves_nothing(boxes: Boxes, until: Until) -> None:
    box = boxes("true")
    monitor = await box.create()
    pid = monitor.pid
    await monitor.close()
    await until(lambda: not alive(pid) and not leftovers(boxes.parent))
    assert read_exit(box.folder) is None


async def test_the_monitor_outlives_the_launcher(boxes: Boxes, launcher: Launcher, until: Until) -> None:
    box = boxes("sh", "-c", "sleep 0.3; echo late; exit 9")
    monitor = await box.create()
    await monitor.start()
    old = launcher.pid
    os.kill(old, signal.SIGKILL)
    assert (await boxes("true").run())[0].code == 0, "a new launcher serves at once"
    assert launcher.pid != old
    assert (await monitor.wait()).code == 9
    assert box.output() == "late\n"


async def test_a_killed_spare_is_replaced(boxes: Boxes, launcher: Launcher, until: Until) -> None:
    assert (await boxes("true").run())[0].code == 0
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")

    def spares() -> list[int]:
        pids = [int(word) for word in children.read_text().split()]
        return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "seawall-spare\n"]

    spare = (await until(spares))[0]
    os.kill(spare, signal.SIGKILL)
    await until(lambda: not alive(spare))
    assert (await boxes("true").run())[0].code == 0


async def test_it_is_found_again_by_its_socket(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "sleep 0.3; exit 6")
    first = await box.create()
    await first.start()
    await first.close()
    second = await Monitor.connect(box.folder)
    box.monitors.append(second)
    assert (second.pid, second.started) == (first.pid, True)
    assert (await second.wait()).code == 6


DAEMON = """
import asyncio, json, sys
from pathlib import Path
from node.containers.launcher import Launcher, LaunchRequest, LogTarget
from node.snapshots.mounts import RootMount

async def main(folder):
    async with Launcher() as launcher:
        monitor = await launcher.create(LaunchRequest("x" * 64, folder, (RootMount("bind", str(folder / "image"),
            ("rbind",)),), folder, LogTarget(folder / "json.log"), False, False))
        await monitor.start()
        print(monitor.pid, launcher.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_it_outlives_the_daemon_that_was_killed(boxes: Boxes, until: Until) -> None:
    box = boxes("sh", "-c", "i=0; while [ $i -lt 40 ]; do echo line $i; sleep 0.02; i=$((i+1)); done; exit 5")
    (box.folder / "config.json").write_text(json.dumps(box.config))
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(box.folder)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    pid, launcher_pid = map(int, (await asyncio.to_thread(daemon.stdout.readline)).split())
    daemon.kill()
    daemon.wait()
    assert await asyncio.to_thread(daemon.stdout.read) == "", "the monitor does not hold the daemon's output"
    daemon.stdout.close()
    await until(lambda: not alive(launcher_pid), what="the launcher ends with the daemon")
    assert alive(pid)
    monitor = await Monitor.connect(box.folder)
    box.monitors.append(monitor)
    assert monitor.pid == pid
    assert (await monitor.wait()).code == 5
    assert box.output().splitlines() == [f"line {number}" for number in range(40)]


async def test_killing_the_monitor_kills_the_container(boxes: Boxes, until: Until) -> None:
    box = boxes("sh", "-c", "setsid sleep 100 & exec sleep 100")
    monitor = await box.create()
    await monitor.start()
    group = detect().open(f"{boxes.parent}/{box.name}")
    waiting = asyncio.ensure_future(monitor.wait())
    await until(lambda: len(group.procs()) == 2)
    os.kill(monitor_pid(monitor.pid), signal.SIGKILL)
    with pytest.raises(MonitorGone):
        await waiting
    with pytest.raises(MonitorGone):
        await monitor.signal(signal.SIGTERM)
    await until(lambda: not group.procs(), what="nothing of the container survives")
    with pytest.raises(MonitorGone):
        await Monitor.connect(box.folder)
    assert read_exit(box.folder) is None
    # What is left is an empty group: the next start takes it over, a removal deletes it.
    assert (await boxes("true").run())[0].code == 0
    assert (await box.create()).pid
    group.kill()


async def test_a_port_is_free_when_the_end_is_told(boxes: Boxes) -> None:
    """Also while a client is still attached and reads what is left."""
    box = boxes("sh", "-c", "sleep 0.1")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = held.getsockname()
        box.fds = (held.fileno(),)
        monitor = await box.create()
    lazy = await monitor.attach(stdin=False, stdout=True, stderr=True)
    await monitor.start()
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(address)
    await monitor.wait()
    with socket.socket() as other:
        other.bind(address)
    lazy.close()


async def test_the_monitor_ignores_polite_signals(boxes: Boxes) -> None:
    monitor = await boxes("sleep", "100").create()
    await monitor.start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        os.kill(monitor_pid(monitor.pid), number)
    await monitor.kill_all()
    assert (await monitor.wait()).code == 137


async def test_an_out_of_memory_kill_is_told(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "exec tail -c 500m /dev/zero")
    box.config["linux"]["resources"] = {"memory": {"limit": 12 << 20, "swap": 12 << 20}}
    status, _ = await box.run()
    assert (status.code, status.oom_killed) == (137, True)


async def test_dockers_smallest_memory_limit_is_enough(boxes: Boxes) -> None:
    box = boxes("true")
    box.config["linux"]["resources"] = {"memory": {"limit": 6 << 20, "swap": 6 << 20}}
    status, _ = await box.run()
    assert (status.code, status.oom_killed) == (0, False)


async def test_kill_all_ends_a_frozen_container(boxes: Boxes) -> None:
    box = boxes("sleep", "100")
    monitor = await box.create()
    await monitor.start()
    await asyncio.to_thread(detect().open(f"{boxes.parent}/{box.name}").freeze)
    await monitor.kill_all()
    assert (await asyncio.wait_for(monitor.wait(), 10)).code == 137


async def test_a_wrong_bundle_is_refused_with_its_reason(boxes: Boxes) -> None:
    box = boxes("true")
    box.config["linux"]["namespaces"].append({"type": "user"})
    with pytest.raises(StartFailed, match="a new user namespace needs linux.uidMappings"):
        await box.create()
    box.config = {"ociVersion": "1.2.0"}
    with pytest.raises(StartFailed, match="root is not an object"):
        await box.create()
    assert (await boxes("true").run())[0].code == 0, "the launcher goes on"


async def test_a_limit_the_host_refuses_leaves_nothing(boxes: Boxes) -> None:
    box = boxes("true")
    box.config["linux"]["resources"] = {"cpu": {"cpus": "9999"}}
    with pytest.raises(StartFailed, match=r"^cgroup: "):
        await box.create()
    assert not leftovers(boxes.parent)


async def test_many_at_once(boxes: Boxes) -> None:
    statuses: list[tuple[ExitStatus, str]] = await asyncio.gather(*(boxes("echo", str(n)).run() for n in range(20)))
    assert [output for _, output in statuses] == [f"{n}\n" for n in range(20)]


async def test_launcher_and_monitor_run_from_a_read_only_interpreter(boxes: Boxes, launcher: Launcher) -> None:
    monitor = await boxes("sleep", "100").create()
    await monitor.start()
    mounts = Path(f"/proc/{launcher.pid}/mountinfo").read_text().splitlines()
    options = {line.split()[0]: line.split()[5].split(",") for line in mounts}
    for pid in (launcher.pid, monitor_pid(monitor.pid)):
        with Path(f"/proc/{pid}/exe").open("rb") as file:
            info = Path(f"/proc/self/fdinfo/{file.fileno()}").read_text()
        assert "ro" in options[info.split("mnt_id:")[1].split()[0]]
