"""The daemon's side of a container's monitor (node.runtime.monitor): requests over its socket, and its last word.

Any number of daemons may come and go; the monitor keeps the container. `read_exit` reads what it left on disk.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from node.errors import InternalError
from ocispec.errors import Unavailable

SOCKET = "monitor.sock"
EXIT = "exit.json"
MAX_FRAME = 8 * 1024 * 1024


class MonitorGone(Unavailable):
    """The monitor is not there (any more), or the process that was asked for is not: it has ended."""


class StartFailed(InternalError):
    """The process could not be run. `kind`: not-found, permission, is-directory or other; the words are runc's."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class ExitStatus:
    code: int
    """0–255; 128 + the signal's number when one ended the process."""

    oom_killed: bool
    finished_at: str
    """RFC 3339 with nanoseconds, UTC."""

    error: str = ""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(int(value["exit_code"]), bool(value.get("oom_killed", False)), str(value["finished_at"]),
                   str(value.get("error", "")))


@dataclass(frozen=True, slots=True)
class HeldExec:
    """An exec as its monitor knows it."""

    id: str
    about: str
    pid: int
    exit_code: int | None
    """None: it runs."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        status = value["status"]
        code = None if status is None else int(status["exit_code"])
        return cls(str(value["exec"]), str(value["about"]), int(value["pid"]), code)


def read_exit(state_dir: Path) -> ExitStatus | None:
    """What the monitor wrote when its container ended; None when it wrote nothing."""
    try:
        return ExitStatus.from_json(json.loads((state_dir / EXIT).read_bytes()))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def pack(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


async def receive(channel: socket.socket) -> dict[str, Any]:
    """One frame and not a byte more, since raw bytes may follow it. Raises MonitorGone."""
    loop = asyncio.get_running_loop()

    async def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = await loop.sock_recv(channel, count - len(data))
            except OSError as error:
                raise MonitorGone(f"the container's monitor is gone: {error.strerror}") from error
            if not part:
                raise MonitorGone("the container's monitor is gone")
            data += part
        return data

    (length,) = struct.unpack(">I", await exactly(4))
    if length > MAX_FRAME:
        raise MonitorGone(f"the container's monitor sent a frame of {length} bytes")
    try:
        message: dict[str, Any] = json.loads(await exactly(length))
    except ValueError as error:
        raise MonitorGone("the container's monitor speaks another language") from error
    return message


async def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    """Raises MonitorGone."""
    try:
        await asyncio.get_running_loop().sock_sendall(channel, pack(message))
    except OSError as error:
        raise MonitorGone(f"the container's monitor is gone: {error.strerror}") from error


async def dial(state_dir: Path) -> socket.socket:
    """A connected, non-blocking socket. Raises MonitorGone."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        folder = os.open(state_dir, os.O_DIRECTORY | os.O_PATH | os.O_CLOEXEC)
        try:
            # sun_path holds 107 bytes and a state folder may be deeper: go through the descriptor.
            await asyncio.get_running_loop().sock_connect(channel, f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)
    except OSError as error:
        channel.close()
        raise MonitorGone(f"the container's monitor does not answer: {error.strerror}") from error
    except BaseException:
        channel.close()
        raise
    return channel


