"""Filters that ask an agent: the listener reaches it with the container's state, before the command runs."""

import asyncio
import fcntl
import json
import os
import platform
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.containers.monitor import StartFailed
from tests.node.runtime.conftest import Boxes, process
from tests.node.runtime.test_user_namespaces import confine

pytestmark = [pytest.mark.root, pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")]

RECEIVE, SEND = 0xC0502100, 0xC0182101
GETPPID = 110


class Agent:
    """Answers every getppid(2) with 4711."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[dict[str, Any]] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(5)
        self._server.settimeout(20)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                channel, _ = self._server.accept()
            except OSError:
                return
            with channel:
                data, fds, _, _ = socket.recv_fds(channel, 1 << 16, 4)
            self.told.append(json.loads(data))
            for fd in fds:
                self._answer(fd)
                os.close(fd)

    def _answer(self, listener: int) -> None:
        """Until nobody is under the filter any more."""
        while True:
            asked = bytearray(80)
            try:
                fcntl.ioctl(listener, RECEIVE, asked)
            except OSError:
                return
            identity, number = struct.unpack_from("=QIIi", asked)[0], struct.unpack_from("=i", asked, 16)[0]
            assert number == GETPPID
            fcntl.ioctl(listener, SEND, struct.pack("=QqiI", identity, 4711, 0, 0))

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "agent.sock")
    yield agent
    agent.close()


def profile(path: Path) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(path), "listenerMetadata": "mine",
            "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}]}


@pytest.mark.parametrize(("private", "no_new_privileges"), [(False, True), (False, False), (True, True)])
async def test_the_agent_answers(boxes: Boxes, agent: Agent, private: bool, no_new_privileges: bool) -> None:
    box = boxes("sh", "-c", "echo $PPID", noNewPrivileges=no_new_privileges)
    if private:
        confine(box)
    box.config["linux"]["seccomp"] = profile(agent.path)
    box.config["annotations"] = {"a": "b"}
    monitor = await box.create()
    await monitor.start()
    assert (await asyncio.wait_for(monitor.wait(), 20)).code == 0
    assert box.output() == "4711\n"
    told = agent.told[0]
    assert (told["fds"], told["metadata"], told["pid"]) == (["seccompFd"], "mine", monitor.pid)
    state = told["state"]
    assert (state["id"], state["status"], state["annotations"]) == (box.name, "created", {"a": "b"})


async def test_an_exec_asks_too(boxes: Boxes, agent: Agent) -> None:
    box = boxes("sleep", "100")
    box.config["linux"]["seccomp"] = profile(agent.path)
    monitor = await box.create()
    await monitor.start()
    await monitor.exec("e", process("sh", "-c", "[ $PPID = 4711 ]"), tty=False, stdin=False)
    await monitor.exec_start("e")
    # This agent answers one listener at a time: the first one ends with its container.
    assert len(agent.told) == 1
    await monitor.kill_all()
    assert (await asyncio.wait_for(monitor.wait(), 20)).code == 137


async def test_without_an_agent_nothing_runs(boxes: Boxes, tmp_path: Path) -> None:
    box = boxes("true")
    box.config["linux"]["seccomp"] = profile(tmp_path / "nobody")
    monitor = await box.create()
    with pytest.raises(StartFailed, match="seccomp agent .*nobody: no such file"):
        await monitor.start()
