"""Health checks: an exec at an interval, its exit code counted, the verdict told.

Docker's rules: `starting` until the first success; failures inside the start period do not count; `retries` failures in
a row make `unhealthy`; the last five results are kept, 4096 bytes of output each.
"""

import asyncio
import contextlib
import socket

from node.containers import clock
from node.containers.execs import Execs
from node.containers.live import Live
from node.containers.model import ExecSpec, Health, Healthcheck, HealthResult
from node.containers.news import News
from node.containers.tasks import Tasks
from ocispec.errors import SeawallError

SECOND = 10**9
INTERVAL, TIMEOUT, RETRIES, START_INTERVAL = 30 * SECOND, 30 * SECOND, 3, 5 * SECOND
KEPT, MAX_OUTPUT = 5, 4096
STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


class HealthChecks:
    def __init__(self, execs: Execs, news: News, tasks: Tasks) -> None:
        self._execs = execs
        self._news = news
        self._tasks = tasks

    def begin(self, live: Live) -> None:
        """For a container that has just been started, or taken over from an earlier daemon."""
        check = live.container.spec.healthcheck
        if check is None or not check.test or check.test[0] == "NONE":
            return
        if live.health_task is not None:
            live.health_task.cancel()
        live.change(health=Health(STARTING))
        live.health_task = self._tasks.spawn(self._run(live, check), f"watch health {live.id}")

    async def _run(self, live: Live, check: Healthcheck) -> None:
        began = asyncio.get_running_loop().time()
        period = check.start_period / SECOND
        while True:
            early = asyncio.get_running_loop().time() - began < period
            waiting = (check.start_interval or START_INTERVAL) if early and _starting(live) else 0
            await _unless_ended(live, (waiting or check.interval or INTERVAL) / SECOND)
            if live.exited.is_set():
                return
            if live.state.status != "running":
                continue
            result = await self._probe(live, check)
            if live.exited.is_set():
                return
            early = asyncio.get_running_loop().time() - began < period
            self._judge(live, check, result, counts=not (early and _starting(live)))

    async def _probe(self, live: Live, check: Healthcheck) -> HealthResult:
        words = check.test[1:] if check.test[0] == "CMD" else ("/bin/sh", "-c", check.test[1])
        seconds = (check.timeout or TIMEOUT) / SECOND
        start, output = clock.now(), b""
        try:
            exec_id = await self._execs.create(live.id, ExecSpec(words, attach_stdout=True, attach_stderr=True))
            try:
                stream = await self._execs.start(exec_id)
                assert stream is not None, "it is not detached"
                async with asyncio.timeout(seconds):
                    output = await _collect(stream)
                    code = await self._execs.wait(exec_id)
            except TimeoutError:
                await self._execs.end(exec_id)
                code, output = -1, f"Health check exceeded timeout ({seconds:g}s)".encode()
            finally:
                live.execs.pop(exec_id, None)
        except SeawallError as error:
            code, output = -1, error.message.encode()
        return HealthResult(start, clock.now(), code, output.decode("utf-8", "replace"))

    def _judge(self, live: Live, check: Healthcheck, result: HealthResult, *, counts: bool) -> None:
        before = live.state.health or Health(STARTING)
        log = (*before.log, result)[-KEPT:]
        if result.exit_code == 0:
            after = Health(HEALTHY, 0, log)
        else:
            streak = before.failing_streak + (1 if counts else 0)
            failed = streak >= (check.retries or RETRIES)
            after = Health(UNHEALTHY if failed else before.status, streak, log)
        live.change(health=after)
        if after.status != before.status:
            self._news.tell(live.container, f"health_status: {after.status}")


def _starting(live: Live) -> bool:
    return live.state.health is None or live.state.health.status == STARTING


async def _unless_ended(live: Live, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(live.exited.wait(), seconds)


async def _collect(stream: socket.socket) -> bytes:
    """The text of all frames, the first 4096 bytes of it."""
    loop = asyncio.get_running_loop()
    pending, output = b"", b""
    with stream:
        while data := await loop.sock_recv(stream, 65536):
            pending += data
            while len(pending) >= 8 and len(pending) >= 8 + (size := int.from_bytes(pending[4:8])):
                output = (output + pending[8 : 8 + size])[: MAX_OUTPUT + 1]
                pending = pending[8 + size :]
    return output if len(output) <= MAX_OUTPUT else output[: MAX_OUTPUT - 3] + b"..."
