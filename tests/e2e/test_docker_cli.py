"""The unmodified docker command, of two generations, against a node: what a Docker user expects of every verb."""

import json
import re
import signal
import socket
import time
import urllib.request

import pexpect
import pytest

from tests.conftest import WaitFor
from tests.e2e.conftest import Docker, Platform, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture(autouse=True)
def pulled(platform: Platform) -> None:
    platform.pull()


# -- the daemon and images


def test_version_and_info(docker: Docker) -> None:
    text = docker.ok("version")
    assert "Server: Seawall" in text
    assert re.search(r"API version:\s+1\.51 \(minimum version 1\.24\)", text)
    info = json.loads(docker.ok("info", "--format", "{{json .}}"))
    assert info["ServerErrors"] if info.get("ServerErrors") else info["OSType"] == "linux"
    assert info["LiveRestoreEnabled"] is True


def test_pull_prints_what_docker_prints(docker: Docker, platform: Platform) -> None:
    docker("rmi", "-f", platform.image("dive:14-layers"))
    lines = docker.ok("pull", platform.image("dive:14-layers")).splitlines()
    assert lines[0] == "14-layers: Pulling from dive"
    assert sum(line.endswith(": Pull complete") for line in lines) >= 12
    assert re.fullmatch(r"Digest: sha256:[0-9a-f]{64}", lines[-3])
    assert lines[-2] == f"Status: Downloaded newer image for {platform.image('dive:14-layers')}"
    assert lines[-1] == platform.image("dive:14-layers")
    again = docker.ok("pull", platform.image("dive:14-layers")).splitlines()
    assert again[-2] == f"Status: Image is up to date for {platform.image('dive:14-layers')}"


def test_pull_draws_bars_on_a_terminal(docker: Docker, platform: Platform) -> None:
    docker("rmi", "-f", platform.image("busybox:glibc"))
    child = docker.terminal("pull", platform.image("busybox:glibc"))
    child.expect_exact(b"Pulling from busybox")
    child.expect_exact(b"Pull complete")
    child.expect_exact(b"Status: Downloaded newer image")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_pulls_that_fail(docker: Docker, platform: Platform) -> None:
    missing = docker("pull", platform.image("nothere:1"))
    assert missing.returncode == 1
    assert missing.stderr.startswith("Error response from daemon: "), "the failure comes before the first line"
    assert "not found" in missing.stderr or "pull access denied" in missing.stderr
    tag = docker("pull", platform.image("busybox:nothere"))
    assert f"manifest for {platform.image('busybox:nothere')} not found: manifest unknown" in tag.stderr
    refused = docker("pull", f"127.0.0.1:{free_port()}/x:1")
    assert refused.returncode == 1
    assert re.search(r"dial tcp 127\.0\.0\.1:\d+: connect: connection refused", refused.stderr)
    assert docker("pull", "UPPER").returncode == 1


def test_images_tag_rmi(docker: Docker, platform: Platform) -> None:
    name, shown = platform.image("busybox:latest"), "{{.Repository}} {{.Tag}} {{.ID}} {{.Size}}"
    row = docker.ok("images", name, "--format", shown).split()
    assert row[:2] == [platform.image(), "latest"]
    assert docker.inspect(platform.image(), "{{.Id}}").startswith(f"sha256:{row[2]}")
    docker.ok("tag", platform.image(), "mine:1")
    assert docker.ok("images", "-q", "mine:1").strip() == row[2]
    assert docker.ok("rmi", "mine:1").splitlines()[0] == "Untagged: mine:1"
    gone = docker("rmi", "mine:1")
    assert gone.returncode == 1
    assert "No such image: mine:1" in gone.stderr


def test_rmi_of_an_image_in_use(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "user", platform.image(), "sleep", "100")
    image = docker.inspect(platform.image(), "{{.Id}}")
    result = docker("rmi", image)
    assert result.returncode == 1
    assert "conflict: unable to" in result.stderr


def test_push_by_docker_pull_by_digest(docker: Docker, platform: Platform) -> None:
    name = platform.image("pushed/by-docker:1")
    docker.ok("tag", platform.image(), name)
    lines = docker.ok("push", name).splitlines()
    assert lines[0] == f"The push refers to repository [{platform.image('pushed/by-docker')}]"
    assert any(re.search(r": (Pushed|Layer already exists|Mounted from busybox)$", line) for line in lines), lines
    digest = re.search(r"1: digest: (sha256:[0-9a-f]{64}) size: \d+", lines[-1])
    assert digest, lines
    docker.ok("rmi", name)
    docker.ok("pull", f"{platform.image('pushed/by-docker')}@{digest[1]}")
    docker.ok("rmi", f"{platform.image('pushed/by-docker')}@{digest[1]}")


