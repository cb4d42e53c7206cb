"""The verbs: what the API can do with containers. Each finds its container and hands it to whoever knows how."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from node.containers import names, top
from node.containers.changing import Change, Changer
from node.containers.connecting import Connector
from node.containers.creation import Creator
from node.containers.errors import NameInUse, NoSuchContainer, NotRunning, WrongState
from node.containers.filters import NOTHING, Filters
from node.containers.freezer import NoGroups
from node.containers.live import CONDITIONS, AttachQuery, AttachStream, Index, Live, WaitResult, find
from node.containers.logs import read_log
from node.containers.model import Container, Created, CreateSpec, LogQuery, Processes, Status
from node.containers.monitor import MonitorGone
from node.containers.news import News
from node.containers.parts import Freezes
from node.containers.persistence import Records
from node.containers.pruning import PruneFilter, Pruner
from node.containers.running import Runner
from node.containers.stopping import Remover, Stopper
from node.containers.usage import Gauge, Look
from node.network.model import EndpointSpec
from node.snapshots.store import RootSnapshots
from node.snapshots.trees import disk_usage
from node.state.containers import ContainerRowExists
from ocispec.errors import FailedPrecondition, InvalidArgument

Ids = list[str]


class LogsUnavailable(FailedPrecondition):
    """The container's log driver keeps nothing that could be read."""


