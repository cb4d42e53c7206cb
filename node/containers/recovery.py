"""The daemon starts: containers of the one before are taken over, those that ended meanwhile are booked, what nobody
owns any more is swept, and policies that say so start containers again."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from node.containers.connecting import JOIN, connected
from node.containers.files import resolving
from node.containers.live import Index, Live
from node.containers.model import Container, RestartMode, Status
from node.containers.monitor import MonitorGone
from node.containers.mounting import Mounting
from node.containers.order import PATIENCE_SECONDS, Turns
from node.containers.parts import MonitorHandle, Readopts
from node.containers.persistence import Records
from node.containers.privatemounts import PrivateMounts
from node.containers.running import Runner, wants_restart
from node.containers.stopping import Remover
from node.containers.tasks import Tasks
from node.network.model import Joining, PortBinding
from ocispec.errors import SeawallError

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Containers that are started at the same time after a reboot; more would only wait for each other."""


class Recovery:
    def __init__(
        self,
        home: Path,
        index: Index,
        records: Records,
        runner: Runner,
        remover: Remover,
        networks: Readopts,
        private: PrivateMounts,
        connect: Callable[[Path], Awaitable[MonitorHandle]],
        tasks: Tasks,
        mounting: Mounting,
    ) -> None:
        self._home = home
        self._index = index
        self._records = records
        self._runner = runner
        self._remover = remover
        self._networks = networks
        self._private = private
        self._connect = connect
        self._tasks = tasks
        self.adopt: Callable[[Live, MonitorHandle], Awaitable[None]] | None = None
        """Told of every container that is taken over."""

        self._starting = asyncio.Semaphore(AT_ONCE)
        self._mounting = mounting

    async def run(self) -> None:
        """When it returns every container is known, running ones are watched; restarts go on in the background."""
        for live in await self._records.all():
            self._index.add(live)
        everyone = self._index.all()
        await asyncio.gather(*(self._take_over(live) for live in everyone))
        await self._networks.settle()
        await self._mounting.settle()
        await self._sweep()
        turns = Turns(everyone, [live for live in everyone if self._comes(live)], patience=PATIENCE_SECONDS)
        for live in everyone:
            self._tasks.spawn(self._decide(live, turns), f"watch recovery {live.id}")

    async def _take_over(self, live: Live) -> None:
        directory = Path(live.container.directory)
        try:
            monitor = await self._connect(directory)
        except MonitorGone:
            if live.state.running:
                async with live.lock:
                    await self._runner.book_exit(live, await self._runner.bury(live), plan=False)
            return
        async with live.lock:
            live.monitor = monitor
            if not live.state.running:
                # The daemon before died between the start and its record.
                live.change(status=Status.RUNNING, exit_code=0, error="")
            live.change(pid=monitor.pid)
            live.exited.clear()
            place = live.container.network
            ports = [PortBinding(p.port.protocol, p.port.number, p.host_ip, p.host_port) for p in place.ports]
            await self._mounting.hold(live.container)
            await self._runner.recognise(live)
            await self._networks.readopt(_joining(live.container), place.endpoints, ports, monitor.pid)
            await self._records.save(live)
        if self.adopt is not None:
            await self.adopt(live, monitor)
        self._runner.watch(live, monitor, taken_over=True)
        if _placeless(live.container):
            # The daemon before died between the start and its record: addresses and ports that nobody wrote down are
            # taken from it, and it would run cut off for ever. Nobody was told that it started: it starts anew.
            log.warning("container %s runs with a network nobody knows and is started again", live.container.name)
            live.revive = not live.container.spec.auto_remove
            with contextlib.suppress(SeawallError):  # it has ended by itself
                await monitor.kill_all()

    @staticmethod
    def _comes(live: Live) -> bool:
        return not live.state.running and not live.container.spec.auto_remove and wants_start(live)

    async def _decide(self, live: Live, turns: Turns) -> None:
        try:
            if not live.state.running and live.container.spec.auto_remove and live.state.status is not Status.CREATED:
                await self._remover.remove_ended(live)
            elif self._comes(live):
                await turns.wait(live)
                # Somebody may have started, stopped or removed it meanwhile.
                if self._comes(live) and not live.removing and not live.stopping:
                    async with self._starting:
                        await self._runner.start(live)
        except SeawallError as error:
            log.warning("container %s could not be started again: %s", live.container.name, error.message)
        finally:
            turns.over(live)

    async def _sweep(self) -> None:
        """Snapshots and folders of containers whose removal or creation was cut short; the folder goes last."""
        for folder in await asyncio.to_thread(lambda: sorted(self._home.iterdir())):
            if self._index.get(folder.name) is None:
                await self._private.remove(folder.name, folder)


def _placeless(container: Container) -> bool:
    """Whether it should be on networks, and its record says of none that it is."""
    mode = container.spec.network.mode
    if container.network.endpoints or mode in ("host", "none") or mode.startswith(JOIN):
        return False
    return any(one.network not in ("host", "none") for one in connected(container))


def _joining(container: Container) -> Joining:
    spec = container.spec
    return Joining(container.id, container.name, spec.hostname, spec.network.mode, resolving=resolving(spec.network))


def wants_start(live: Live) -> bool:
    """`always` starts even what a user stopped (moby daemon.restore); the others as after any exit."""
    if live.state.status is Status.CREATED:
        return False
    if live.container.spec.restart.mode is RestartMode.ALWAYS:
        return True
    return wants_restart(live, live.state.exit_code)
