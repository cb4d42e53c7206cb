"""The life of a container by `seawall-runtime`, against the real kernel."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.node.runtime.oci.conftest import Runtime

pytestmark = pytest.mark.root


def until(seen: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 10
    while not seen():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def stopped(runtime: Runtime, name: str) -> None:
    until(lambda: runtime.state(name)["status"] == "stopped", f"{name} has ended")


def test_run_stays_and_ends_with_the_status_of_the_process(runtime: Runtime) -> None:
    bundle = runtime.bundle("sh", "-c", "id -u; cat; exit 7")
    done = runtime("run", "--bundle", str(bundle), "one", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "0\n", "")
    assert runtime("list", "--quiet").stdout == ""


def test_a_created_container_waits_is_started_and_deleted(runtime: Runtime, tmp_path: Path) -> None:
    bundle = runtime.bundle("sh", "-c", "touch /began; exec sleep 100",
                            change=lambda config: config["root"].update(readonly=False))
    runtime("create", "--bundle", str(bundle), "--pid-file", str(tmp_path / "pid"), "one")
    state = runtime.state("one")
    assert (state["status"], state["bundle"]) == ("created", str(bundle))
    assert str(state["pid"]) == (tmp_path / "pid").read_text()
    assert not (bundle / "rootfs/began").exists()
    assert "not stopped" in runtime("delete", "one", check=False).stderr
    runtime("start", "one")
    assert runtime.state("one")["status"] == "running"
    until((bundle / "rootfs/began").exists, "the process has run")
    assert "cannot start a container that is running" in runtime("start", "one", check=False).stderr
    assert json.loads(runtime("ps", "--format", "json", "one").stdout) == [state["pid"]]
    runtime("kill", "one", "KILL")
    stopped(runtime, "one")
    assert "not running" in runtime("kill", "one", "TERM", check=False).stderr
    runtime("delete", "one")
    assert "does not exist" in runtime("state", "one", check=False).stderr
    runtime("delete", "--force", "one")


def test_a_container_without_a_cgroup_gets_one_of_its_name(runtime: Runtime) -> None:
    name = runtime.group.replace("-", "")
    bundle = runtime.bundle("cat", "/proc/self/cgroup", change=lambda config: (
        config["linux"].pop("cgroupsPath"), config["linux"]["namespaces"].remove({"type": "cgroup"})))
    assert f"/seawall-runtime/{name}\n" in runtime("run", "--bundle", str(bundle), name).stdout
    assert not list(Path("/sys/fs/cgroup").glob(f"*/seawall-runtime/{name}"))


@pytest.mark.parametrize("taken", [False, True])
def test_our_interpreter_cannot_be_written_to_from_the_container(runtime: Runtime, taken: bool) -> None:
    """CVE-2019-5736. With descriptor 9 taken the script leaves it to us."""
    script = '[ $1 = False ] || exec 9</dev/null; shift; exec "$@"'
    bundle = runtime.bundle("true")
    runtime.names.add("one")
    subprocess.run(["sh", "-c", script, "sh", str(taken), runtime.program, "--root", runtime.root, "create",
                    "--bundle", bundle, "one"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    pid = runtime.state("one")["pid"]
    assert os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY


def test_a_name_is_taken_once_and_is_no_path(runtime: Runtime) -> None:
    bundle = str(runtime.bundle("true"))
    runtime("create", "--bundle", bundle, "one")
    assert "already exists" in runtime("create", "--bundle", bundle, "one", check=False).stderr
    for name in ("../two", "a/b", "", ".."):
        assert runtime("create", "--bundle", bundle, name, check=False).returncode == 1


def test_a_create_that_fails_leaves_nothing(runtime: Runtime) -> None:
    failed = runtime("create", "--bundle", str(runtime.bundle("nowhere")), "one", check=False)
    assert failed.returncode == 1
    assert "executable file not found in $PATH" in failed.stderr
    assert runtime("list", "--quiet").stdout == ""


def test_a_create_that_was_killed_can_be_deleted(runtime: Runtime) -> None:
    bundle = runtime.bundle("true")
    (runtime.root / "one").mkdir(parents=True)
    (runtime.root / "one" / "config.json").write_bytes((bundle / "config.json").read_bytes())
    assert "being created" in runtime("state", "one", check=False).stderr
    runtime("delete", "--force", "one")
    assert not (runtime.root / "one").exists()


def test_exec_enters_and_gives_its_status(runtime: Runtime) -> None:
    def change(config: dict[str, Any]) -> None:
        config["process"]["env"].append("OWN=1")

    runtime.running("one", "sleep", "100", change=change)
    done = runtime("exec", "--user", "7:8", "--env", "MORE=2", "--cwd", "/bin", "one",
                   "sh", "-c", "id -u; id -g; echo $OWN $MORE; pwd; exit 5", check=False)
    assert (done.returncode, done.stdout) == (5, "7\n8\n1 2\n/bin\n")
    assert runtime("exec", "one", "nowhere", check=False).returncode == 255


def test_exec_takes_numbers_for_users_and_nothing_else(runtime: Runtime) -> None:
    runtime.running("one", "sleep", "100")
    for user in ("root", "1x", "-1", "1:", "4294967295", "0x0", "1:2:3", "١"):
        refused = runtime("exec", f"--user={user}", "one", "id", check=False)
        assert refused.returncode == 255 and "is not a number" in refused.stderr


def test_exec_of_a_process_file_goes_on_alone_when_detached(runtime: Runtime, tmp_path: Path) -> None:
    runtime.running("one", "sleep", "100")
    process = {"args": ["sleep", "50"], "cwd": "/", "env": ["PATH=/bin"]}
    (tmp_path / "process.json").write_text(json.dumps(process))
    runtime("exec", "--process", str(tmp_path / "process.json"), "--detach", "--pid-file", str(tmp_path / "pid"), "one")
    pids = json.loads(runtime("ps", "--format", "json", "one").stdout)
    assert int((tmp_path / "pid").read_text()) in pids and len(pids) == 2
    runtime("kill", "--all", "one", "KILL")
    stopped(runtime, "one")


def test_a_paused_container_dies_of_sigkill(runtime: Runtime) -> None:
    runtime.running("one", "sleep", "100")
    runtime("pause", "one")
    assert runtime.state("one")["status"] == "paused"
    assert "paused" in runtime("exec", "one", "true", check=False).stderr
    runtime("resume", "one")
    assert runtime.state("one")["status"] == "running"
    runtime("pause", "one")
    runtime("kill", "one", "9")
    stopped(runtime, "one")


def test_limits_are_changed_and_seen(runtime: Runtime, tmp_path: Path) -> None:
    runtime.running("one", "sleep", "100")
    runtime("update", "--pids-limit", "33", "one")
    assert json.loads(runtime("events", "--stats", "one").stdout)["data"]["pids"] == {"current": 1, "limit": 33}
    (tmp_path / "resources.json").write_text('{"pids": {"limit": 44}, "cpu": {"shares": 0}}')
    with (tmp_path / "resources.json").open() as file:
        runtime("update", "--resources", "-", "one", stdin=file.fileno())
    assert json.loads(runtime("events", "--stats", "one").stdout)["data"]["pids"]["limit"] == 44


def test_a_signal_goes_on_to_the_process(runtime: Runtime) -> None:
    bundle = runtime.bundle("sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done")
    runtime.names.add("one")
    with subprocess.Popen([runtime.program, "--root", runtime.root, "run", "--bundle", bundle, "one"],
                          stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        os.kill(process.pid, 10)
        assert process.wait(10) == 9


def test_errors_go_to_the_log_in_the_asked_form(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    failed = runtime("--log", str(log), "--log-format", "json", "start", "none", check=False)
    assert failed.returncode == 1
    told = json.loads(log.read_text())
    assert (told["level"], told["msg"]) == ("error", "container does not exist")
    assert failed.stderr == "container does not exist\n"


@pytest.mark.parametrize("words", [("nothing",), ("create",), ("state", "a", "b"), ("state", "--what", "a"),
                                   ("kill", "a", "b", "c"), ("--log-format", "xml", "list"), ("checkpoint", "a"),
                                   ("create", "--no-pivot", "-a-"), ("list", "--format", "xml")])
def test_what_makes_no_sense_is_an_error(runtime: Runtime, words: tuple[str, ...]) -> None:
    failed = runtime(*words, check=False)
    assert failed.returncode == 1 and failed.stderr and "Traceback" not in failed.stderr


def test_who_was_given_the_terminal_reads_it_alone(runtime: Runtime, tmp_path: Path) -> None:
    """Also in the foreground: what `run` read itself would be lost to them."""
    bundle = runtime.bundle("sh", "-c", "sleep 0.3; echo for you", change=lambda config: config["process"].update(
        terminal=True))
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "console.sock"))
        door.listen(1)
        door.settimeout(20)
        done = runtime("run", "--bundle", str(bundle), "--console-socket", str(tmp_path / "console.sock"), "one")
        assert done.stdout == ""
        channel, _ = door.accept()
        with channel:
            _, (master,), _, _ = socket.recv_fds(channel, 100, 1)
    try:
        assert os.read(master, 100) == b"for you\r\n"
    finally:
        os.close(master)


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_stream_that_the_caller_has_closed_is_nothing_of_ours(runtime: Runtime, closed: int) -> None:
    """What we opened next would have its number; the container's own null device has."""
    said = 2 if closed == 1 else 1
    bundle = runtime.bundle("sh", "-c", f"stat -L -c %d /dev/null /proc/self/fd/{closed} >&{said}; exit 4")
    done = runtime("run", "--bundle", str(bundle), "one", check=False, preexec_fn=lambda: os.close(closed))
    own, taken = (done.stderr if said == 2 else done.stdout).split()
    assert own == taken or closed == 1  # which the shell has in use
    assert done.returncode == 4


def test_the_hosts_null_device_stays_outside(runtime: Runtime) -> None:
    """Through a descriptor of it the container's root could change its mode for all of the host."""
    bundle = runtime.bundle("stat", "-L", "-c", "%d", "/dev/null", "/proc/self/fd/0")
    own, given = runtime("run", "--bundle", str(bundle), "one").stdout.split()
    assert own == given != str(os.stat("/dev/null").st_dev)
