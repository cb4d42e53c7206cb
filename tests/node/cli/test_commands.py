"""The command as a user meets it: output, exit codes, what it asks of the daemon."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from node.cli.main import GROUPS, VERBS, cli, load
from tests.conftest import WaitFor
from tests.node.cli.conftest import SEAWALL, Daemon


def test_the_table_of_verbs_says_what_the_commands_say() -> None:
    for name, verb in VERBS.items():
        command = load(verb.where)
        first = (command.help or "").strip().splitlines()[0].rstrip(".")
        assert first == verb.help, name


def test_every_verb_has_help_and_every_option_a_text() -> None:
    wheres = {verb.where for verb in VERBS.values()}
    wheres |= {where for _, verbs in GROUPS.values() for where in verbs.values() if ":" in where}
    for where in wheres:
        command = load(where)
        assert command.help, where
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or getattr(parameter, "help", None), (where, parameter.name)


def test_group_verbs_exist() -> None:
    for _, verbs in GROUPS.values():
        for where in verbs.values():
            assert ":" in where or where in VERBS


def test_help_is_quick() -> None:
    """The best of three, generously: importing every verb, or rich, would double it."""
    code = ("import sys, node.cli.main\n"
            "heavy = [m for m in ('rich', 'aiohttp', 'sqlalchemy', 'http.client', 'asyncio') if m in sys.modules]\n"
            "assert not heavy, heavy")
    python = str(Path(SEAWALL).with_name("python"))
    subprocess.run([python, "-c", code], check=True, timeout=20)


def test_help_of_everything(daemon: Daemon) -> None:
    result = daemon.run("--help")
    assert result.returncode == 0
    for name in (*VERBS, *GROUPS):
        assert f"\n  {name} " in result.stdout
    for words in (["run"], ["container", "ls"], ["volume", "create"]):
        assert daemon.run(*words, "--help").returncode == 0


def test_run_prints_and_exits_like_the_container(daemon: Daemon) -> None:
    assert daemon.run("run", "busybox", "echo", "hello", "-x").stdout == "hello -x\n"
    result = daemon.run("run", "--rm", "busybox", "err", "bad")
    assert (result.stdout, result.stderr) == ("", "bad\n")
    assert daemon.run("run", "busybox", "exit", "42").returncode == 42


def test_run_passes_standard_input(daemon: Daemon) -> None:
    assert daemon.run("run", "-i", "--rm", "busybox", "cat", stdin="some input").stdout == "some input<eof>"


def test_run_detached_prints_the_id(daemon: Daemon) -> None:
    result = daemon.run("run", "-d", "--name", "web", "busybox", "sleep")
    assert len(result.stdout.strip()) == 64
    assert daemon.run("ps", "-q").stdout.strip() == result.stdout[:12]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["busybox", "no-such-program"], 127, "executable file not found in $PATH"),
        (["--pull", "never", "missing"], 125, "No such image: missing:latest"),
        (["--no-such-flag", "x", "busybox"], 125, "No such option"),
        (["-p", "x:y", "busybox"], 125, "invalid publish specification"),
        (["--network", "mine", "--memory", "1q", "busybox"], 125, "invalid size: '1q'"),
        (["--log-driver", "json-file", "--log-opt", "a=b", "busybox"], 125, "unknown log opt 'a'"),
        (["-it", "busybox", "cat"], 1, "the input device is not a TTY"),
        ([], 125, "Missing argument 'IMAGE'"),
    ],
)
def test_run_that_cannot_be(daemon: Daemon, words: list[str], code: int, text: str) -> None:
    result = daemon.run("run", *words)
    assert (result.returncode, text in result.stderr) == (code, True), result.stderr


def test_a_missing_image_is_pulled(daemon: Daemon) -> None:
    result = daemon.run("run", "missing")
    assert "Unable to find image 'missing:latest' locally" in result.stderr
    assert "Downloaded newer image for missing:latest" in result.stderr
    assert result.returncode == 125


def test_flags_arrive(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# a comment\nFILE=1\n\nPASSED\n")
    daemon.run(
        "create", "--name", "x", "-e", "A=1", "-e", "PASSED", "--env-file", str(tmp_path / "env"), "-v", "/a:/b:ro",
        "-v", "/anon", "-w", "/w", "-u", "1:2", "-m", "64m", "--cpus", "1.5", "--pids-limit", "9", "-p",
        "127.0.0.1:8080:80", "-p", "9000-9001:90-91/udp", "--network", "none", "--label", "k=v", "--entrypoint", "e",
        "--restart", "on-failure:3", "--mount", "type=tmpfs,target=/t,tmpfs-size=1m", "--cap-add", "NET_ADMIN",
        "--security-opt", "no-new-privileges", "--ulimit", "nofile=1:2", "--read-only", "-h", "host", "--tmpfs", "/x",
        "--health-cmd", "true", "--health-interval", "1m30s", "-t", "-i", "busybox", "arg", "--flag",
        PASSED="yes",
    )  # fmt: skip
    spec = daemon.containers.specs[-1]
    assert spec.env == ("FILE=1", "PASSED=yes", "A=1", "PASSED=yes")
    assert [(mount.kind, mount.source, mount.target, mount.read_only) for mount in spec.mounts] == [
        ("bind", "/a", "/b", True), ("tmpfs", "", "/t", False),
    ]  # fmt: skip
    assert spec.mounts[1].tmpfs_size == 1 << 20
    assert (spec.volumes, spec.workdir, spec.user, spec.hostname) == (("/anon",), "/w", "1:2", "host")
    assert (spec.resources.memory, spec.resources.nano_cpus, spec.resources.pids_limit) == (64 << 20, 1_500_000_000, 9)
    published = [(p.port.number, p.port.protocol, p.host_ip, p.host_port) for p in spec.network.bindings]
    assert published == [(80, "tcp", "127.0.0.1", 8080), (90, "udp", "", 9000), (91, "udp", "", 9001)]
    assert (spec.network.mode, spec.labels, spec.entrypoint) == ("none", {"k": "v"}, ("e",))
    assert (spec.restart.mode, spec.restart.max_retries) == ("on-failure", 3)
    assert (spec.security.cap_add, spec.security.security_opt) == (("NET_ADMIN",), ("no-new-privileges",))
    assert (spec.security.read_only_rootfs, spec.tty, spec.open_stdin, spec.tmpfs) == (True, True, True, {"/x": ""})
    assert spec.resources.ulimits[0].hard == 2
    assert spec.healthcheck is not None
    assert (spec.healthcheck.test, spec.healthcheck.interval) == (("CMD-SHELL", "true"), 90 * 10**9)
    assert spec.cmd == ("arg", "--flag")


def test_cidfile(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    daemon.run("create", "--cidfile", str(file), "busybox")
    assert len(file.read_text()) == 64
    result = daemon.run("create", "--cidfile", str(file), "busybox")
    assert (result.returncode, "container ID file found" in result.stderr) == (125, True)


def test_verbs_on_several_go_on_after_a_failure(daemon: Daemon) -> None:
    daemon.run("run", "-d", "--name", "a1", "busybox", "sleep")
    daemon.run("run", "-d", "--name", "b1", "busybox", "sleep")
    result = daemon.run("stop", "a1", "nobody", "b1")
    assert (result.returncode, result.stdout) == (1, "a1\nb1\n")
    assert result.stderr == "Error response from daemon: No such container: nobody\n"
    assert daemon.run("rm", "a1", "b1").stdout == "a1\nb1\n"
    assert daemon.run("wait", "a1").returncode == 1


def test_lists_in_all_formats(daemon: Daemon) -> None:
    daemon.run("create", "--name", "one", "-l", "who=me", "busybox", "sleep")
    table = daemon.run("ps", "-a").stdout.splitlines()
    assert table[0].split("   ")[0] == "CONTAINER ID"
    assert table[1].endswith("one")
    assert json.loads(daemon.run("ps", "-a", "--format", "json").stdout)["Names"] == "one"
    text = daemon.run("ps", "-a", "--format", '{{.Names}}\\t{{.State}} {{.Label "who"}}').stdout
    assert text == "one\tcreated me\n"
    table = daemon.run("ps", "-a", "--format", "table {{.Names}}\\t{{.Image}}").stdout.splitlines()
    assert [line.split() for line in table] == [["NAMES", "IMAGE"], ["one", "busybox"]]
    result = daemon.run("ps", "-a", "--format", "{{.Nonsense}}")
    assert (result.returncode, result.stderr) == (1, "Error: template: map has no entry for key 'Nonsense'\n")
    assert daemon.run("ps", "-f", "nonsense").returncode == 2
    assert "invalid filter 'x'" in daemon.run("ps", "-f", "x=y").stderr


def test_inspect(daemon: Daemon) -> None:
    daemon.run("create", "--name", "one", "busybox", "sleep")
    assert json.loads(daemon.run("inspect", "one").stdout)[0]["Name"] == "/one"
    assert daemon.run("inspect", "-f", "{{.State.Status}}", "one").stdout == "created\n"
    assert daemon.run("inspect", "-f", "{{json .RepoTags}}", "busybox").stdout == '["busybox:latest"]\n'
    result = daemon.run("inspect", "nothing", "one")
    assert result.returncode == 1
    assert "Error: No such object: nothing" in result.stderr
    assert len(json.loads(result.stdout)) == 1
    assert "Error: No such image: one" in daemon.run("image", "inspect", "one").stderr
    assert json.loads(daemon.run("network", "inspect", "bridge").stdout)[0]["Driver"] == "bridge"


def test_images_and_transfers(daemon: Daemon) -> None:
    assert daemon.run("images").stdout.splitlines()[1].split()[:2] == ["busybox", "latest"]
    result = daemon.run("pull", "127.0.0.1:5000/web:1")
    assert result.stdout.splitlines() == [
        "1: Pulling from web", "abcdef012345: Pulling fs layer", "abcdef012345: Downloading",
        "abcdef012345: Pull complete", f"Digest: sha256:{'c' * 64}",
        "Status: Downloaded newer image for 127.0.0.1:5000/web:1", "127.0.0.1:5000/web:1",
    ]  # fmt: skip
    assert daemon.run("pull", "-q", "a").stdout == "docker.io/library/a:latest\n"
    broken = daemon.run("pull", "broken")
    assert (broken.returncode, broken.stderr) == (1, "Error: the connection broke\n")
    assert daemon.run("tag", "busybox", "127.0.0.1:5000/b:1").returncode == 0
    assert f"1: digest: sha256:{'c' * 64} size: 527" in daemon.run("push", "127.0.0.1:5000/b:1").stdout
    assert daemon.run("rmi", "busybox").stdout.startswith("Untagged: busybox:latest\nDeleted: sha256:")
    assert daemon.run("rmi", "busybox").returncode == 1


def test_search(daemon: Daemon) -> None:
    lines = daemon.run("search", "web").stdout.splitlines()
    assert lines[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert lines[1].split()[0] == "127.0.0.1:5000/team/web"


def test_exec(daemon: Daemon) -> None:
    daemon.run("run", "-d", "--name", "x", "busybox", "sleep")
    assert daemon.run("exec", "x", "echo", "-n", "hi").stdout == "-n hi\n"
    assert daemon.run("exec", "-i", "x", "cat", stdin="in").stdout == "in<eof>"
    assert daemon.run("exec", "x", "exit", "9").returncode == 9
    assert daemon.run("exec", "x", "no-such-program").returncode == 127
    assert daemon.run("exec", "nobody", "echo").returncode == 1
    assert daemon.run("exec", "-d", "x", "echo", "hi").stdout == ""


def test_logs_keep_the_streams_apart(daemon: Daemon) -> None:
    daemon.run("run", "--name", "e", "busybox", "err", "bad")
    daemon.run("run", "--name", "o", "busybox", "echo", "good")
    result = daemon.run("logs", "e")
    assert (result.stdout, result.stderr) == ("", "bad\n")
    assert daemon.run("logs", "-f", "o").stdout == "good\n"
    assert daemon.run("logs", "nobody").returncode == 1


def test_start_attached(daemon: Daemon) -> None:
    daemon.run("create", "-i", "--name", "c", "busybox", "cat")
    assert daemon.run("start", "-ai", "c", stdin="again").stdout == "again<eof>"
    assert daemon.run("start", "c").stdout == "c\n"


def test_attach_refuses_a_stopped_one(daemon: Daemon) -> None:
    daemon.run("create", "--name", "c", "busybox")
    result = daemon.run("attach", "c")
    assert (result.returncode, "cannot attach to a stopped container" in result.stderr) == (1, True)


def test_signals_are_passed_on(daemon: Daemon, wait_for: WaitFor) -> None:
    child = subprocess.Popen([SEAWALL, "run", "--name", "s", "busybox", "sleep"], env=daemon.environment,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: any(held.container.state.running for held in daemon.containers.all.values()))
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=10)
    (held,) = daemon.containers.all.values()
    assert held.signals[0] == "SIGTERM"
    assert child.returncode == 137


def test_no_daemon(daemon: Daemon, tmp_path: Path) -> None:
    result = daemon.run("ps", SEAWALL_HOST=str(tmp_path / "nobody.sock"))
    assert result.returncode == 1
    assert result.stderr == (
        f"Error: Cannot connect to the Seawall daemon at unix://{tmp_path}/nobody.sock: is the node running?\n"
    )
    assert daemon.run("-H", "tcp://x:1", "ps").stderr.startswith("Error: tcp://x:1: tcp is spoken over TLS only")
    assert daemon.run("-H", f"unix://{daemon.socket}", "ps").returncode == 0
    assert daemon.run("version", SEAWALL_HOST=str(tmp_path / "nobody.sock")).returncode == 1


def test_where_the_socket_is_looked_for(daemon: Daemon, tmp_path: Path) -> None:
    base = {name: value for name, value in daemon.environment.items() if name != "SEAWALL_HOST"}
    for extra in ({"DOCKER_HOST": f"unix://{daemon.socket}"}, {"SEAWALL_HOME": str(daemon.socket.parent)}):
        result = subprocess.run([SEAWALL, "ps"], env=base | extra, capture_output=True, check=False, timeout=20)
        assert result.returncode == 0, result.stderr
    (tmp_path / ".seawall").mkdir()
    os.symlink(daemon.socket, tmp_path / ".seawall" / "node.sock")
    result = subprocess.run([SEAWALL, "ps"], env=base, cwd=tmp_path, capture_output=True, check=False, timeout=20)
    assert result.returncode == 0, result.stderr


def test_events_until_now(daemon: Daemon) -> None:
    daemon.run("run", "--name", "e", "busybox", "echo", "x")
    lines = daemon.run("events", "--since", "1", "--until", str(int(time.time()) + 1)).stdout.splitlines()
    assert " container start " in lines[0]
    assert "(exitCode=0, name=e)" in lines[1]


def test_a_reader_that_leaves_is_no_error(daemon: Daemon) -> None:
    daemon.run("run", "-d", "--name", "f", "busybox", "flood", "200")
    result = subprocess.run(f"{SEAWALL} logs f | head -c 10", shell=True, capture_output=True, timeout=20,
                            env=daemon.environment, check=False)
    assert (len(result.stdout), result.stderr) == (10, b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(daemon: Daemon, shell: str) -> None:
    assert "_SEAWALL_COMPLETE" in daemon.run("completion", shell).stdout
    words = {"COMP_WORDS": "seawall st", "COMP_CWORD": "1", "_SEAWALL_COMPLETE": "bash_complete"}
    assert daemon.run(**words).stdout.splitlines() == ["plain,start", "plain,stats", "plain,stop"]


def test_groups_are_the_same_verbs(daemon: Daemon) -> None:
    daemon.run("container", "create", "--name", "g", "busybox")
    assert "g" in daemon.run("container", "ls", "-a").stdout
    assert "busybox" in daemon.run("image", "ls").stdout
    assert daemon.run("volume", "create", "v1").stdout == "v1\n"
    assert daemon.run("volume", "ls", "-q").stdout == "v1\n"
    assert daemon.run("volume", "rm", "v1").stdout == "v1\n"
    assert daemon.run("system", "df").stdout.splitlines()[1].split()[:2] == ["Images", "1"]
    assert cli.name == "cli"


def test_system_df_adds_up(daemon: Daemon) -> None:
    lines = daemon.run("system", "df").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["TYPE", "Images", "Containers", "Local Volumes", "Build Cache"]
    assert lines[1].split()[1:4] == ["1", "0", "1.24MB"]
    assert lines[1].endswith("1.24MB (100%)")
    verbose = daemon.run("system", "df", "-v").stdout
    assert "Images space usage:" in verbose
    assert "SHARED SIZE   UNIQUE SIZE   CONTAINERS" in verbose
    assert "Containers space usage:" in verbose
    assert daemon.run("system", "df", "--format", "{{.Type}}={{.TotalCount}}").stdout.startswith("Images=1\n")


def test_prune_of_images_and_of_everything(daemon: Daemon) -> None:
    asked = daemon.run("image", "prune", stdin="n\n")
    assert "WARNING! This will remove all dangling images." in asked.stdout
    assert "Total" not in asked.stdout
    assert daemon.run("image", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    gone = daemon.run("image", "prune", "-af").stdout
    assert "Deleted Images:\nuntagged: busybox:latest\ndeleted: sha256:" in gone
    assert gone.endswith("Total reclaimed space: 1.23MB\n")
    every = daemon.run("system", "prune", "-af", "--volumes", "--filter", "until=1h")
    assert every.returncode == 2
    assert 'The "until" filter is not supported with "--volumes"' in every.stderr


def test_every_tag_is_pulled(daemon: Daemon) -> None:
    result = daemon.run("pull", "-a", "127.0.0.1:5000/many")
    assert result.stdout.count("Pulling from many") == 2
    assert daemon.run("pull", "-a", "127.0.0.1:5000/many:1").returncode == 2


def test_platforms(daemon: Daemon) -> None:
    missing = daemon.run("history", "--platform", "linux/arm64", "busybox")
    assert "does not provide the specified platform (linux/arm64)" in missing.stderr
    assert daemon.run("history", "--platform", "linux/amd64", "busybox").returncode == 0
    assert "Deleted: sha256:" in daemon.run("rmi", "--platform", "amd64", "busybox").stdout
    assert daemon.run("push", "--platform", "amd64", "busybox").returncode == 0


def test_inspect_of_a_platform(daemon: Daemon) -> None:
    assert daemon.run("image", "inspect", "--platform", "amd64", "-f", "{{.Os}}", "busybox").stdout == "linux\n"
    assert daemon.run("image", "inspect", "--platform", "arm64", "busybox").returncode == 1
