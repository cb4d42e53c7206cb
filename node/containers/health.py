"""Health checks: an exec at an interval, its exit code counted, the verdict told.

Docker's rules (moby daemon/health.go): `starting` until the first success; failures of checks that began inside the
start period do not count; `retries` failures in a row make `unhealthy`; the last five results are kept, 4096 bytes of
output each. What is not running, or paused, reads `unhealthy`. Beyond Docker: a daemon that takes a container over
goes on with the verdict it finds, instead of calling a healthy container `starting` again.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable

from node.containers import clock
from node.containers.execs import Execs
from node.containers.live import Live
from node.containers.model import ExecSpec, Health, Healthcheck, HealthResult, Status
from node.containers.news import News
from node.containers.persistence import Records
from node.containers.tasks import Tasks
from ocispec.errors import SeawallError

log = logging.getLogger(__name__)

SECOND = 10**9
INTERVAL, TIMEOUT, RETRIES, START_INTERVAL = 30 * SECOND, 30 * SECOND, 3, 5 * SECOND
KEPT, MAX_OUTPUT = 5, 4096
PREPARE_SECONDS = 30.0
"""A check is not charged for the time its process needs to begin, but it has to begin."""

DYING_SECONDS = 10.0
STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
SHELL = ("/bin/sh", "-c")


class HealthChecks:
    def __init__(
        self,
        execs: Execs,
        records: Records,
        news: News,
        tasks: Tasks,
        on_unhealthy: Callable[[Live], Awaitable[None]],
    ) -> None:
        self._execs = execs
        self._records = records
        self._news = news
        self._tasks = tasks
        self._on_unhealthy = on_unhealthy

    def begin(self, live: Live, *, taken_over: bool = False) -> None:
        """For a container that has just been started, or taken over from an earlier daemon."""
        check = live.container.spec.healthcheck
        if check is None or not check.test or check.test[0] == "NONE":
            return
        if live.health_task is not None:
            live.health_task.cancel()
        before = live.state.health
        if before is None or not taken_over:
            live.change(health=Health(STARTING, 0, before.log if before else ()))
        live.health_task = self._tasks.spawn(self._run(live, check), f"watch health {live.id}")

    async def _run(self, live: Live, check: Healthcheck) -> None:
        run = live.monitor
        while True:
            await _unless_ended(live, pause(live, check, clock.nanoseconds(clock.now())) / SECOND)
            if live.exited.is_set() or live.monitor is not run:
                return
            if live.state.status is not Status.RUNNING:
                continue
            result = await self._probe(live, check)
            if live.exited.is_set() or live.monitor is not run:
                return
            if live.state.status is Status.RUNNING:
                await self._judge(live, check, result)

    async def _probe(self, live: Live, check: Healthcheck) -> HealthResult:
        shell = live.container.spec.shell or SHELL
        words = check.test[1:] if check.test[0] == "CMD" else (*shell, *check.test[1:])
        start = clock.now()
        try:
            exec_id = await self._execs.create(live.id, ExecSpec(words, attach_stdout=True, attach_stderr=True))
            try:
                code, output = await self._outcome(exec_id, (check.timeout or TIMEOUT) / SECOND)
            finally:
                live.execs.pop(exec_id, None)
        except SeawallError as error:
            code, output = -1, error.message
        return HealthResult(start, clock.now(), code, output)

    async def _outcome(self, exec_id: str, seconds: float) -> tuple[int, str]:
        said = Output()
        try:
            async with asyncio.timeout(PREPARE_SECONDS):
                stream = await self._execs.start(exec_id)
        except TimeoutError:
            await self._execs.end(exec_id)
            return -1, "the health check could not be started in time"
        assert stream is not None, "it is not detached"
        with stream:
            try:
                async with asyncio.timeout(seconds):
                    await said.read(stream)
                    return await self._execs.wait(exec_id), said.text
            except TimeoutError:
                # Until it is gone: checks that cannot end must not pile up.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DYING_SECONDS):
                        await self._execs.end(exec_id)
                        await self._execs.wait(exec_id)
        words = f"Health check exceeded timeout ({span(seconds)})"
        return -1, f"{words}: {said.text}" if said.text else words

    async def _judge(self, live: Live, check: Healthcheck, result: HealthResult) -> None:
        before = live.state.health or Health(STARTING)
        after = judged(before, result, check, live.state.started_at)
        live.change(health=after)
        if after.status == before.status:
            return
        # Only a new verdict is worth a write; the results themselves may be forgotten.
        async with live.lock:
            try:
                await self._records.save(live)
            except SeawallError:
                log.exception("the health of container %s is not recorded", live.container.name)
        self._news.tell(live.container, f"health_status: {after.status}")
        if after.status == UNHEALTHY:
            await self._on_unhealthy(live)


def judged(before: Health, result: HealthResult, check: Healthcheck, started_at: str) -> Health:
    kept = (*before.log, result)[-KEPT:]
    if result.exit_code == 0:
        return Health(HEALTHY, 0, kept)
    age = clock.nanoseconds(result.start) - clock.nanoseconds(started_at)
    if before.status == STARTING and age < check.start_period:
        return Health(STARTING, before.failing_streak, kept)
    streak = before.failing_streak + 1
    return Health(UNHEALTHY if streak >= (check.retries or RETRIES) else before.status, streak, kept)


def pause(live: Live, check: Healthcheck, now: int) -> int:
    """Nanoseconds until the next check. A check falls due at the latest when the start period ends."""
    interval = check.interval or INTERVAL
    left = check.start_period - (now - clock.nanoseconds(live.state.started_at))
    if left <= 0:
        return interval
    if live.state.health is None or live.state.health.status == STARTING:
        return min(left, interval, check.start_interval or START_INTERVAL)
    return min(left, interval)


def ended(health: Health | None) -> Health | None:
    """Of a container that does not run (any more)."""
    return None if health is None else Health(UNHEALTHY, health.failing_streak, health.log)


def span(seconds: float) -> str:
    """As Go prints a duration: 30s, 1m30s, 500ms."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest:g}s"


async def _unless_ended(live: Live, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(live.exited.wait(), seconds)


class Output:
    """The text of all frames, the first 4096 bytes of it; the rest is read and forgotten."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        self._head = b""

    @property
    def text(self) -> str:
        whole = self._held[:MAX_OUTPUT].decode("utf-8", "replace")
        return whole if len(self._held) <= MAX_OUTPUT else f"{whole}..."

    async def read(self, stream: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(stream, 65536):
            self._take(data)

    def _take(self, data: bytes) -> None:
        while data:
            if not self._left:
                head = self._head + data[: 8 - len(self._head)]
                data = data[8 - len(self._head) :]
                self._head = head if len(head) < 8 else b""
                self._left = int.from_bytes(head[4:8]) if len(head) == 8 else 0
                continue
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            self._held += part[: MAX_OUTPUT + 1 - len(self._held)]
