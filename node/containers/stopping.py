"""Stop, kill, pause and removal: what ends a container's run or the container.

Waiting for an exit happens outside the lock; who holds it is checked again after.
"""

import asyncio
import contextlib
import logging
import signal
from pathlib import Path

from node.containers import health
from node.containers.complete import parse_signal
from node.containers.errors import CannotStop, NotRunning, WrongState
from node.containers.live import NEXT_EXIT, NOT_RUNNING, REMOVED, Index, Live
from node.containers.model import Status
from node.containers.monitor import MonitorGone
from node.containers.mountpoints import MountPoints
from node.containers.news import News
from node.containers.parts import Freezes
from node.containers.persistence import Records
from node.containers.privatemounts import PrivateMounts
from node.containers.running import cancel_restart
from node.containers.tasks import Tasks

DEFAULT_TIMEOUT = 10
KILL_PATIENCE = 10.0
"""Seconds that SIGKILL may take before the kernel is said to hold the process."""

log = logging.getLogger(__name__)


class Stopper:
    def __init__(self, records: Records, news: News, freezer: Freezes) -> None:
        self._records = records
        self._news = news
        self._freezer = freezer

    async def stop(self, live: Live, *, timeout: int | None = None, with_signal: str = "") -> bool:  # noqa: ASYNC109
        """False: nothing runs. SIGKILL follows after the timeout (seconds; -1: never)."""
        if not live.active:
            return False
        number = _stop_signal(live, with_signal)
        if not await self._by_user(live):
            await self._ask(live, number, timeout)
            if not live.exited.is_set():
                await self.end(live)
        self._news.tell(live.container, "stop")
        return True

    async def end_run(self, live: Live) -> None:
        """As a stop, but nobody asked for it: the restart policy decides what follows. Raises CannotStop."""
        await self._ask(live, _stop_signal(live), None)
        if not live.exited.is_set():
            await self._signal(live, signal.SIGKILL)
            await self._await_end(live)

    async def _ask(self, live: Live, number: int, timeout: int | None) -> None:  # noqa: ASYNC109
        """The signal, and time for its effect."""
        seconds = timeout if timeout is not None else live.container.spec.stop_timeout
        seconds = DEFAULT_TIMEOUT if seconds is None else seconds
        await self._signal(live, number)
        self._news.tell(live.container, "kill", {"signal": str(number)})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(live.exited.wait(), None if seconds < 0 else seconds)

    async def kill(self, live: Live, with_signal: str) -> None:
        number = parse_signal(with_signal or "KILL")
        if not live.active:
            raise NotRunning(live.id)
        ends = number in (signal.SIGKILL, _stop_signal(live))
        if ends and await self._by_user(live):
            return
        await self._signal(live, number)
        self._news.tell(live.container, "kill", {"signal": str(number)})
        if number == signal.SIGKILL:
            await self._await_end(live)

    async def end(self, live: Live) -> None:
        """SIGKILL, and wait until the exit is booked. Raises CannotStop."""
        live.stopping = True
        if cancelled := live.state.status is Status.RESTARTING:
            await self._by_user(live)
        if not cancelled and not live.exited.is_set():
            await self._signal(live, signal.SIGKILL)
        await self._await_end(live)

    async def pause(self, live: Live) -> None:
        async with live.lock:
            if live.state.status is Status.PAUSED:
                raise WrongState(f"Container {live.id} is already paused")
            if live.state.status is Status.RESTARTING:
                raise WrongState(f"Container {live.id} is restarting, wait until the container is running")
            if not live.state.running:
                raise NotRunning(live.id)
            await self._freezer.freeze(live.id)
            live.change(status=Status.PAUSED, health=health.ended(live.state.health))
            await self._records.save(live)
        self._news.tell(live.container, "pause")

    async def unpause(self, live: Live) -> None:
        async with live.lock:
            if live.state.status is not Status.PAUSED:
                raise WrongState(f"Container {live.id} is not paused")
            await self._thaw(live)
        self._news.tell(live.container, "unpause")

    async def _thaw(self, live: Live) -> None:
        await self._freezer.thaw(live.id)
        live.change(status=Status.RUNNING)
        await self._records.save(live)

    async def _by_user(self, live: Live) -> bool:
        """Note that someone wants it stopped. True: it was between two runs and now rests."""
        live.stopping = True
        cancel_restart(live)
        async with live.lock:
            live.change(stopped_by_user=True)
            resting = live.state.status is Status.RESTARTING
            if resting:
                live.change(status=Status.EXITED)
                live.settle(NEXT_EXIT, NOT_RUNNING)
            await self._records.save(live)
        return resting

    async def _signal(self, live: Live, number: int) -> None:
        monitor = live.monitor
        if monitor is None:
            return
        with contextlib.suppress(MonitorGone):
            await monitor.signal(number)
        if live.state.status is Status.PAUSED:
            # A frozen task gets no signal before it is thawed.
            async with live.lock:
                if live.state.status is Status.PAUSED:
                    await self._thaw(live)

    async def _await_end(self, live: Live) -> None:
        try:
            await asyncio.wait_for(live.exited.wait(), KILL_PATIENCE)
        except TimeoutError:
            raise CannotStop(f"container {live.id} did not end within {KILL_PATIENCE:.0f} s of SIGKILL") from None


