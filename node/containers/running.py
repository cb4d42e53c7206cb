"""A container's life between start and exit: started, watched, its exit booked, started again if its policy says so.

Every transition happens under the container's lock and is written once. An exit is handled exactly once: by the watcher
of the monitor that ran it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from node.containers import clock, health
from node.containers.errors import WrongState
from node.containers.live import NEXT_EXIT, NOT_RUNNING, Live
from node.containers.model import Place, RestartMode, Status
from node.containers.monitor import ExitStatus, MonitorGone, read_exit
from node.containers.mounting import Mounting
from node.containers.news import News
from node.containers.parts import Connects, Freezes, MonitorHandle
from node.containers.persistence import Records
from node.containers.startup import Startup
from node.containers.tasks import Tasks
from ocispec.errors import SeawallError

log = logging.getLogger(__name__)

FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 60.0
LONG_ENOUGH = 10.0
"""A run of this many seconds begins the back-off anew (moby restartmanager)."""

LOST = 137
"""Exit code of a container whose monitor died without a word."""


class Runner:
    def __init__(
        self,
        startup: Startup,
        networks: Connects,
        freezer: Freezes,
        records: Records,
        news: News,
        tasks: Tasks,
        mounting: Mounting,
    ) -> None:
        self._startup = startup
        self._freezer = freezer
        self._networks = networks
        self._records = records
        self._news = news
        self._tasks = tasks
        self._mounting = mounting
        self.on_auto_remove: Callable[[Live], Awaitable[None]] | None = None
        self.on_started: Callable[[Live, bool], None] | None = None
        """Told of every run, and whether it was begun by an earlier daemon."""

    async def start(self, live: Live) -> bool:
        """False: it runs already. Goes on to its end when the caller is cancelled."""
        return await self._tasks.whole(self._start(live), f"start {live.id}")

    async def _start(self, live: Live) -> bool:
        async with live.lock:
            if live.removing:
                raise WrongState("container is marked for removal and cannot be started")
            if live.state.status is Status.PAUSED:
                raise WrongState("cannot start a paused container, try unpause instead")
            if live.state.running:
                return False
            cancel_restart(live)
            live.backoff = 0.0
            live.change(restart_count=0, stopped_by_user=False)
            try:
                await self._launch(live)
            except SeawallError:
                # A first start that fails leaves `created`, a later one `exited`; neither leaves a restart pending.
                # Who waits for an exit goes on waiting, as in Docker: nothing ran. (docker run waits before it starts
                # and would report the failure twice.)
                pending = live.state.status is Status.RESTARTING
                if pending:
                    live.change(status=Status.EXITED)
                await self._write(live)
                if pending:
                    self._settle(live)
                raise
            return True

    async def _launch(self, live: Live) -> None:
        live.stopping = live.revive = False
        try:
            await self._startup.bring_up(live)
        except SeawallError:
            live.drop_places()
            raise
        assert live.monitor is not None
        # Watched before anything else can fail: it runs, so its end must be seen.
        self.watch(live, live.monitor)
        await self._write(live)
        self._news.tell(live.container, "start")

    async def recognise(self, live: Live) -> None:
        await self._startup.recognise(live)

    def watch(self, live: Live, monitor: MonitorHandle, *, taken_over: bool = False) -> None:
        self._tasks.spawn(self._watch(live, monitor), f"watch {live.id}")
        if self.on_started is not None:
            self.on_started(live, taken_over)

    async def _watch(self, live: Live, monitor: MonitorHandle) -> None:
        try:
            status = await monitor.wait()
        except MonitorGone:
            status = None
        await self._tasks.whole(self._exit(live, monitor, status), f"exit {live.id}")

    async def _exit(self, live: Live, monitor: MonitorHandle, status: ExitStatus | None) -> None:
        async with live.lock:
            if live.monitor is not monitor:
                return
            live.monitor = None
            await monitor.close()
            await self.book_exit(live, status or await self.bury(live))
        if live.container.spec.auto_remove and not (live.removing or live.keep) and self.on_auto_remove is not None:
            await self.on_auto_remove(live)

    async def bury(self, live: Live) -> ExitStatus:
        """The monitor is gone: what it said last. The lock is held. Its death kills the container's first process, but
        not what shares the host's pid namespace, and it leaves the cgroup."""
        try:
            await self._freezer.clear(live.id)
        except SeawallError as error:
            log.warning("container %s: %s", live.container.name, error.message)
        return await asyncio.to_thread(last_words, live)

    async def book_exit(self, live: Live, status: ExitStatus, *, plan: bool = True) -> None:
        """The lock is held. Network released, row written, event told, waiters answered, restart planned (unless the
        caller will see to it)."""
        ran = max(0, clock.nanoseconds(status.finished_at) - clock.nanoseconds(live.state.started_at)) / 10**9
        live.container = replace(live.container, network=Place())
        wanted = live.revive or wants_restart(live, status.code)
        again = plan and wanted and not live.removing and not live.stopping
        live.change(
            status=Status.RESTARTING if again else Status.EXITED,
            pid=0,
            exit_code=status.code,
            oom_killed=status.oom_killed,
            error=status.error,
            finished_at=status.finished_at or clock.now(),
            health=health.ended(live.state.health),
        )
        # In Docker's order: die, then the networks' disconnect.
        if status.oom_killed:
            self._news.tell(live.container, "oom")
        self._news.tell(live.container, "die", {"exitCode": str(status.code), "execDuration": str(int(ran))})
        try:
            await self._networks.release(live.id)
        except SeawallError:
            log.exception("the network place of container %s is not released", live.container.name)
        await self._mounting.end(live.container)
        self._startup.ended(live)
        if not live.container.spec.auto_remove:
            await self._write(live)
        live.exited.set()
        self._settle(live)
        if again:
            self.plan_restart(live, ran)

    def plan_restart(self, live: Live, ran: float) -> None:
        live.backoff = (
            FIRST_BACKOFF if ran >= LONG_ENOUGH or not live.backoff else min(live.backoff * 2, LONGEST_BACKOFF)
        )
        live.restart_timer = self._tasks.spawn(self._restart(live, live.backoff), f"watch restart {live.id}")

    async def _restart(self, live: Live, delay: float) -> None:
        await asyncio.sleep(delay)
        # From here on it is a start like any other: nobody cancels it in the middle.
        live.restart_timer = None
        await self._tasks.whole(self._start_again(live), f"restart {live.id}")

    async def _start_again(self, live: Live) -> None:
        async with live.lock:
            if live.removing or live.stopping or live.state.status is not Status.RESTARTING:
                return
            live.change(restart_count=live.state.restart_count + 1)
            try:
                await self._launch(live)
            except SeawallError:
                live.change(status=Status.EXITED, finished_at=clock.now())
                await self._write(live)
                self._settle(live)

    async def _write(self, live: Live) -> None:
        """A full disk must not hide from anybody that a container started or ended: the record is behind until the
        next transition, and the next daemon learns the truth from monitor.sock and exit.json."""
        try:
            await self._records.save(live)
        except SeawallError:
            log.exception("the state of container %s is not recorded", live.container.name)

    def _settle(self, live: Live) -> None:
        live.settle(NEXT_EXIT, NOT_RUNNING)


def wants_restart(live: Live, code: int) -> bool:
    policy, state = live.container.spec.restart, live.state
    if state.stopped_by_user or policy.mode is RestartMode.NO:
        return False
    if policy.mode is RestartMode.ON_FAILURE:
        return code != 0 and (not policy.max_retries or state.restart_count < policy.max_retries)
    return True


def cancel_restart(live: Live) -> None:
    if live.restart_timer is not None:
        live.restart_timer.cancel()
        live.restart_timer = None


def last_words(live: Live) -> ExitStatus:
    """What the monitor wrote before it went, or that it wrote nothing."""
    status = read_exit(Path(live.container.directory))
    return status or ExitStatus(LOST, False, clock.now(), "the container's monitor is gone and left no exit status")