def test_search(docker: Docker, platform: Platform) -> None:
    for term in ("busybox", platform.image("busybox")):
        lines = docker.ok("search", term).splitlines()
        assert lines[0].split()[:2] == ["NAME", "DESCRIPTION"]
        assert platform.image("busybox") in [line.split()[0] for line in lines[1:]]


def test_history(docker: Docker, platform: Platform) -> None:
    assert len(docker.ok("history", platform.image("busybox")).splitlines()) >= 2


# -- run


def test_run_prints_and_ends_like_the_command(docker: Docker, platform: Platform) -> None:
    result = docker("run", "--rm", platform.image(), "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 7)
    assert docker.ok("ps", "-aq") == ""


def test_run_pulls_what_is_missing(docker: Docker, platform: Platform) -> None:
    docker("rmi", "-f", platform.image("alpine:3.10"))
    result = docker("run", "--rm", platform.image("alpine:3.10"), "cat", "/etc/os-release")
    assert result.returncode == 0
    assert 'NAME="Alpine Linux"' in result.stdout
    assert f"Unable to find image '{platform.image('alpine:3.10')}' locally" in result.stderr
    assert "Downloaded newer image" in result.stderr


def test_run_passes_standard_input_to_its_end(docker: Docker, platform: Platform) -> None:
    data = "line\n" * 50_000
    assert docker.ok("run", "-i", "--rm", platform.image(), "cat", stdin=data) == data
    assert docker.ok("run", "-i", "--rm", platform.image(), "sh", "-c", "wc -c", stdin="12345").strip() == "5"


def test_run_with_much_output(docker: Docker, platform: Platform) -> None:
    result = docker("run", "--rm", platform.image(), "sh", "-c", "yes $(printf %0200d 1) | head -c 8000000", timeout=60)
    assert len(result.stdout) == 8_000_000


def test_run_detached_ps_logs_stop(docker: Docker, platform: Platform) -> None:
    container = docker.ok("run", "-d", "--name", "web", platform.image(), "sh", "-c", "echo up; sleep 100").strip()
    assert re.fullmatch(r"[0-9a-f]{64}", container)
    header, row = docker.ok("ps").splitlines()
    assert header.split("  ")[0] == "CONTAINER ID"
    assert row.startswith(container[:12])
    assert row.endswith("web")
    assert "Up " in row
    assert docker.ok("logs", "web") == "up\n"
    began = time.monotonic()
    assert docker.ok("stop", "-t", "1", "web") == "web\n"
    assert time.monotonic() - began < 10
    assert docker.ok("ps", "-q") == ""
    assert "Exited (137)" in docker.ok("ps", "-a")
    assert docker.inspect("web", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"


def test_names_environment_user_workdir_hostname(docker: Docker, platform: Platform) -> None:
    text = docker.ok("run", "--rm", "--name", "named", "-e", "A=1", "-e", "B=two words", "-u", "1000:1001", "-w",
                     "/tmp", "-h", "box", platform.image(), "sh", "-c", "echo $A,$B; id -u; id -g; pwd; hostname")
    assert text.splitlines() == ["1,two words", "1000", "1001", "/tmp", "box"]


def test_bind_mounts_and_volumes(docker: Docker, platform: Platform, tmp_path: object) -> None:
    docker.ok("run", "--rm", "-v", f"{tmp_path}:/data", platform.image(), "sh", "-c", "echo kept > /data/file")
    assert docker.ok("run", "--rm", "-v", f"{tmp_path}:/data:ro", platform.image(), "cat", "/data/file") == "kept\n"
    refused = docker("run", "--rm", "-v", f"{tmp_path}:/data:ro", platform.image(), "touch", "/data/x")
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr
    docker.ok("run", "--rm", "-v", "vol:/v", platform.image(), "sh", "-c", "echo in-volume > /v/f")
    assert docker.ok("run", "--rm", "-v", "vol:/v", platform.image(), "cat", "/v/f") == "in-volume\n"
    assert "vol" in docker.ok("volume", "ls", "-q").split()
    docker.ok("volume", "rm", "vol")


def test_other_users_read_their_files_and_write_their_volumes(docker: Docker, platform: Platform) -> None:
    user = ("run", "--rm", "-u", "1000:1000")
    assert "localhost" in docker.ok(*user, platform.image(), "cat", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname")
    made = platform.home / "made-for-it"
    assert docker.ok(*user, "-v", f"{made}:/made", platform.image(), "ls", "/made") == ""


def test_volumes_outlive_the_container_they_came_with(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "first", "-v", "/data", platform.image(), "sleep", "60")
    docker.ok("run", "-d", "--name", "second", "--volumes-from", "first", platform.image(), "sleep", "60")
    docker.ok("exec", "first", "sh", "-c", "echo kept > /data/file")
    docker.ok("rm", "-f", "-v", "first")
    assert docker.ok("exec", "second", "cat", "/data/file") == "kept\n"
    docker.ok("rm", "-f", "-v", "second")


def test_limits(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "limited", "-m", "64m", "--cpus", "0.5", "--pids-limit", "20", platform.image(),
              "sleep", "100")
    host = json.loads(docker.inspect("limited", "{{json .HostConfig}}"))
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 20)
    forks = docker("exec", "limited", "sh", "-c", "for i in $(seq 40); do sleep 5 & done")
    assert "can't fork" in forks.stderr or forks.returncode != 0


def test_out_of_memory(docker: Docker, platform: Platform) -> None:
    # head of /dev/zero into tail: tail keeps the last line, which never ends.
    result = docker("run", "--name", "hungry", "-m", "16m", platform.image(), "tail", "/dev/zero", timeout=60)
    assert result.returncode == 137
    assert docker.inspect("hungry", "{{.State.OOMKilled}} {{.State.ExitCode}}") == "true 137"


@pytest.mark.parametrize("network", ["bridge", "none", "host"])
def test_networks(docker: Docker, platform: Platform, network: str) -> None:
    names = docker.ok("run", "--rm", "--network", network, platform.image(), "ls", "/sys/class/net").split()
    if network == "none":
        assert names == ["lo"]
    elif network == "bridge":
        assert {"lo", "eth0"} <= set(names)
    else:
        assert set(names) == {name for _, name in socket.if_nameindex()} | (set(names) - {"lo"})
    assert network in docker.ok("network", "ls", "--format", "{{.Name}}").split()


def test_published_port_answers(docker: Docker, platform: Platform, wait_for: WaitFor) -> None:
    port = free_port()
    docker.ok("run", "-d", "--name", "www", "-p", f"127.0.0.1:{port}:80", platform.image(), "sh", "-c",
              "mkdir /www; echo hello from inside > /www/index.html; exec httpd -f -p 80 -h /www")

    def answer() -> bytes:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
                return response.read()
        except OSError:
            return b""

    assert wait_for(answer) == b"hello from inside\n"
    assert docker.ok("port", "www").strip() == f"80/tcp -> 127.0.0.1:{port}"
    assert f"127.0.0.1:{port}->80/tcp" in docker.ok("ps")
    taken = docker("run", "--name", "second", "-p", f"127.0.0.1:{port}:80", platform.image(), "true")
    assert taken.returncode == 125
    assert "port is already allocated" in taken.stderr or "address already in use" in taken.stderr
    docker.ok("rm", "-f", "www")
    docker.ok("run", "--rm", "-p", f"127.0.0.1:{port}:80", platform.image(), "true")


def test_a_port_that_another_program_has(docker: Docker, platform: Platform) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        taken = docker("run", "--rm", "-p", f"127.0.0.1:{port}:80", platform.image(), "true")
    assert taken.returncode == 125
    assert "address already in use" in taken.stderr


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["no-such-program"], 127, 'exec: "no-such-program": executable file not found in $PATH'),
        (["/etc/passwd"], 126, "permission denied"),
        (["/etc"], 126, "is a directory"),
    ],
)
def test_commands_that_cannot_run(docker: Docker, platform: Platform, command: list[str], code: int, text: str) -> None:
    result = docker("run", "--rm", platform.image(), *command)
    if "is a directory" in text and docker.version == 20:
        code = 125  # that client knows EACCES only
    assert (result.returncode, text in result.stderr) == (code, True), result.stderr
    assert docker.ok("ps", "-aq") == ""


