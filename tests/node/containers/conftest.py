"""A node's containers upon fakes, opened and closed as often as a test likes."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node.containers.execs import Execs
from node.containers.identity import Identities
from node.containers.manager import Containers
from node.containers.model import CreateSpec
from node.containers.opening import Neighbours, Site, open_containers
from node.events import EventBus
from node.settings import LogSettings
from node.state.containers import ContainerRows
from node.state.database import State, open_state
from node.userns.tenants import Tenants
from tests.node.containers.fakes import (
    FakeFreezer,
    FakeImages,
    FakeLauncher,
    FakeNetworks,
    FakeSecrets,
    FakeSnapshots,
    FakeSpaces,
    FakeVolumes,
)


class BrittleRows(ContainerRows):
    """Rows of a disk that is full when `failure` is set."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.failure: Exception | None = None

    async def set_state(self, container_id: str, state: str) -> None:
        if self.failure is not None:
            raise self.failure
        await super().set_state(container_id, state)


@dataclass
class Node:
    """What outlives a daemon (launcher, networks, disk), and the daemon of now."""

    home: Path
    launcher: FakeLauncher
    networks: FakeNetworks
    snapshots: FakeSnapshots
    volumes: FakeVolumes
    secrets: FakeSecrets = field(default_factory=FakeSecrets)
    images: FakeImages = field(default_factory=FakeImages)
    freezer: FakeFreezer = field(default_factory=FakeFreezer)
    events: EventBus = field(default_factory=EventBus)
    site: dict = field(default_factory=dict)
    spaces: FakeSpaces | None = None
    tenants: Tenants = field(default_factory=Tenants)
    containers: Containers = field(init=False)
    execs: Execs = field(init=False)
    rows: BrittleRows = field(init=False)

    @asynccontextmanager
    async def opened(self):
        self.events = EventBus()
        async with open_state(self.home / "state.db") as state:
            self.rows = BrittleRows(state)
            near = Neighbours(
                self.rows,
                self.events,
                self.images,
                self.snapshots,
                self.networks,
                self.volumes,
                self.secrets,
                self.launcher,
                self.launcher.connect,
                self.freezer,
                Identities(self.spaces, self.tenants, self.volumes, why_not="this test has none"),
            )
            folder = self.home / "containers"
            try:
                async with open_containers(folder, Site("seawall-test", LogSettings(), **self.site), near) as (
                    self.containers,
                    self.execs,
                ):
                    yield self
            finally:
                for monitor in self.launcher.monitors:
                    monitor.hang_up()

    async def run(self, name="box", **values) -> str:
        created = await self.containers.create(CreateSpec("alpine", name=name, **values))
        await self.containers.start(name)
        return created.id

    async def status(self, name="box") -> str:
        return str((await self.containers.get(name)).state.status)

    def actions(self) -> list[str]:
        return [event.action for event in self.events.past()]


@pytest.fixture
def cold_node(tmp_path):
    (tmp_path / "containers").mkdir()
    (tmp_path / "root").mkdir()
    return Node(
        tmp_path, FakeLauncher(), FakeNetworks(), FakeSnapshots(tmp_path / "root"), FakeVolumes(tmp_path / "volumes")
    )


@pytest.fixture
async def node(cold_node):
    async with cold_node.opened():
        yield cold_node
