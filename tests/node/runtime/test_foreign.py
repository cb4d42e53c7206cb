"""Other runtimes under the same monitor: runc, crun, whatever else is on this host, each through every operation."""

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from node.containers.launcher import Program
from node.containers.monitor import ExitStatus, MonitorGone, StartFailed
from node.linux import capabilities
from node.linux.cgroups import detect
from tests.conftest import Until, lacking
from tests.node.runtime.conftest import Box, Boxes, Stream, process
from tests.node.runtime.oci.conftest import program as installation

pytestmark = pytest.mark.root
installed = installation
"""Our own runtime's program, driven as anybody else's."""

UNIFIED = "/sys/fs/cgroup/unified"


@pytest.fixture(params=["runc", "crun", "seawall-runtime"])
def program(request: pytest.FixtureRequest) -> Program:
    if request.param == "seawall-runtime":
        return Program(str(request.getfixturevalue("installed")))
    path = shutil.which(request.param, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if path is None:
        lacking(f"{request.param} is not installed")
    assert path is not None
    # crun refuses hybrid hosts where it sees them.
    hidden = (UNIFIED,) if request.param == "crun" and Path(UNIFIED).is_dir() else ()
    return Program(path, hidden=hidden)


@pytest.fixture
def foreign(boxes: Boxes, program: Program) -> "Foreign":
    return Foreign(boxes, program)


class Foreign:
    def __init__(self, boxes: Boxes, program: Program) -> None:
        self._boxes = boxes
        self.program = program

    def __call__(self, *args: str, **fields: object) -> Box:
        box = self._boxes(*args, **fields)
        box.runtime = self.program
        return box


async def test_it_runs_with_streams_limits_and_exit_code(foreign: Foreign, boxes: Boxes) -> None:
    box = foreign("sh", "-c", "echo out; echo err >&2; cat /proc/self/cgroup; id -u; hostname; exit 7")
    box.config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}
    monitor = await box.create()
    group = detect().open(box.config["linux"]["cgroupsPath"])
    stats = group.stats()
    assert (stats.memory.limit, stats.pids.limit) == (64 << 20, 50)
    assert monitor.pid in group.procs()
    await monitor.start()
    assert (await monitor.wait()).code == 7
    assert "err\n" in box.output("stderr")
    out = box.output("stdout")
    assert out.startswith("out\n")
    assert out.endswith(f"0\n{box.name}\n")
    assert not (box.folder / "oci/state" / box.name).exists()


async def test_a_terminal_is_sized_resized_and_fed(foreign: Foreign) -> None:
    box = foreign("sh", "-c", "tty; stty size; read line; echo got $line; stty size", terminal=True,
                  consoleSize={"height": 33, "width": 99})
    box.open_stdin = True
    monitor = await box.create()
    stream = Stream(await monitor.attach(stdin=True, stdout=True, stderr=True))
    await monitor.start()
    assert b"33 99" in await stream.until(b"33 99")
    assert b"/dev/" in stream.data
    await monitor.resize(20, 50)
    await stream.send(b"word\n")
    assert b"20 50" in await stream.all()
    assert (await monitor.wait()).code == 0


async def test_stdin_reaches_it_and_ends(foreign: Foreign) -> None:
    box = foreign("cat")
    box.open_stdin = box.stdin_once = True
    monitor = await box.create()
    stream = Stream(await monitor.attach(stdin=True, stdout=True, stderr=True))
    await monitor.start()
    await stream.send(b"through\n")
    stream.end_input()
    assert (await stream.frames())[1] == b"through\n"
    assert (await monitor.wait()).code == 0


@pytest.mark.parametrize(("args", "kind"), [(("absent",), "not-found"), (("/etc/passwd",), "permission")])
async def test_what_cannot_run_is_told_as_by_ours(foreign: Foreign, args: tuple[str, ...], kind: str) -> None:
    box = foreign(*args)
    with pytest.raises(StartFailed) as failed:
        await (await box.create()).start()
    assert failed.value.kind == kind
    assert any(word in failed.value.message for word in (args[0], "executable"))
    assert box.output() == "", "the runtime's own words are no output of the container"


async def test_execs(foreign: Foreign) -> None:
    monitor = await foreign("sleep", "100").create()
    await monitor.start()
    await monitor.exec("one", process("sh", "-c", "cat; echo $A $(id -u); exit 5", env=["PATH=/bin", "A=b"],
                                      user={"uid": 1000, "gid": 1000}), tty=False, stdin=True)
    stream = Stream(await monitor.attach(stdin=True, stdout=True, stderr=True, exec_id="one"))
    assert await monitor.exec_start("one") > 0
    await stream.send(b"fed ")
    stream.end_input()
    assert (await stream.frames())[1] == b"fed b 1000\n"
    assert (await monitor.exec_wait("one")).code == 5
    await monitor.exec("two", process("sh", "-c", "stty size; sleep 100", consoleSize={"height": 7, "width": 70}),
                       tty=True, stdin=True)
    terminal = Stream(await monitor.attach(stdin=True, stdout=True, stderr=True, exec_id="two"))
    await monitor.exec_start("two")
    await terminal.until(b"7 70")
    await monitor.exec_signal("two", signal.SIGKILL)
    assert (await monitor.exec_wait("two")).code == 137
    await terminal.all()
    await monitor.exec("three", process("absent"), tty=False, stdin=False)
    with pytest.raises(StartFailed) as failed:
        await monitor.exec_start("three")
    assert failed.value.kind == "not-found"
    assert [held.id for held in await monitor.held_execs()] == ["one", "two"]
    await monitor.kill_all()
    assert (await monitor.wait()).code == 137


