"""Many clients, sudden deaths and hostile containers against a real node; afterwards nothing may be left of it all."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from node.client import DaemonError
from ocispec.errors import SeawallError
from tests.e2e.census import Census, take
from tests.e2e.conftest import Platform

EXPECTED = {200, 201, 204, 304, 404, 409}
PATIENCE = 20.0
WAITS = "until [ -e /go ]; do sleep 0.1; done; exit 7"


class Node:
    """The platform's node, spoken to in statuses."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.answers: Counter[int] = Counter()
        self.words: list[str] = []

    @property
    def pid(self) -> int:
        return self.platform.programs["node"].pid

    def ask(self, method: str, path: str, query: Any = None, body: Any = None) -> tuple[int, Any]:
        try:
            found = self.platform.client.json(method, path, query, body)
        except DaemonError as error:
            self.answers[error.status] += 1
            if error.status not in EXPECTED:
                self.words.append(f"{method} {path}: {error.status} {error}")
            return error.status, None
        self.answers[200] += 1
        return 200, found

    def create(self, name: str = "", *command: str, **host: Any) -> tuple[int, Any]:
        labels = host.pop("labels", {})
        body = {"Image": self.platform.image(), "Cmd": list(command or ("sleep", "600")), "Labels": labels,
                "StopTimeout": 0, "HostConfig": host}  # fmt: skip
        return self.ask("POST", "/containers/create", {"name": name} if name else None, body)

    def run(self, *command: str, **host: Any) -> str:
        status, made = self.create("", *command, **host)
        assert status == 200, self.words
        assert self.ask("POST", f"/containers/{made['Id']}/start")[0] == 200, self.words
        return str(made["Id"])

    def state(self, container: str) -> Any:
        return self.ask("GET", f"/containers/{container}/json")[1]["State"]

    def census(self) -> Census:
        return take(self.platform.home / "node", self.pid)


@pytest.fixture
def node(platform: Platform) -> Iterator[Node]:
    platform.pull()
    made = Node(platform)
    # Once round, so that what is made for the first container (bridge, tables, threads) is there before we count.
    made.ask("DELETE", f"/containers/{made.run('true')}", {"force": True})
    yield made
    platform.remove_containers()


@pytest.fixture
def nothing_left(node: Node) -> Iterator[None]:
    settled(lambda: not node.census().files)
    before = node.census()
    yield
    node.platform.remove_containers()
    difference: dict[str, object] = {}

    def same() -> bool:
        difference.clear()
        difference.update(before.difference(node.census()))
        return not difference

    assert settled(same), difference


def settled(check: Callable[[], Any]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    gate = threading.Barrier(count)

    def begin(number: int) -> Any:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


@pytest.mark.usefixtures("nothing_left")
def test_one_name_from_32_clients(node: Node) -> None:
    answers = together(32, lambda _: node.create("one")[0])
    assert Counter(answers) == {200: 1, 409: 31}


@pytest.mark.usefixtures("nothing_left")
def test_32_clients_at_one_container(node: Node) -> None:
    """Whatever they do to it, each gets one of Docker's answers, and none waits for ever."""
    _, made = node.create("torn")
    over = time.monotonic() + 4

    def work(number: int) -> None:
        dice = random.Random(number)
        while time.monotonic() < over:
            verb = dice.choice(("start", "start", "stop", "restart", "kill", "pause", "unpause", "rename", "rm", "exec"))
            if verb == "rename":
                node.ask("POST", f"/containers/{made['Id']}/rename", {"name": f"torn{dice.randrange(4)}"})
            elif verb == "rm":
                if dice.random() < 0.05:
                    node.ask("DELETE", "/containers/torn0", {"force": True})
                    node.create("torn0")
                else:
                    node.ask("DELETE", f"/containers/{made['Id']}")
            elif verb == "exec":
                node.ask("POST", f"/containers/{made['Id']}/exec", None, {"Cmd": ["true"]})
            else:
                node.ask("POST", f"/containers/{made['Id']}/{verb}", {"t": 0} if verb in ("stop", "restart") else None)

    together(32, work)
    assert [words for words in node.words if "same name" not in words] == []
    assert node.answers[200] > 20


@pytest.mark.usefixtures("nothing_left")
def test_a_storm_of_starts(node: Node) -> None:
    made = [node.create()[1]["Id"] for _ in range(64)]
    answers = together(64, lambda n: node.ask("POST", f"/containers/{made[n]}/start")[0])
    assert set(answers) == {200}, node.words
    assert all(node.state(container)["Running"] for container in made)
    assert set(together(64, lambda n: node.ask("DELETE", f"/containers/{made[n]}", {"force": True})[0])) == {200}


@pytest.mark.usefixtures("nothing_left")
def test_the_daemon_is_killed_at_any_moment(node: Node) -> None:
    """Clients make, start and remove containers while it dies again and again. Each container it knows afterwards is in
    a state that can be, and can be removed."""
    over = threading.Event()

    def work(number: int) -> None:
        dice = random.Random(number)
        while not over.is_set():
            with suppress(SeawallError, OSError, ValueError, TypeError):
                _, made = node.create("", "sleep", str(dice.choice((0.1, 600))))
                for verb in ("start", "stop", "start"):
                    node.ask("POST", f"/containers/{made['Id']}/{verb}", {"t": 0} if verb == "stop" else None)
                if dice.random() < 0.7:
                    node.ask("DELETE", f"/containers/{made['Id']}", {"force": True})

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, number) for number in range(4)]
        dice = random.Random(7)
        for _ in range(3):
            time.sleep(dice.uniform(0.1, 0.6))
            node.platform.kill_node()
            node.platform.start_node()
        over.set()
        for future in futures:
            future.result(30)
    assert not [words for words in node.words if " 500 " in words], node.words
    for container in node.platform.client.json("GET", "/containers/json", {"all": True}):
        assert container["State"] in ("created", "running", "exited")


