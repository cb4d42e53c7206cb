"""What this room needs of its neighbours, as Protocols, so that its state machine can be tested without a kernel.

The composition root gives the real ones; `tests/node/containers/fakes.py` holds fakes.
"""

from typing import Any, Protocol


class ExitStatus(Protocol):
    """How a process ended."""

    @property
    def code(self) -> int: ...
    @property
    def oom_killed(self) -> bool: ...
    @property
    def finished_at(self) -> str: ...
    @property
    def error(self) -> str: ...


class StreamSocket(Protocol):
    """A connected AF_UNIX stream: raw bytes of a tty, Docker's frames without one; what is written goes to stdin."""

    def close(self) -> None: ...


class Process(Protocol):
    """The container's own process. Every method raises MonitorGone when the monitor has died."""

    @property
    def pid(self) -> int: ...
    async def start(self) -> None: ...
    async def signal(self, number: int) -> None: ...
    async def kill_all(self) -> None: ...
    async def wait(self) -> ExitStatus: ...
    async def close(self) -> None: ...


class Streams(Protocol):
    """The standard streams of the container's process or of an exec."""

    async def attach(self, *, stdin: bool, stdout: bool, stderr: bool, exec_id: str | None = None) -> StreamSocket: ...
    async def resize(self, height: int, width: int, exec_id: str | None = None) -> None: ...


class RunsExecs(Protocol):
    """Further processes in a running container."""

    async def exec(self, exec_id: str, process: dict[str, Any], *, tty: bool, stdin: bool) -> int: ...
    async def exec_start(self, exec_id: str) -> int: ...
    async def exec_wait(self, exec_id: str) -> ExitStatus: ...


class MonitorHandle(Process, Streams, RunsExecs, Protocol):
    """A container's monitor (node.containers.monitor.Monitor)."""