class Remover:
    def __init__(
        self,
        index: Index,
        records: Records,
        news: News,
        stopper: Stopper,
        private: PrivateMounts,
        mount_points: MountPoints,
        tasks: Tasks,
    ) -> None:
        self._index = index
        self._records = records
        self._news = news
        self._stopper = stopper
        self._private = private
        self._mount_points = mount_points
        self._tasks = tasks

    async def remove(self, live: Live, *, force: bool, volumes: bool) -> None:
        if live.removing:
            raise WrongState(f"removal of container {live.container.name} is already in progress")
        # Claimed here: the task below begins only when the loop comes round, and a second caller may be first.
        live.removing = True
        await self._tasks.whole(self._remove(live, force=force, volumes=volumes), f"remove {live.id}")

    async def remove_ended(self, live: Live) -> None:
        """`--rm`: the run is over. Somebody else's removal may have come first."""
        if not live.removing:
            live.removing = True
            await self._remove(live, force=False, volumes=True)

    async def _remove(self, live: Live, *, force: bool, volumes: bool) -> None:
        """The caller has claimed it by `live.removing`."""
        try:
            while True:
                async with live.lock:
                    if not live.active:
                        await self._forget(live, volumes=volumes)
                        return
                    if not force:
                        raise WrongState(_refusal(live))
                await self._stopper.end(live)
        except BaseException:
            live.removing = False
            raise

    async def _forget(self, live: Live, *, volumes: bool) -> None:
        await self._records.remove(live)
        self._index.remove(live)
        live.gone.set()
        live.tell()
        live.drop_places()
        if volumes:
            # --volumes-from: another container may have the volume too.
            used = {point.name for other in self._index.all() for point in other.container.mounts}
            await self._mount_points.discard([point for point in live.container.mounts if point.name not in used])
        self._news.tell(live.container, "destroy")
        live.settle(NEXT_EXIT, NOT_RUNNING, REMOVED)
        # Nobody can see the container any more; its bytes may take their time. A daemon killed before they are gone
        # sweeps them when it starts (recovery.py).
        self._tasks.spawn(self._sweep(live), f"sweep {live.id}")

    async def _sweep(self, live: Live) -> None:
        await self._private.remove(live.id, Path(live.container.directory))


def _stop_signal(live: Live, asked: str = "") -> int:
    return parse_signal(asked or live.container.spec.stop_signal or "SIGTERM")


def _refusal(live: Live) -> str:
    state = "paused" if live.state.status is Status.PAUSED else str(live.state.status)
    hint = {
        "paused": "unpause and then stop the container before removing or force remove",
    }.get(state, "stop the container before removing or force remove")
    return f'cannot remove container "{live.container.name}": container is {state}: {hint}'
