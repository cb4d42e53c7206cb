"""Putting the room together: the only place that constructs its parts."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from node.containers.changing import Changer
from node.containers.connecting import Connector
from node.containers.creation import Creator
from node.containers.delivery.courier import Couriers
from node.containers.execs import Execs
from node.containers.freezer import CgroupFreezer
from node.containers.groupnames import group_path, recorded
from node.containers.health import HealthChecks
from node.containers.identity import Identities
from node.containers.live import Index, Live, find
from node.containers.manager import Containers
from node.containers.model import Container
from node.containers.mounting import Mounting
from node.containers.mountpoints import MountPoints
from node.containers.news import News
from node.containers.parts import (
    FindsImages,
    Groups,
    Launches,
    MonitorHandle,
    NetworksOfContainers,
    ReadsSecrets,
    VolumesOfContainers,
)
from node.containers.persistence import Records
from node.containers.privatemounts import PrivateMounts
from node.containers.pruning import Pruner
from node.containers.recovery import Recovery
from node.containers.revival import Revival
from node.containers.running import Runner
from node.containers.startup import Site, Startup
from node.containers.stopping import Remover, Stopper
from node.containers.tasks import Tasks
from node.containers.usage import Gauge
from node.events import EventBus
from node.snapshots.store import RootSnapshots
from node.state.containers import ContainerRows

__all__ = ("CgroupFreezer", "Neighbours", "Site", "open_containers")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What the room stands on."""

    rows: ContainerRows
    events: EventBus
    images: FindsImages
    snapshots: RootSnapshots
    networks: NetworksOfContainers
    volumes: VolumesOfContainers
    secrets: ReadsSecrets
    launcher: Launches
    connect: Callable[[Path], Awaitable[MonitorHandle]]
    freezer: Groups
    identities: Identities


@asynccontextmanager
async def open_containers(home: Path, site: Site, near: Neighbours) -> AsyncIterator[tuple[Containers, Execs]]:
    """Takes over what an earlier daemon left running before it yields. Ending it leaves containers running."""
    index, records, news, tasks = Index(), Records(near.rows), News(near.events), Tasks()

    def live(name: str) -> Live:
        return find(index, name)

    def container(name: str) -> Container:
        return live(name).container

    def place(name: str) -> str:
        held = container(name)
        return recorded(held) or group_path(held, site.cgroup_parent, site.cgroup_driver)

    near.freezer.locate(place)
    points = MountPoints(
        near.volumes, near.snapshots, near.images, near.secrets, container, create_sources=site.create_bind_sources
    )
    private = PrivateMounts(near.images, near.snapshots, near.secrets)
    mounting = Mounting(near.volumes, near.events)
    runner = Runner(
        Startup(site, near.snapshots, near.networks, near.launcher, live, mounting, private,
                near.identities),
        near.networks,
        near.freezer,
        records,
        news,
        tasks,
        mounting,
    )
    stopper = Stopper(records, news, near.freezer)
    remover = Remover(index, records, news, stopper, private, points, tasks)
    execs = Execs(live, index.all, news, tasks)
    runner.on_auto_remove = remover.remove_ended
    revival = Revival(stopper, tasks, by_default=site.restart_unhealthy)
    checks = HealthChecks(execs, records, news, tasks, revival.unhealthy)
    couriers = Couriers(tasks, site.log.journal_socket)

    def started(live: Live, taken_over: bool) -> None:
        checks.begin(live, taken_over=taken_over)
        couriers.begin(live)

    runner.on_started = started
    creator = Creator(home, index, records, news, near.images, near.snapshots, points, private, site, near.identities)
    recovery = Recovery(
        home, index, records, runner, remover, near.networks, private, near.connect, tasks, mounting
    )
    recovery.adopt = execs.adopt
    try:
        await recovery.run()
        for ended in index.all(lambda live: not live.state.running):
            couriers.begin(ended)
        yield (
            Containers(
                index, records, creator, runner, stopper, remover, near.freezer, near.snapshots, news,
                Changer(site.limits, near.freezer, near.networks, records, news), Gauge(near.freezer),
                Pruner(index, remover, near.snapshots, near.events), Connector(live, near.networks, records),
            ),
            execs,
        )
    finally:
        await tasks.close()
