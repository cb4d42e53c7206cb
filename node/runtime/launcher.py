"""The zygote: one small process, started once and kept warm, whose forks become monitors.

It never runs a thread, imports almost nothing, and executes from a read-only mount of its own interpreter, so that
nothing inside a container can write to the file that /proc/<pid>/exe names (CVE-2019-5736). On its socket
(SOCK_SEQPACKET, descriptor given as an argument) come launch requests with the descriptors that go with them, the
first of which is the channel for the answer. It ends when the socket closes; monitors go on without it.
"""

from __future__ import annotations

import array
import gc
import hashlib
import json
import os
import signal
import socket
import sys

from node.linux import cgroups, seccomp, syscalls
from node.runtime import monitor, spec
from node.runtime.wire import frame

STAGE = "SEAWALL_LAUNCHER_STAGE"
MAX_REQUEST = 256 * 1024
MAX_FDS = 250


def main(argument: str) -> None:
    control = socket.socket(fileno=int(argument))
    if os.environ.get(STAGE) != "2":
        _again_from_a_readonly_mount(control.fileno())
    os.set_inheritable(control.fileno(), False)
    syscalls.set_name("seawall-launch")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended monitors are reaped by the kernel
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Launcher(control).serve()


def _again_from_a_readonly_mount(control: int) -> None:
    executable = os.path.realpath(sys.executable)
    os.environ[STAGE] = "2"
    os.set_inheritable(control, True)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=syscalls.MS_SLAVE | syscalls.MS_REC)
    syscalls.mount(executable, executable, flags=syscalls.MS_BIND)
    syscalls.mount("", executable, flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)
    os.execv(executable, [executable, *sys.orig_argv[1:]])


class Launcher:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._groups = cgroups.detect()
        self._programs: dict[bytes, bytes] = {}

    def serve(self) -> None:
        self._warm()
        # Nothing that exists now is ever collected: the pages stay shared with every monitor.
        gc.collect()
        gc.freeze()
        while True:
            data, ancillary, _flags, _address = self._control.recvmsg(MAX_REQUEST, socket.CMSG_SPACE(4 * MAX_FDS))
            if not data:
                return
            fds = _descriptors(ancillary)
            if fds:
                channel = socket.socket(fileno=fds[0])
                self._launch(json.loads(data), channel, fds[1:])

    @staticmethod
    def _warm() -> None:
        """What the first launch would otherwise import or build, so that every fork shares it."""
        import encodings.idna

        assert encodings.idna is not None

    def _launch(self, request: dict[str, object], channel: socket.socket, fds: list[int]) -> None:
        try:
            config = spec.read(os.path.join(str(request["bundle"]), "config.json"))
            program = self._program(config)
            if os.fork() == 0:
                self._control.close()
                monitor.live(request, channel, config, self._groups, program, fds)
        except (OSError, ValueError, KeyError) as error:
            channel.sendall(frame({"error": str(error), "kind": "other"}))
        finally:
            channel.close()
            for fd in fds:
                os.close(fd)

    def _program(self, config: spec.Config) -> bytes | None:
        """The compiled filter: the same few profiles come again and again."""
        if config.seccomp is None:
            return None
        key = hashlib.sha256(json.dumps(config.seccomp, sort_keys=True).encode()).digest()
        if key not in self._programs:
            if len(self._programs) >= 64:
                self._programs.clear()
            self._programs[key] = seccomp.compile_profile(config.seccomp)
        return self._programs[key]


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    return list(fds)