async def test_an_exec_ends_with_the_container(foreign: Foreign) -> None:
    monitor = await foreign("sleep", "100").create()
    await monitor.start()
    await monitor.exec("one", process("sleep", "100"), tty=False, stdin=False)
    await monitor.exec_start("one")
    await monitor.kill_all()
    assert (await monitor.exec_wait("one")).code == 137
    await monitor.wait()
    with pytest.raises((MonitorGone, StartFailed)):
        await monitor.exec("two", process("true"), tty=False, stdin=False)


async def test_mounts_that_a_runtime_may_not_know(foreign: Foreign, tmp_path: Path) -> None:
    """A part of a folder, and one whose owner is another inside."""
    shared = tmp_path / "shared"
    (shared / "part").mkdir(parents=True)
    (shared / "part" / "file").write_text("kept")
    (shared / "part" / "file").chmod(0o644)
    box = foreign("sh", "-c", "cat /part/file; stat -c %u /mapped/part/file; echo more > /part/new")
    extents = [{"containerID": 0, "hostID": 1000, "size": 1}]
    box.config["mounts"] += [
        {"destination": "/part", "type": "bind", "source": str(shared), "options": ["rbind", "X-mount.subdir=part"]},
        {"destination": "/mapped", "type": "bind", "source": str(shared), "options": ["bind", "ro", "idmap"],
         "uidMappings": extents, "gidMappings": extents},
    ]
    status, output = await box.run()
    assert (status.code, output) == (0, "kept1000\n")
    assert (shared / "part" / "new").read_text() == "more\n"


async def test_what_it_mounts_in_a_shared_bind_the_host_sees(foreign: Foreign, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", shared], check=True)
    try:
        subprocess.run(["mount", "--make-shared", shared], check=True)
        (shared / "there").mkdir()
        box = foreign("sh", "-c", "mount -t tmpfs none /one/there && echo seen > /one/there/file; cat /two/there/file",
                      caps=[*capabilities.DEFAULT, "CAP_SYS_ADMIN"])
        del box.config["linux"]["seccomp"]
        box.config["linux"]["rootfsPropagation"] = "shared"
        box.config["mounts"] += [
            {"destination": f"/{name}", "type": "bind", "source": str(shared), "options": ["rbind", "rshared"]}
            for name in ("one", "two")
        ]
        assert (await box.run())[1] == "seen\n"
        assert (shared / "there/file").read_text() == "seen\n"
        subprocess.run(["umount", shared / "there"], check=True)
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", shared], check=True)


async def test_a_killed_monitor_leaves_nothing_in_the_way(foreign: Foreign, until: Until) -> None:
    box = foreign("sleep", "100")
    monitor = await box.create()
    await monitor.start()
    parent = int(Path(f"/proc/{monitor.pid}/status").read_text().split("PPid:")[1].split()[0])
    os.kill(parent, signal.SIGKILL)
    with pytest.raises(MonitorGone):
        await monitor.wait()
    group = detect().open(box.config["linux"]["cgroupsPath"])
    await asyncio.to_thread(group.kill)  # as the daemon does
    await asyncio.to_thread(group.delete)
    box.config["process"]["args"] = ["true"]
    assert (await box.run())[0].code == 0


async def test_a_pause_a_thaw_and_the_oom_killer(foreign: Foreign) -> None:
    box = foreign("sh", "-c", "dd if=/dev/zero of=/dev/null bs=90M count=1")
    box.config["linux"]["resources"] = {"memory": {"limit": 32 << 20, "swap": 32 << 20}}
    monitor = await box.create()
    group = detect().open(box.config["linux"]["cgroupsPath"])
    await asyncio.to_thread(group.freeze)
    await asyncio.to_thread(group.thaw)
    await monitor.start()
    status: ExitStatus = await monitor.wait()
    assert (status.code, status.oom_killed) == (137, True)


async def test_a_program_that_is_no_runtime(boxes: Boxes, tmp_path: Path) -> None:
    lying = tmp_path / "lying"
    lying.write_text("#!/bin/sh\nexit 0\n")
    lying.chmod(0o755)
    for path, said in ((lying, "pid file"), (tmp_path / "gone", "failed and said nothing")):
        box = boxes("true")
        box.runtime = Program(str(path))
        with pytest.raises(StartFailed, match=said):
            await box.create()


async def test_what_a_runtime_leaves_behind_when_it_fails_goes(boxes: Boxes, tmp_path: Path, until: Until) -> None:
    """One that was killed in the middle had a process of its own in the group already, with the host in sight."""
    box = boxes("true")
    group = detect().create(box.config["linux"]["cgroupsPath"], {})
    failing = tmp_path / "failing"
    failing.write_text(f"#!/bin/sh\nsleep 600 & echo $! > {tmp_path}/outside; sleep 600 & echo $! > {tmp_path}/pid\n"
                       f"for at in /sys/fs/cgroup/{group.path} /sys/fs/cgroup/*/{group.path}; do\n"
                       "if [ -e $at/cgroup.procs ]; then echo $! > $at/cgroup.procs; fi\ndone\nexit 1\n")
    failing.chmod(0o755)
    box.runtime = Program(str(failing))
    try:
        with pytest.raises(StartFailed):
            await box.create()
        pids = [(tmp_path / name).read_text().strip() for name in ("pid", "outside")]
        await until(lambda: not any(Path("/proc", pid).exists() for pid in pids))
        assert not group.procs()
    finally:
        await asyncio.to_thread(group.kill)
        await asyncio.to_thread(group.delete)
