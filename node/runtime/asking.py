"""Handing a filter's listener to the agent that answers for system calls (seccomp_unotify(2); config-linux.md,
"The Container Process State"). The parent's half; the child's is in `becoming`.

The child says {"asking": true} with the reading end of a full pipe, loads its filter, says {"listener": number} and
writes to the pipe: it stands still until the agent has the listener, since what it did next might be asked for.
"""

from __future__ import annotations

import _socket
import os

from node.linux import syscalls
from node.runtime import jsontext


def agent(profile: object, state: dict[str, object]) -> Agent | None:
    """Whoever `profile` (linux.seccomp) names; None: nobody is asked."""
    return Agent(profile, state) if isinstance(profile, dict) and profile.get("listenerPath") else None


class Agent:
    """Who is to be asked, and what about the container they are told."""

    def __init__(self, profile: dict[str, object], state: dict[str, object]) -> None:
        """`profile`: linux.seccomp. `state`: runtime.md, State; its pid and status are set here."""
        self._path = str(profile.get("listenerPath") or "")
        self._metadata = str(profile.get("listenerMetadata") or "")
        self._state = state
        self._channel: _socket.socket | None = None
        self._gate = -1

    def expect(self, gate: int) -> None:
        """The child is about to load its filter. Raises OSError when nobody is there to answer."""
        self._gate = gate
        self._channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._channel.connect(self._path)
        except OSError as error:
            self.close()
            reason = os.strerror(error.errno or 0).lower()
            raise OSError(error.errno, f"seccomp agent {self._path}: {reason}") from error

    def give(self, pid: int, number: int, status: str) -> None:
        """Descriptor `number` of process `pid` to the agent; the child goes on. Raises OSError."""
        assert self._channel is not None
        pidfd = os.pidfd_open(pid)
        listener = syscalls.pidfd_getfd(pidfd, number)
        told = {"ociVersion": self._state["ociVersion"], "fds": ["seccompFd"], "pid": pid, "metadata": self._metadata,
                "state": {**self._state, "status": status, "pid": pid}}
        try:
            data = jsontext.dumps(told).encode()
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, "little"))]
            sent = self._channel.sendmsg([data], rights)
            if sent < len(data):
                self._channel.sendall(data[sent:])
            # Until the child's own word has come, or the child has gone: closed earlier the pipe would break.
            while (part := os.read(self._gate, 1 << 16)) and not part.endswith(b"."):
                continue
        finally:
            os.close(listener)
            os.close(pidfd)
            self.close()

    def close(self) -> None:
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1
        if self._channel is not None:
            self._channel.close()
            self._channel = None