class Monitor:
    """One connection for requests; every attach opens another. Made by `connect` and by `Launcher.create`.

    Every method raises MonitorGone when there is nobody to ask any more.
    """

    def __init__(self, state_dir: Path, channel: socket.socket, info: dict[str, Any]) -> None:
        self._state_dir = state_dir
        self._channel = channel
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next = 0
        self._gone: MonitorGone | None = None
        self._sending = asyncio.Lock()
        self.pid = int(info["pid"])
        self.started = bool(info.get("started", False))
        self.warnings = [str(warning) for warning in info.get("warnings", ())]
        self._reader = asyncio.create_task(self._read(), name=f"monitor {state_dir.name[:12]}")

    @classmethod
    async def connect(cls, state_dir: Path) -> Self:
        """Raises MonitorGone."""
        channel = await dial(state_dir)
        try:
            await _send(channel, {"op": "info", "id": 0})
            return cls(state_dir, channel, _checked(await receive(channel)))
        except BaseException:
            channel.close()
            raise

    async def start(self) -> None:
        """Run the command. Raises StartFailed, MonitorGone."""
        await self._ask("start")
        self.started = True

    async def signal(self, number: int) -> None:
        """To the container's own process."""
        await self._ask("signal", number=number)

    async def kill_all(self) -> None:
        """SIGKILL to everything in the container; `wait` says when it is done. Nothing to kill is no error."""
        with contextlib.suppress(MonitorGone):
            await self._ask("kill_all")

    async def wait(self) -> ExitStatus:
        """When the container has ended and its output is in the log and with the attached. Raises MonitorGone."""
        try:
            return ExitStatus.from_json(await self._ask("wait"))
        except MonitorGone:
            # It may have ended in order just before the question arrived; then its last word is on disk.
            status = await asyncio.to_thread(read_exit, self._state_dir)
            if status is None:
                raise
            return status

    async def resize(self, height: int, width: int, exec_id: str | None = None) -> None:
        await self._ask("resize", rows=height, columns=width, exec=exec_id)

    async def attach(self, *, stdin: bool, stdout: bool, stderr: bool, exec_id: str | None = None) -> socket.socket:
        """A non-blocking stream: raw bytes of a terminal, Docker's frames without one; what is sent is stdin and
        shutdown(SHUT_WR) its end. Raises MonitorGone when the process has ended."""
        channel = await dial(self._state_dir)
        try:
            await _send(channel, {"op": "attach", "id": 0, "stdin": stdin, "stdout": stdout, "stderr": stderr,
                                  "exec": exec_id})
            _checked(await receive(channel))
        except BaseException:
            channel.close()
            raise
        return channel

    async def exec(
        self, exec_id: str, process: dict[str, Any], *, tty: bool, stdin: bool, about: str = ""
    ) -> int:
        """Make a further process, ready to run `process` (an OCI process object); gives its pid on the host.

        `about` is kept as it is, for `execs`. Raises StartFailed when the command cannot be found or executed.
        """
        whole = {**process, "terminal": tty}
        answer = await self._ask("exec", exec=exec_id, process=whole, stdin=stdin, about=about)
        return int(answer["pid"])

    async def exec_start(self, exec_id: str) -> int:
        return int((await self._ask("exec_start", exec=exec_id))["pid"])

    async def exec_wait(self, exec_id: str) -> ExitStatus:
        return ExitStatus.from_json(await self._ask("exec_wait", exec=exec_id))

    async def exec_signal(self, exec_id: str, number: int) -> None:
        """Raises MonitorGone when it has ended."""
        await self._ask("exec_signal", exec=exec_id, number=number)

    async def held_execs(self) -> list[HeldExec]:
        """All that were started and are remembered; none from a monitor of an older Seawall, which does not say."""
        try:
            answer = await self._ask("execs")
            return [HeldExec.from_json(item) for item in answer["execs"]]
        except (StartFailed, KeyError, TypeError, ValueError):
            return []

    async def close(self) -> None:
        """Let go of the monitor; the container goes on (one that was never started ends)."""
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        # A signal that was on its way when the container ended gets no answer any more, and must not wait for it.
        self._lost(MonitorGone("the container has ended"))
        self._channel.close()

    async def _ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        if self._gone is not None:
            raise MonitorGone(self._gone.message)
        self._next += 1
        number = self._next
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            async with self._sending:
                # Half a frame must never stay behind, whoever stops waiting for the answer.
                await asyncio.shield(_send(self._channel, {"op": operation, "id": number, **fields}))
            return _checked(await answer)
        finally:
            self._answers.pop(number, None)
            answer.cancel()

    async def _read(self) -> None:
        try:
            while True:
                message = await receive(self._channel)
                future = self._answers.get(int(message.get("id", 0)))
                if future is not None and not future.done():
                    future.set_result(message)
        except MonitorGone as error:
            self._lost(error)

    def _lost(self, error: MonitorGone) -> None:
        self._gone = error
        for future in self._answers.values():
            if not future.done():
                future.set_exception(MonitorGone(error.message))


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if not answer.get("error"):
        return answer
    kind = str(answer.get("kind", "other"))
    if kind == "gone":
        raise MonitorGone(str(answer["error"]))
    raise StartFailed(kind, str(answer["error"]))
