"""Further processes in a running container: created, started once, known until their container is removed."""

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from node.containers.bundle.config import exec_process
from node.containers.bundle.rootfiles import LayeredRoot
from node.containers.bundle.users import resolve_user
from node.containers.codec import decode, encode
from node.containers.errors import CannotInvoke, CannotStart, InvalidSpec, NoSuchExec, NotRunning, WrongState
from node.containers.live import Live
from node.containers.model import Exec, ExecSpec, Status
from node.containers.monitor import MonitorGone, StartFailed
from node.containers.news import News
from node.containers.parts import MonitorHandle
from node.containers.startup import EXIT_CODES
from node.containers.tasks import Tasks

LOST = 137
KEPT = 256
MOST_WAITING = 512
"""Execs of one container that were made and not started: each holds the environment it was given."""

START_SECONDS = 10.0
"""That a resize waits for an exec to be started."""


class Execs:
    def __init__(
        self,
        find: Callable[[str], Live],
        all_live: Callable[[], list[Live]],
        news: News,
        tasks: Tasks,
    ) -> None:
        self._find = find
        self._all_live = all_live
        self._news = news
        self._tasks = tasks

    async def create(self, name: str, spec: ExecSpec) -> str:
        """Raises NoSuchContainer, NotRunning, WrongState (paused), InvalidSpec."""
        live = self._find(name)
        _running_monitor(live)
        if not spec.cmd or not spec.cmd[0]:
            raise InvalidSpec("No exec command specified")
        if any("\0" in word for word in (*spec.cmd, *spec.env, spec.workdir, spec.user)):
            raise InvalidSpec("an exec's words cannot hold a NUL")
        exec_id = secrets.token_hex(32)
        _forget_oldest(live.execs)
        live.execs[exec_id] = Exec(exec_id, live.id, spec)
        self._tell(live, f"exec_create: {' '.join(spec.cmd)}", exec_id)
        return exec_id

    def get(self, exec_id: str) -> Exec:
        """Raises NoSuchExec."""
        return self._owner(exec_id).execs[exec_id]

    async def start(
        self, exec_id: str, *, detach: bool = False, console_size: tuple[int, int] = (0, 0)
    ) -> socket.socket | None:
        """The attached stream, or None when detached. `console_size`: height and width of its terminal, in place of
        those it was made with. Raises NoSuchExec, WrongState, CannotInvoke (the exec then has exit code 126 or 127),
        CannotStart."""
        live = self._owner(exec_id)
        held = live.execs[exec_id]
        if held.running:
            raise WrongState(f"Error: Exec command {exec_id} is already running")
        if held.exit_code is not None:
            raise WrongState(f"Error: Exec command {exec_id} has already run")
        monitor = _running_monitor(live)
        live.execs[exec_id] = replace(held, running=True)
        try:
            spec = replace(held.spec, console_size=console_size) if all(console_size) else held.spec
            return await self._start(live, spec, exec_id, monitor, detach=detach)
        except BaseException as error:
            code = error.exit_code if isinstance(error, CannotInvoke) else 126
            self._finish(live, exec_id, code)
            raise

    async def _start(
        self, live: Live, spec: ExecSpec, exec_id: str, monitor: MonitorHandle, *, detach: bool
    ) -> socket.socket | None:
        root = LayeredRoot([Path(f"/proc/{live.state.pid}/root")])
        own = live.container.spec
        user = await asyncio.to_thread(
            resolve_user, spec.user or own.user, () if spec.user else own.security.group_add, root.read
        )
        process = exec_process(live.container, spec, user)
        attached = None
        try:
            stdin = spec.attach_stdin and not detach
            await monitor.exec(exec_id, process, tty=spec.tty, stdin=stdin, about=encode(_kept(spec)))
            if not detach:
                attached = await monitor.attach(
                    stdin=spec.attach_stdin, stdout=spec.attach_stdout, stderr=spec.attach_stderr, exec_id=exec_id
                )
            pid = await monitor.exec_start(exec_id)
        except BaseException as error:
            if attached is not None:
                attached.close()
            raise _translated(error) from error
        live.execs[exec_id] = replace(live.execs[exec_id], pid=pid)
        self._tell(live, f"exec_start: {' '.join(spec.cmd)}", exec_id)
        self._tasks.spawn(self._watch(live, exec_id, monitor), f"watch exec {exec_id}")
        return attached

    def detached(self, exec_id: str) -> None:
        """Who was attached left by the detach keys."""
        self._tell(self._owner(exec_id), "exec_detach", exec_id)

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Waits for its start a moment: a client's first resize is on its way when the start is. Raises NotRunning."""
        live = self._owner(exec_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while (held := live.execs.get(exec_id)) and held.exit_code is None and not held.pid:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # what is waited for is a moment of `_start`
        if held is None or not held.pid:
            raise NotRunning(live.id)
        await _running_monitor(live).resize(height, width, exec_id)

    async def wait(self, exec_id: str) -> int:
        """Until it ended; its exit code."""
        live = self._owner(exec_id)
        while (held := live.execs[exec_id]).exit_code is None:
            changed = live.exec_ended.setdefault(exec_id, asyncio.Event())
            await changed.wait()
        return held.exit_code

    async def end(self, exec_id: str) -> None:
        """SIGKILL to the exec's process; one that has ended is no error."""
        live = self._owner(exec_id)
        if live.monitor is not None and live.execs[exec_id].running:
            with contextlib.suppress(MonitorGone):
                await live.monitor.exec_signal(exec_id, signal.SIGKILL)

    async def adopt(self, live: Live, monitor: MonitorHandle) -> None:
        """The execs that an earlier daemon started in a container that is taken over: known again, their ends heard."""
        try:
            found = await monitor.held_execs()
        except MonitorGone:
            return
        for held in found:
            try:
                spec = decode(ExecSpec, held.about)
            except (ValueError, TypeError, KeyError, AttributeError):
                spec = ExecSpec(())
            running = held.exit_code is None
            live.execs[held.id] = Exec(held.id, live.id, spec, running, held.exit_code, held.pid if running else 0)
            if running:
                self._tasks.spawn(self._watch(live, held.id, monitor), f"watch exec {held.id}")

    async def _watch(self, live: Live, exec_id: str, monitor: MonitorHandle) -> None:
        try:
            code = (await monitor.exec_wait(exec_id)).code
        except MonitorGone:
            code = LOST
        self._finish(live, exec_id, code)
        self._tell(live, "exec_die", exec_id, {"exitCode": str(code)})

    def _finish(self, live: Live, exec_id: str, code: int) -> None:
        # A health check that took too long was forgotten before it ended.
        if (held := live.execs.get(exec_id)) is not None:
            live.execs[exec_id] = replace(held, running=False, exit_code=code, pid=0)
        if (waiting := live.exec_ended.pop(exec_id, None)) is not None:
            waiting.set()

    def _owner(self, exec_id: str) -> Live:
        for live in self._all_live():
            if exec_id in live.execs:
                return live
        raise NoSuchExec(exec_id)

    def _tell(self, live: Live, action: str, exec_id: str, attributes: dict[str, str] | None = None) -> None:
        self._news.tell(live.container, action, {"execID": exec_id, **(attributes or {})})


def _kept(spec: ExecSpec) -> ExecSpec:
    """What the monitor keeps of it: its environment may be long or secret, and inspect does not show it."""
    return replace(spec, env=())


def _forget_oldest(execs: dict[str, Exec]) -> None:
    """A container that lives for months sees many: the last finished ones stay to be asked for their exit code."""
    finished = [exec_id for exec_id, held in execs.items() if held.exit_code is not None]
    waiting = [exec_id for exec_id, held in execs.items() if held.exit_code is None and not held.running]
    for exec_id in (*finished[: max(0, len(finished) - KEPT)], *waiting[: max(0, len(waiting) - MOST_WAITING)]):
        del execs[exec_id]


def _running_monitor(live: Live) -> MonitorHandle:
    if live.state.status is Status.PAUSED:
        raise WrongState(f"Container {live.id} is paused, unpause the container before exec")
    if live.state.status is Status.RESTARTING:
        raise WrongState(f"Container {live.id} is restarting, wait until the container is running")
    if not live.state.running or live.monitor is None:
        raise NotRunning(live.id)
    return live.monitor


def _translated(error: BaseException) -> BaseException:
    if isinstance(error, StartFailed):
        message = f"OCI runtime exec failed: exec failed: unable to start container process: {error.message}"
        code = EXIT_CODES.get(error.kind)
        return CannotStart(message) if code is None else CannotInvoke(message, code)
    if isinstance(error, MonitorGone):
        return CannotStart("the container ended while the command was being started")
    return error
