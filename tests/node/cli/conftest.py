"""The command against the API over fakes, which answer from a thread of their own."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pexpect
import pytest

from node.api.app import Engine, build, serve
from node.api.system import Facts
from node.client import Client
from node.events import EventBus
from node.secrets.store import Secrets
from tests.node.api.fakes import (
    FakeArchives,
    FakeBuilds,
    FakeCommits,
    FakeContainers,
    FakeExecs,
    FakeFiles,
    FakeImages,
    FakeNetworks,
    FakeSearches,
    FakeSecretRows,
    FakeVolumes,
)

SEAWALL = str(Path(sys.executable).with_name("seawall"))


@dataclass
class Daemon:
    socket: Path
    containers: FakeContainers
    images: FakeImages
    searches: FakeSearches
    loop: asyncio.AbstractEventLoop
    config: Path
    terminals: list["pexpect.spawn[bytes]"] = field(default_factory=list)

    @property
    def client(self) -> Client:
        return Client(str(self.socket))

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**kept, "SEAWALL_HOST": str(self.socket), "DOCKER_CONFIG": str(self.config), "TERM": "xterm",
                "LANG": "C.UTF-8"}  # fmt: skip

    def run(self, *words: str, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([SEAWALL, *words], input=stdin, capture_output=True, text=True, timeout=20, check=False,
                              env=self.environment | environment)

    def terminal(self, *words: str, size: tuple[int, int] = (24, 80)) -> "pexpect.spawn[bytes]":
        child: pexpect.spawn[bytes] = pexpect.spawn(SEAWALL, list(words), env=self.environment, timeout=10,
                                                    dimensions=size)  # type: ignore[arg-type]
        self.terminals.append(child)
        return child

    def later(self, act: Any) -> None:
        self.loop.call_soon_threadsafe(act)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    ready, made = threading.Event(), []

    async def answer() -> None:
        bus = EventBus()
        containers = FakeContainers(bus)
        images, searches, stop = FakeImages(), FakeSearches(), asyncio.Event()
        facts = Facts("an-id", "overlay", "1", tmp_path)
        engine = Engine(containers, FakeExecs(containers), images, FakeNetworks(), FakeVolumes(), searches, bus, facts,
                        FakeFiles(containers), FakeArchives(), FakeCommits(), FakeBuilds(tmp_path),
                        Secrets(FakeSecretRows(), tmp_path / "secrets.key", bus), "127.0.0.1:5000")  # fmt: skip
        path = tmp_path / "node.sock"
        async with serve(build(engine), path):
            loop = asyncio.get_running_loop()
            made.append((Daemon(path, containers, images, searches, loop, tmp_path / "docker"), stop))
            ready.set()
            await stop.wait()
        tasks = [held.task for held in containers.all.values() if held.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=(answer(),))
    thread.start()
    assert ready.wait(10)
    daemon, stop = made[0]
    try:
        yield daemon
    finally:
        for child in daemon.terminals:
            child.close(force=True)
        daemon.later(stop.set)
        thread.join(20)
        assert not thread.is_alive()