def test_names_in_use_and_missing_images(docker: Docker, platform: Platform) -> None:
    docker.ok("create", "--name", "taken", platform.image())
    result = docker("run", "--name", "taken", platform.image(), "true")
    assert result.returncode == 125
    assert 'Conflict. The container name "/taken" is already in use by container' in result.stderr
    missing = docker("run", platform.image("nothere:1"), "true")
    assert missing.returncode == 125
    assert "Unable to find image" in missing.stderr


def test_what_is_not_done_yet_says_so(docker: Docker, platform: Platform) -> None:
    result = docker("run", "--rm", "--storage-opt", "size=1G", platform.image(), "true")
    assert result.returncode == 125
    assert "--storage-opt is supported only for overlay over xfs" in result.stderr
    result = docker("swarm", "init")
    assert result.returncode == 1
    assert "SwarmInit (POST /swarm/init) is not supported yet" in result.stderr


# -- terminals


def test_run_it(docker: Docker, platform: Platform) -> None:
    child = docker.terminal("run", "-it", "--rm", platform.image(), "sh", size=(33, 111))
    child.expect_exact(b"# ")
    child.sendline(b"stty size; tty")
    child.expect_exact(b"33 111")
    child.expect_exact(b"/dev/pts/0")
    child.setwinsize(40, 132)
    time.sleep(0.3)  # SIGWINCH has no answer to wait for; the shell below asks until it sees it
    child.sendline(b"until [ \"$(stty size)\" = '40 132' ]; do sleep 0.05; done; echo re''sized")
    child.expect_exact(b"resized")
    child.sendline(b"exit 3")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3


