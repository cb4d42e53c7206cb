"""A container in the daemon's memory: its value, who waits for it, and the monitor it runs under.

The lock serialises transitions (start, the handling of an exit, pause, rename, removal). Stopping does not hold it
while it waits: the exit it waits for needs it.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from node.containers.errors import AmbiguousPrefix, NoSuchContainer
from node.containers.model import Container, ContainerState, Exec, Place, Status
from node.containers.parts import MonitorHandle
from node.network.model import EndpointSpec

NOT_RUNNING, NEXT_EXIT, REMOVED = "not-running", "next-exit", "removed"
CONDITIONS = frozenset({NOT_RUNNING, NEXT_EXIT, REMOVED})


@dataclass(frozen=True, slots=True)
class WaitResult:
    status_code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class AttachQuery:
    stdin: bool
    stdout: bool
    stderr: bool


@dataclass(frozen=True, slots=True)
class Dynamic:
    """What a transition writes to state.db."""

    state: ContainerState = field(default_factory=ContainerState)
    network: Place = field(default_factory=Place)
    wanted: tuple[EndpointSpec, ...] | None = None


class AttachStream:
    """A place at a container's streams, taken before or while it runs. Close it (or the socket) when done."""

    def __init__(self, opened: "asyncio.Future[socket.socket | None]", *, tty: bool) -> None:
        self._opened = opened
        self.tty = tty

    async def open(self) -> "socket.socket | None":
        """Waits for the start. None: it will not come (the start failed or the container was removed)."""
        return await asyncio.shield(self._opened)

    def cancel(self) -> None:
        """Give the place up; a socket that came meanwhile is closed."""
        if not self._opened.cancel() and not self._opened.cancelled() and (stream := self._opened.result()):
            stream.close()


@dataclass(slots=True, eq=False)
class Live:
    container: Container
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    monitor: MonitorHandle | None = None
    removing: bool = False
    stopping: bool = False
    """A stop or kill is under way: the exit it brings is no reason to start again."""

    revive: bool = False
    """It is being ended because it was unhealthy: it starts again whatever its policy says."""

    keep: bool = False
    """A restart is under way: `--rm` waits for the run after it."""

    exited: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while nothing runs; cleared by a start."""

    moved: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    execs: dict[str, Exec] = field(default_factory=dict)
    exec_ended: dict[str, asyncio.Event] = field(default_factory=dict)
    backoff: float = 0.0
    restart_timer: "asyncio.Task[None] | None" = None
    health_task: "asyncio.Task[None] | None" = None
    courier: "asyncio.Task[None] | None" = None
    """Delivers the log to a log service; goes on after the end until all is there."""

    _waiters: "dict[str, list[asyncio.Future[WaitResult]]]" = field(default_factory=dict)
    _attachers: "list[tuple[AttachQuery, asyncio.Future[socket.socket | None]]]" = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.state.running:
            self.exited.set()

    @property
    def id(self) -> str:
        return self.container.id

    @property
    def state(self) -> ContainerState:
        return self.container.state

    @property
    def active(self) -> bool:
        """Running, paused, or about to be started again: Docker counts all three as running."""
        return self.state.running or self.state.status is Status.RESTARTING

    def change(self, **values: Any) -> None:
        self.container = replace(self.container, state=replace(self.state, **values))
        self.tell()

    def tell(self) -> None:
        """Wake those who wait for the next change, whatever it is: each takes `moved` anew and looks again."""
        self.moved.set()
        self.moved = asyncio.Event()

    def dynamic(self) -> Dynamic:
        return Dynamic(self.state, self.container.network, self.container.wanted)

    def wait_for(self, condition: str) -> "asyncio.Future[WaitResult]":
        """Registered before it returns, so that no exit is missed."""
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if condition == NOT_RUNNING and not self.active:
            future.set_result(self._result())
        else:
            waiters = self._waiters.setdefault(condition, [])
            waiters[:] = [waiter for waiter in waiters if not waiter.done()]
            waiters.append(future)
        return future

    def settle(self, *conditions: str) -> None:
        """Answer those who wait for one of the conditions."""
        for condition in conditions:
            # Whoever waits for the removal of what never ran hears the reason from the start.
            result = self._result() if condition != REMOVED else WaitResult(self.state.exit_code)
            for waiter in self._waiters.pop(condition, []):
                if not waiter.done():
                    waiter.set_result(result)

    def place(self, query: AttachQuery) -> AttachStream:
        """A place that the next start fills."""
        future: asyncio.Future[socket.socket | None] = asyncio.get_running_loop().create_future()
        self._attachers = [place for place in self._attachers if not place[1].done()]
        self._attachers.append((query, future))
        return AttachStream(future, tty=self.container.spec.tty)

    async def fill_places(self, monitor: MonitorHandle) -> None:
        """Attach all who came before the start; nothing the process writes is missed by them."""
        places, self._attachers = self._attachers, []
        for query, future in places:
            if future.cancelled():
                continue
            stream = await monitor.attach(stdin=query.stdin, stdout=query.stdout, stderr=query.stderr)
            if future.cancelled():
                stream.close()
            else:
                future.set_result(stream)

    def drop_places(self) -> None:
        for _, future in self._attachers:
            if not future.done():
                future.set_result(None)
        self._attachers.clear()

    def _result(self) -> WaitResult:
        return WaitResult(self.state.exit_code, self.state.error)


class Index:
    """All containers of the node by id, name and prefix. Not touched by two at once: everything happens on the loop."""

    def __init__(self) -> None:
        self._by_id: dict[str, Live] = {}
        self._by_name: dict[str, str] = {}

    def add(self, live: Live) -> None:
        self._by_id[live.id] = live
        self._by_name[live.container.name] = live.id

    def remove(self, live: Live) -> None:
        self._by_id.pop(live.id, None)
        if self._by_name.get(live.container.name) == live.id:
            del self._by_name[live.container.name]

    def rename(self, live: Live, name: str) -> None:
        del self._by_name[live.container.name]
        live.container = replace(live.container, name=name)
        self._by_name[name] = live.id

    def owner_of(self, name: str) -> str | None:
        return self._by_name.get(name)

    def get(self, container_id: str) -> Live | None:
        return self._by_id.get(container_id)

    def all(self, where: Callable[[Live], bool] = lambda _live: True) -> list[Live]:
        return [live for live in self._by_id.values() if where(live)]

    @property
    def names(self) -> dict[str, str]:
        return self._by_name

    def with_prefix(self, prefix: str) -> list[Live]:
        return [live for container_id, live in self._by_id.items() if container_id.startswith(prefix)]


def find(index: Index, name: str) -> Live:
    """Full id, then name, then unambiguous prefix. Raises NoSuchContainer, AmbiguousPrefix."""
    bare = name.removeprefix("/")
    found = index.get(bare) or index.get(index.owner_of(bare) or "")
    if found is not None:
        return found
    candidates = index.with_prefix(bare) if bare else []
    if len(candidates) > 1:
        raise AmbiguousPrefix(bare)
    if not candidates:
        raise NoSuchContainer(bare)
    return candidates[0]
