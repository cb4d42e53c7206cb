"""The API over fakes, on a real unix socket, and a raw client for it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from node.api.app import Engine, build, serve
from node.api.system import Facts
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


@dataclass
class Node:
    socket: Path
    http: aiohttp.ClientSession
    containers: FakeContainers
    execs: FakeExecs
    images: FakeImages
    volumes: FakeVolumes
    searches: FakeSearches
    bus: EventBus
    files: FakeFiles
    archives: FakeArchives
    commits: FakeCommits
    builds: FakeBuilds
    dialogs: "list[Dialog]" = field(default_factory=list)

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        async with self.http.request(method, f"http://node{path}", json=body, **options) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.strip() else None

    async def dial(self) -> "Dialog":
        self.dialogs.append(Dialog(*await asyncio.open_unix_connection(str(self.socket))))
        return self.dialogs[-1]


@dataclass
class Dialog:
    """A connection whose bytes the test writes itself."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[str, dict[str, str]]:
        raw = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)).decode()
        status, *lines = raw.strip().split("\r\n")
        return status, {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), 5)

    async def exactly(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), 5)

    def close(self) -> None:
        self.writer.close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    bus = EventBus()
    containers = FakeContainers(bus)
    execs, images, volumes, searches = FakeExecs(containers), FakeImages(), FakeVolumes(), FakeSearches()
    files, archives, commits = FakeFiles(containers), FakeArchives(), FakeCommits()
    builds = FakeBuilds(tmp_path)
    engine = Engine(
        containers=containers,
        execs=execs,
        images=images,
        networks=FakeNetworks(),
        volumes=volumes,
        searches=searches,
        events=bus,
        facts=Facts("an-id", "overlay", "1", tmp_path),
        files=files,
        archives=archives,
        commits=commits,
        builds=builds,
        secrets=Secrets(FakeSecretRows(), tmp_path / "secrets.key", bus),
    )
    path = tmp_path / "node.sock"
    async with (
        serve(build(engine), path),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http,
    ):
        made = Node(path, http, containers, execs, images, volumes, searches, bus, files, archives, commits,
                    builds)  # fmt: skip
        yield made
        for dialog in made.dialogs:
            dialog.close()
    for held in containers.all.values():
        if held.task is not None:
            held.task.cancel()
            await asyncio.gather(held.task, return_exceptions=True)