def test_detach_and_attach(docker: Docker, platform: Platform) -> None:
    child = docker.terminal("run", "-it", "--name", "shell", platform.image(), "sh")
    child.expect_exact(b"# ")
    child.sendline(b"X=kept")
    child.expect_exact(b"# ")
    child.send(b"\x10\x11")
    child.expect(pexpect.EOF)
    assert docker.inspect("shell", "{{.State.Running}}") == "true"
    again = docker.terminal("attach", "shell")
    again.sendline(b"echo $X-$X")
    again.expect_exact(b"kept-kept")
    again.sendline(b"exit 4")
    again.expect(pexpect.EOF)
    again.close()
    assert again.exitstatus == 4


def test_interrupt_reaches_the_program(docker: Docker, platform: Platform) -> None:
    child = docker.terminal("run", "-it", "--rm", platform.image(), "sh", "-c",
                            "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done")
    child.expect_exact(b"ready")
    child.send(b"\x03")
    child.expect_exact(b"caught")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 5


def test_exec_it(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "base", platform.image(), "sleep", "100")
    child = docker.terminal("exec", "-it", "base", "sh", size=(30, 90))
    child.expect_exact(b"# ")
    child.sendline(b"stty size")
    child.expect_exact(b"30 90")
    child.sendline(b"exit 6")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 6


# -- the life of containers


def test_exec(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "base", "-e", "OUTER=1", platform.image(), "sleep", "100")
    assert docker.ok("exec", "-e", "INNER=2", "-w", "/tmp", "-u", "1", "base", "sh", "-c",
                     "echo $OUTER$INNER; pwd; id -u").split() == ["12", "/tmp", "1"]
    assert docker.ok("exec", "-i", "base", "cat", stdin="through") == "through"
    assert docker("exec", "base", "sh", "-c", "exit 9").returncode == 9
    missing = docker("exec", "base", "no-such-program")
    assert missing.returncode == 127
    assert "executable file not found in $PATH" in missing.stderr + missing.stdout
    assert docker.ok("exec", "-d", "base", "touch", "/made") == ""
    docker.ok("exec", "base", "sh", "-c", "until [ -e /made ]; do sleep 0.05; done")
    docker.ok("stop", "-t", "0", "base")
    stopped = docker("exec", "base", "true")
    assert stopped.returncode == 1
    assert "is not running" in stopped.stderr


def test_stop_start_restart_keep_the_root(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "again", platform.image(), "sh", "-c",
              "echo start >> /starts; trap 'exit 0' TERM; while :; do sleep 0.1; done")
    docker.ok("exec", "again", "sh", "-c", "until [ -s /starts ]; do sleep 0.05; done")
    docker.ok("stop", "again")
    assert docker.inspect("again", "{{.State.ExitCode}}") == "0"
    assert docker.ok("start", "again") == "again\n"
    assert docker.ok("restart", "-t", "2", "again") == "again\n"
    docker.ok("exec", "again", "sh", "-c", "until [ $(wc -l < /starts) = 3 ]; do sleep 0.05; done")


def test_kill_wait_rm(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "victim", platform.image(), "sleep", "100")
    waiting = docker.start("wait", "victim")
    busy = docker("rm", "victim")
    assert busy.returncode == 1
    assert "running" in busy.stderr
    assert docker.ok("kill", "-s", "KILL", "victim") == "victim\n"
    out, _ = waiting.communicate(timeout=20)
    assert out == "137\n"
    assert docker.ok("rm", "victim") == "victim\n"
    gone = docker("rm", "victim")
    assert gone.returncode == 1
    assert "No such container: victim" in gone.stderr
    docker.ok("run", "-d", "--name", "victim", platform.image(), "sleep", "100")
    assert docker.ok("rm", "-f", "victim") == "victim\n"


