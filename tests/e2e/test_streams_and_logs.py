"""Logs, terminals, execs and events as users of both docker commands meet them."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.e2e.conftest import Docker, Platform, clients

TMUX_SECONDS = 20


@pytest.fixture
def newest(platform: Platform) -> Iterator[Docker]:
    """One docker command is enough where the daemon alone is asked."""
    found = clients()
    if not found:
        lacking("needs a docker command")
    name = max(found, key=lambda client: int(client.removeprefix("docker")))
    yield Docker(found[name], platform, int(name.removeprefix("docker")))
    platform.remove_containers()


class Tmux:
    """A terminal that a second program drives."""

    def __init__(self, folder: Path, environment: dict[str, str], size: tuple[int, int] = (80, 24)) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        columns, rows = map(str, size)
        subprocess.run([*self._tmux, "new-session", "-d", "-x", columns, "-y", rows, "-s", "s", "sh"],
                       check=True, env=environment, timeout=20)

    def type(self, *keys: str) -> None:
        subprocess.run([*self._tmux, "send-keys", "-t", "s", *keys], check=True, timeout=20)

    def size(self, columns: int, rows: int) -> None:
        subprocess.run([*self._tmux, "resize-window", "-t", "s", "-x", str(columns), "-y", str(rows)],
                       check=True, timeout=20)

    def screen(self) -> str:
        return subprocess.run([*self._tmux, "capture-pane", "-p", "-t", "s"], check=True, timeout=20,
                              capture_output=True, text=True).stdout

    def shows(self, text: str) -> None:
        """Wait for a line that is `text`."""
        wait(lambda: text in (line.strip() for line in self.screen().splitlines()), self.screen)

    def asks(self, prompt: str) -> None:
        wait(lambda: self.screen().rstrip().endswith(prompt), self.screen)

    def back(self) -> None:
        """Wait until the shell outside is asking again."""
        wait(lambda: self.screen().rstrip().splitlines()[-1].strip() in ("#", "/ # #"), self.screen)

    def end(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True, timeout=20)


def wait(check: Callable[[], bool], why: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + TMUX_SECONDS
    while not check():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


@pytest.fixture
def tmux(tmp_path: Path, platform: Platform) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        lacking("needs tmux")
    made = Tmux(tmp_path, platform.environment)
    yield made
    made.end()


def test_a_terminal_in_tmux(docker: Docker, platform: Platform, tmux: Tmux) -> None:
    tmux.type(f"{docker.program} run -it --name term {platform.image()} sh", "Enter")
    tmux.asks("/ #")
    # The client tells its window's size after the start, in its own time.
    wait(lambda: docker("exec", "term", "sh", "-c", "stty size </proc/1/fd/0").stdout.strip() == "24 80")
    tmux.size(100, 30)
    wait(lambda: docker.ok("exec", "term", "sh", "-c", "stty size </proc/1/fd/0").strip() == "30 100")
    tmux.type("sleep 1000", "Enter")
    time.sleep(0.3)
    tmux.type("C-c", "")
    tmux.type("echo after=$?", "Enter")
    tmux.shows("after=130")
    tmux.type("C-p", "C-q")
    tmux.back()
    assert docker.inspect("term", "{{.State.Running}}") == "true"
    tmux.type("clear", "Enter")
    tmux.type(f"{docker.program} attach --detach-keys ctrl-x,x term", "Enter")
    time.sleep(0.5)
    tmux.type("echo again=$((6*7))", "Enter")
    tmux.shows("again=42")
    tmux.type("C-x", "x")
    tmux.back()
    assert docker.inspect("term", "{{.State.Running}}") == "true"


def test_an_exec_in_tmux(docker: Docker, platform: Platform, tmux: Tmux) -> None:
    docker.ok("run", "-d", "--name", "host", platform.image(), "sleep", "1000")
    tmux.type(f"{docker.program} exec -it -e WHO=me -w /tmp host sh", "Enter")
    tmux.asks("/tmp #")
    tmux.type("echo $WHO; stty size", "Enter")
    tmux.shows("me")
    tmux.shows("24 80")
    tmux.size(90, 20)
    time.sleep(0.3)
    tmux.type("stty size", "Enter")
    tmux.shows("20 90")
    tmux.type("exit 3", "Enter")
    tmux.back()
    tmux.type("echo code=$?", "Enter")
    tmux.shows("code=3")


def test_local_logs_rotate_under_a_reader(newest: Docker, platform: Platform) -> None:
    newest.ok("create", "--name", "busy", "--log-driver", "local", "--log-opt", "max-size=200k", "--log-opt",
              "max-file=40", platform.image(), "sh", "-c", "seq 300000; echo end >&2")
    newest.ok("start", "busy")
    followed = newest("logs", "-f", "busy", timeout=40)
    wanted = "".join(f"{number}\n" for number in range(1, 300001))
    assert followed.stdout == wanted
    assert followed.stderr == "end\n"
    # Which of the two streams had its last word first is nobody's promise.
    assert newest.ok("logs", "--tail", "3", "busy").endswith("299999\n300000\n")
    folder = platform.home / "node" / "containers" / newest.inspect("busy", "{{.Id}}")
    assert any(path.name.endswith(".gz") for path in folder.iterdir())


def test_details_and_the_nodes_words(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "--name", "told", "--log-opt", "labels=team", "--log-opt", "env-regex=^APP", "--log-opt",
              "tag={{.Name}}/{{.ImageName}}", "--label", "team=a b", "-e", "APP_X=1", platform.image(), "echo", "hi")
    image = platform.image().replace("/", "%2F").replace(":", "%3A")
    assert docker.ok("logs", "--details", "told") == f"APP_X=1,tag=told%2F{image},team=a+b hi\n"
    refused = docker("run", "--log-driver", "none", "--name", "quiet", platform.image(), "echo", "still heard")
    assert refused.stdout == "still heard\n"
    assert "configured logging driver does not support reading" in docker("logs", "quiet").stderr


def test_syslog_gets_the_lines_and_logs_still_work(newest: Docker, platform: Platform) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        address = f"udp://127.0.0.1:{server.getsockname()[1]}"
        newest.ok("run", "--name", "sent", "--log-driver", "syslog", "--log-opt", f"syslog-address={address}",
                  "--log-opt", "syslog-format=rfc5424", "--log-opt", "tag=here", platform.image(), "sh", "-c",
                  "echo one; echo two >&2")
        heard = sorted(server.recv(4096) for _ in range(2))
    assert heard[0].startswith(b"<27>1 ")
    assert heard[1].endswith(b" here - one")
    assert newest("logs", "sent").stdout == "one\n"


def test_events_outlive_the_daemon(newest: Docker, platform: Platform) -> None:
    since = str(time.time() - 1)
    newest.ok("run", "--rm", "--name", "before", platform.image(), "true")
    time.sleep(0.5)  # what is told is written a fifth of a second behind
    platform.kill_node()
    platform.start_node()
    newest.ok("run", "--rm", "--name", "after", platform.image(), "true")
    told = newest.ok("events", "--since", since, "--until", str(time.time() + 0.5), "--filter", "event=die",
                     "--filter", "container=before", "--filter", "container=after", "--format", "{{json .}}")
    names = [json.loads(line)["Actor"]["Attributes"]["name"] for line in told.splitlines()]
    assert names == ["before", "after"]