@pytest.mark.usefixtures("nothing_left")
def test_launcher_and_monitor_are_killed(node: Node) -> None:
    victim, other = node.run(), node.run()
    monitor = parent(node.state(victim)["Pid"])
    for child in children(node.pid):
        if Path(f"/proc/{child}/comm").read_text().strip() == "seawall-launch":
            os.kill(child, signal.SIGKILL)
    assert node.state(other)["Running"]
    node.ask("DELETE", f"/containers/{node.run('true')}", {"force": True})
    os.kill(monitor, signal.SIGKILL)
    assert settled(lambda: node.state(victim)["Status"] == "exited")
    assert node.state(victim)["ExitCode"] == 137
    assert node.ask("POST", f"/containers/{victim}/start")[0] == 200, node.words


@pytest.mark.usefixtures("nothing_left")
def test_a_fork_bomb_is_bounded_and_ends(node: Node) -> None:
    bomb = node.run("sh", "-c", "f() { f | f & f; }; f", PidsLimit=200)
    time.sleep(1)
    began = time.monotonic()
    assert node.ask("DELETE", f"/containers/{bomb}", {"force": True})[0] == 200, node.words
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("nothing_left")
def test_sigterm_is_ignored(node: Node) -> None:
    deaf = node.run("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    node.ask("POST", f"/containers/{deaf}/stop", {"t": 1})
    state = node.state(deaf)
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)


@pytest.mark.usefixtures("nothing_left")
def test_execs_are_known_after_the_daemon_was_killed(node: Node) -> None:
    container = node.run()
    _, made = node.ask("POST", f"/containers/{container}/exec", None, {"Cmd": ["sh", "-c", WAITS]})
    node.ask("POST", f"/exec/{made['Id']}/start", None, {"Detach": True})
    node.platform.kill_node()
    node.platform.start_node()
    _, held = node.ask("GET", f"/exec/{made['Id']}/json")
    assert (held["Running"], held["ContainerID"], held["ProcessConfig"]["entrypoint"]) == (True, container, "sh")
    _, other = node.ask("POST", f"/containers/{container}/exec", None, {"Cmd": ["touch", "/go"]})
    node.ask("POST", f"/exec/{other['Id']}/start", None, {"Detach": True})
    assert settled(lambda: not node.ask("GET", f"/exec/{made['Id']}/json")[1]["Running"])
    assert node.ask("GET", f"/exec/{made['Id']}/json")[1]["ExitCode"] == 7


@pytest.mark.usefixtures("nothing_left")
def test_namespaces_of_another_container(node: Node) -> None:
    """Process ids, shared memory and network of a donor; one that does not share says so; a link is not followed."""
    donor = node.run("sh", "-c", "echo hello > /dev/shm/word; ipcmk -Q > /dev/null; exec sleep 600", IpcMode="shareable")
    joins = {"PidMode": f"container:{donor}", "IpcMode": f"container:{donor}", "NetworkMode": f"container:{donor}"}
    status, made = node.create("", "sh", "-c", "cat /dev/shm/word; touch /dev/shm/back; pidof sleep; exit 5", **joins)
    assert status == 200, node.words
    node.ask("POST", f"/containers/{made['Id']}/start")
    assert settled(lambda: node.state(made["Id"])["Status"] == "exited"), node.words
    assert node.state(made["Id"])["ExitCode"] == 5, node.state(made["Id"])
    log = node.platform.client.stream("GET", f"/containers/{made['Id']}/logs", {"stdout": True, "stderr": True})
    text = b"".join(log)
    assert b"hello" in text, text
    assert b"1" in text
    private = node.run()
    _, refused = node.create("", "true", IpcMode=f"container:{private}")
    assert node.ask("POST", f"/containers/{refused['Id']}/start")[0] == 409
    # The donor puts a link in the way: the joiner must not be led anywhere.
    trap = node.run("sh", "-c", "umount /dev/shm; rmdir /dev/shm; ln -s /etc /dev/shm; exec sleep 600",
                    IpcMode="shareable", CapAdd=["SYS_ADMIN"])  # fmt: skip
    time.sleep(0.5)
    _, caught = node.create("", "sh", "-c", "test -e /dev/shm/passwd && exit 9", IpcMode=f"container:{trap}")
    assert node.ask("POST", f"/containers/{caught['Id']}/start")[0] == 500
    assert "symbolic links" in node.state(caught["Id"])["Error"]
    node.words.clear()


def test_a_command_that_is_not_there_is_said_once(docker: Any) -> None:
    result = docker("run", "--rm", docker.platform.image(), "nope")
    assert result.returncode == 127
    if docker.version >= 28:
        assert "waiting for container" not in result.stderr
    assert result.stderr.count("executable file not found") == 1


def children(pid: int) -> list[int]:
    return [int(word) for task in Path(f"/proc/{pid}/task").iterdir()
            for word in (task / "children").read_text().split()]  # fmt: skip


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