def test_logs_follow_tail_timestamps(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "talks", platform.image(), "sh", "-c",
              "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done; echo bad >&2")
    followed = docker("logs", "-f", "talks")
    assert followed.stdout == "".join(f"line {i}\n" for i in range(1, 6))
    assert followed.stderr == "bad\n"
    assert docker("logs", "--tail", "2", "talks").stdout == "line 5\n"
    stamped = docker("logs", "-t", "--tail", "1", "talks").stderr
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z bad\n", stamped)


def test_pause_top_rename(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "old", platform.image(), "sh", "-c", "while :; do sleep 1; done")
    docker.ok("rename", "old", "new")
    assert "sleep" in docker.ok("top", "new") or "while" in docker.ok("top", "new")
    docker.ok("pause", "new")
    assert "(Paused)" in docker.ok("ps")
    docker.ok("unpause", "new")
    assert docker.inspect("new", "{{.State.Paused}}") == "false"


def test_signals_are_proxied(docker: Docker, platform: Platform, wait_for: WaitFor) -> None:
    child = docker.start("run", "--name", "trap", platform.image(), "sh", "-c",
                         "trap 'exit 8' TERM; echo ready; while :; do sleep 0.1; done")
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=20)
    assert child.returncode == 8


def test_events(docker: Docker, platform: Platform) -> None:
    since = str(time.time())
    docker.ok("run", "--rm", "--name", "seen", platform.image(), "true")
    text = docker.ok("events", "--since", since, "--until", str(time.time() + 0.5), "--filter", "container=seen",
                     "--format", "{{.Action}}")
    actions = text.split()
    assert [action for action in actions if action in ("create", "attach", "start", "die", "destroy")] == [
        "create", "attach", "start", "die", "destroy",
    ]  # fmt: skip


# -- the daemon comes and goes


def test_a_killed_daemon_takes_no_container_with_it(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "stays", platform.image(), "sh", "-c",
              "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    docker.ok("run", "-d", "--name", "ends", platform.image(), "sh", "-c", "sleep 1; echo last words; exit 12")
    pid = docker.inspect("stays", "{{.State.Pid}}")
    platform.kill_node()
    time.sleep(1.5)  # "ends" ends while nobody looks
    platform.start_node()
    assert docker.inspect("stays", "{{.State.Running}} {{.State.Pid}}") == f"true {pid}"
    assert docker.inspect("ends", "{{.State.Status}} {{.State.ExitCode}}") == "exited 12"
    assert docker.ok("logs", "ends") == "last words\n"
    assert docker.ok("wait", "ends") == "12\n"
    assert docker.ok("exec", "stays", "echo", "still here") == "still here\n"
    numbers = [int(line) for line in docker.ok("logs", "stays").split()]
    assert numbers == list(range(1, len(numbers) + 1)), "no line of the time without a daemon is missing"
    assert docker.ok("stop", "-t", "0", "stays") == "stays\n"


def test_a_stopped_daemon_hangs_up_and_comes_back(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "stays", platform.image(), "sleep", "100")
    following = docker.start("logs", "-f", "stays")
    began = time.monotonic()
    platform.kill_node(signal.SIGTERM)
    assert time.monotonic() - began < 8
    following.communicate(timeout=10)
    platform.start_node()
    assert docker.inspect("stays", "{{.State.Running}}") == "true"


def test_two_clients_at_once(docker: Docker, platform: Platform) -> None:
    children = [docker.start("run", "--rm", platform.image(), "echo", str(number)) for number in range(6)]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert outputs == [f"{number}\n" for number in range(6)]


def test_the_python_sdk(platform: Platform) -> None:
    """docker-py speaks the same API, attaches without waiting for anything, and reads frames itself."""
    docker_sdk = pytest.importorskip("docker")
    client = docker_sdk.DockerClient(base_url=f"unix://{platform.socket}", version="auto")
    try:
        assert client.ping()
        assert client.containers.run(platform.image(), "echo sdk", remove=True) == b"sdk\n"
        container = client.containers.run(platform.image(), "sleep 100", detach=True, name="sdk")
        assert container.exec_run("echo inside").output == b"inside\n"
        assert [c.name for c in client.containers.list()] == ["sdk"]
        container.remove(force=True)
    finally:
        client.close()