class Containers:
    """Names are a name, a full id, or an id prefix that only one container has. All verbs raise NoSuchContainer."""

    def __init__(
        self,
        index: Index,
        records: Records,
        creator: Creator,
        runner: Runner,
        stopper: Stopper,
        remover: Remover,
        freezer: Freezes,
        snapshots: RootSnapshots,
        news: News,
        changer: Changer,
        gauge: Gauge,
        pruner: Pruner,
        connector: Connector,
    ) -> None:
        self._index = index
        self._records = records
        self._creator = creator
        self._runner = runner
        self._stopper = stopper
        self._remover = remover
        self._freezer = freezer
        self._snapshots = snapshots
        self._news = news
        self._changer = changer
        self._gauge = gauge
        self._pruner = pruner
        self._connector = connector

    async def create(self, spec: CreateSpec) -> Created:
        return await self._creator.create(spec)

    async def start(self, name: str) -> bool:
        """False: it runs already. Raises CannotInvoke (126, 127), CannotStart, WrongState, PortInUse…"""
        live = find(self._index, name)
        try:
            return await self._runner.start(live)
        except Exception:
            if live.container.spec.auto_remove and not live.active:
                await self._remover.remove_ended(live)
            raise

    async def stop(self, name: str, *, timeout: int | None = None, signal: str = "") -> bool:  # noqa: ASYNC109
        """False: nothing runs."""
        return await self._stopper.stop(find(self._index, name), timeout=timeout, with_signal=signal)

    async def restart(self, name: str, *, timeout: int | None = None, signal: str = "") -> None:  # noqa: ASYNC109
        live = find(self._index, name)
        # `--rm` must not take it away between the two.
        live.keep = True
        try:
            await self._stopper.stop(live, timeout=timeout, with_signal=signal)
            await self._runner.start(live)
        finally:
            live.keep = False
        self._news.tell(live.container, "restart")

    async def kill(self, name: str, signal: str = "KILL") -> None:
        await self._stopper.kill(find(self._index, name), signal)

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        await self._remover.remove(find(self._index, name), force=force, volumes=volumes)

    async def pause(self, name: str) -> None:
        await self._stopper.pause(find(self._index, name))

    async def unpause(self, name: str) -> None:
        await self._stopper.unpause(find(self._index, name))

    async def wait(self, name: str, condition: str = "not-running") -> "asyncio.Future[WaitResult]":
        """Registered when this returns; cancel the future when nobody waits any more."""
        if condition not in CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition}"')
        return find(self._index, name).wait_for(condition)

    def live(self, name: str) -> Live:
        """For the services of this room that are put together elsewhere (files, commit)."""
        return find(self._index, name)

    async def get(self, name: str) -> Container:
        return value(find(self._index, name))

    async def list(
        self,
        *,
        all: bool = False,  # noqa: A002
        limit: int = 0,
        filters: Filters = NOTHING,
    ) -> Sequence[Container]:
        """Newest first. Filters on status or exit code look at stopped containers too, a limit as well."""
        known = [value(live) for live in self._index.all()]
        shown = self._between(sorted(known, key=lambda c: c.created, reverse=True), filters)
        if not (all or limit > 0 or filters.wants_all):
            shown = [container for container in shown if container.state.running or _restarting(container)]
        shown = [container for container in shown if filters.matches(container)]
        return shown[:limit] if limit > 0 else shown

    def _between(self, shown: Sequence[Container], filters: Filters) -> Sequence[Container]:
        for name in filters.values.get("before", ()):
            bound = find(self._index, name).container.created
            shown = [container for container in shown if container.created < bound]
        for name in filters.values.get("since", ()):
            bound = find(self._index, name).container.created
            shown = [container for container in shown if container.created > bound]
        return shown

    async def rename(self, name: str, new: str) -> None:
        """Raises InvalidName, NameInUse, InvalidArgument (the same name)."""
        live = find(self._index, name)
        wanted = names.check(new)
        async with live.lock:
            if live.gone.is_set():
                raise NoSuchContainer(name)
            old = live.container.name
            if wanted == old:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            if owner := self._index.owner_of(wanted):
                raise NameInUse(wanted, owner)
            try:
                await self._records.rename(live, wanted)
            except ContainerRowExists as error:
                raise NameInUse(wanted, "another container") from error
            self._index.rename(live, wanted)
            await self._connector.renamed(live, old)
        self._news.tell(live.container, "rename", {"oldName": f"/{old}"})

    async def connect(self, name: str, asked: EndpointSpec) -> None:
        """One network more. Raises what `Connector.connect` raises."""
        await self._connector.connect(name, asked)

    async def disconnect(self, name: str, network: str, *, force: bool = False) -> None:
        await self._connector.disconnect(name, network, force=force)

    async def top(self, name: str, ps_args: str = "") -> Processes:
        live = find(self._index, name)
        if not live.state.running:
            raise NotRunning(live.id)
        found = await asyncio.to_thread(top.processes, await self._pids(live), ps_args)
        self._news.tell(live.container, "top")
        return found

    async def _pids(self, live: Live) -> Sequence[int]:
        try:
            return await self._freezer.pids(live.id)
        except NoGroups:
            if live.container.spec.namespaces.pid not in ("", "private"):
                raise
            return await asyncio.to_thread(top.beside, live.state.pid)

    async def attach(self, name: str, *, stdin: bool, stdout: bool, stderr: bool) -> AttachStream:
        """Raises WrongState for a paused or restarting container."""
        live = find(self._index, name)
        if live.state.status is Status.PAUSED:
            raise WrongState("You cannot attach to a paused container, unpause it first")
        if live.state.status is Status.RESTARTING:
            raise WrongState("You cannot attach to a restarting container, wait until it is running")
        query = AttachQuery(stdin and live.container.spec.open_stdin, stdout, stderr)
        self._news.tell(live.container, "attach")
        if live.monitor is None or not live.state.running:
            return live.place(query)
        opened: asyncio.Future[socket.socket | None] = asyncio.get_running_loop().create_future()
        try:
            opened.set_result(await live.monitor.attach(stdin=query.stdin, stdout=stdout, stderr=stderr))
        except MonitorGone:
            opened.set_result(None)
        return AttachStream(opened, tty=live.container.spec.tty)

    def detached(self, name: str) -> None:
        """Who was attached left by the detach keys."""
        self._news.tell(find(self._index, name).container, "detach")

    async def resize(self, name: str, height: int, width: int) -> None:
        live = find(self._index, name)
        if not live.state.running or live.monitor is None:
            raise NotRunning(live.id)
        await live.monitor.resize(height, width)
        self._news.tell(live.container, "resize", {"height": str(height), "width": str(width)})

    def logs(self, name: str, query: LogQuery) -> AsyncIterator[bytes]:
        """Raises LogsUnavailable, InvalidArgument (neither stream)."""
        live = find(self._index, name)
        if not live.container.log_path:
            raise LogsUnavailable("configured logging driver does not support reading")
        if not (query.stdout or query.stderr):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        return read_log(Path(live.container.log_path), query, tty=live.container.spec.tty, ended=live.exited.is_set)

    async def size(self, name: str) -> int:
        """Bytes the container wrote to its own layer."""
        return await self._snapshots.usage(find(self._index, name).id)

    async def kept(self, name: str) -> int:
        """Bytes that are kept of it beside its layer: its log above all."""
        folder = Path(find(self._index, name).container.directory)
        return await asyncio.to_thread(disk_usage, folder)

    async def update(self, name: str, change: Change) -> Sequence[str]:
        """Gives warnings. Raises InvalidSpec, WrongState."""
        return await self._changer.update(find(self._index, name), change)

    async def usage(self, name: str) -> tuple[Container, Look | None]:
        """What it uses now; None when it does not run."""
        live = find(self._index, name)
        look = await self._gauge.read(live)
        return live.container, look

    async def prune(self, filters: PruneFilter) -> "tuple[Sequence[str], int]":
        """Ids of what is gone, and bytes that are free again. Raises AlreadyPruning."""
        return await self._pruner.prune(filters)

    def in_use(self) -> "Mapping[str, Ids]":
        """Image id to the ids of containers made of it."""
        return _grouped((live.container.image_id, live.id) for live in self._index.all())

    def running(self) -> Sequence[str]:
        return [live.id for live in self._index.all(lambda live: live.active)]

    def volumes_in_use(self) -> "Mapping[str, Ids]":
        """Volume name to the ids of containers that mount it."""
        return _grouped(
            (point.name, live.id) for live in self._index.all() for point in live.container.mounts if point.name
        )

    def secrets_in_use(self) -> "Mapping[str, Ids]":
        """Id of a secret or config to the names of containers that have it."""
        return _grouped(
            (held, live.container.name)
            for live in self._index.all()
            for held in {point.reference for point in live.container.mounts if point.kind in ("secret", "config")}
        )

    def counts(self) -> Mapping[str, int]:
        """running, paused, stopped: Docker's three, every container in one of them."""
        states = [live.state.status for live in self._index.all()]
        paused = states.count(Status.PAUSED)
        running = states.count(Status.RUNNING) + states.count(Status.RESTARTING)
        return {"running": running, "paused": paused, "stopped": len(states) - running - paused}


def value(live: Live) -> Container:
    """The container with the execs it has now."""
    return replace(live.container, exec_ids=tuple(live.execs)) if live.execs else live.container


def _restarting(container: Container) -> bool:
    return container.state.status is Status.RESTARTING


def _grouped(pairs: Iterable[tuple[str, str]]) -> Mapping[str, Ids]:
    groups: dict[str, Ids] = {}
    for key, member in pairs:
        groups.setdefault(key, []).append(member)
    return groups
