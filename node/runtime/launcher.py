"""The zygote: one small process, started once and kept warm, whose forks become monitors.

It never runs a thread, imports almost nothing, and executes from a read-only mount of its own interpreter, so that
nothing inside a container can write to the file that /proc/<pid>/exe names (CVE-2019-5736). On its socket
(SOCK_SEQPACKET, descriptor given as an argument) come launch requests with the descriptors that go with them, the
first of which becomes the monitor's first connection. It ends when the socket closes; monitors go on without it.
"""

from __future__ import annotations

import array
import gc
import json
import os
import signal
import socket
import sys

from node.linux import capabilities, cgroups, seccomp, syscalls
from node.runtime import monitor, spec
from node.runtime.birth import Confinement
from node.runtime.wire import frame

HOST = "SEAWALL_HOST_MOUNTS"
MAX_REQUEST = 256 * 1024
MAX_FDS = 250
MAX_PROGRAMS = 64


def main(argument: str) -> None:
    control = socket.socket(fileno=int(argument))
    if HOST not in os.environ:
        _again_from_a_readonly_mount(control.fileno())
    host = int(os.environ.pop(HOST))
    os.set_inheritable(host, False)
    os.set_inheritable(control.fileno(), False)
    syscalls.set_name("seawall-launch")
    # Like the children it will have: no container with CAP_SYS_PTRACE may look into it.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended monitors are reaped by the kernel
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    job = Launcher(control, host).serve()
    if job is not None:
        # From here on this is a fork. No frame below holds the job, so that the monitor can let it go.
        monitor.live(job)


def _again_from_a_readonly_mount(control: int) -> None:
    executable = os.path.realpath(sys.executable)
    host = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    os.environ[HOST] = str(host)
    os.set_inheritable(host, True)
    os.set_inheritable(control, True)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=syscalls.MS_SLAVE | syscalls.MS_REC)
    syscalls.mount(executable, executable, flags=syscalls.MS_BIND)
    syscalls.mount("", executable, flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)
    os.execv(executable, [executable, *sys.orig_argv[1:]])


class Launcher:
    def __init__(self, control: socket.socket, host: int) -> None:
        self._control = control
        self._host = host
        self._groups = cgroups.detect()
        self._programs: dict[str, bytes] = {}
        self._available = frozenset(capabilities.current()["permitted"])

    def serve(self) -> monitor.Job | None:
        """Returns None when the daemon is gone, and in every fork the job of the monitor it is to become."""
        # Nothing that exists now is ever collected: the pages stay shared with every monitor.
        gc.collect()
        gc.freeze()
        while True:
            data, ancillary, _flags, _address = self._control.recvmsg(MAX_REQUEST, socket.CMSG_SPACE(4 * MAX_FDS))
            if not data:
                return None
            fds = _descriptors(ancillary)
            if fds:
                job = self._launch(data, socket.socket(fileno=fds[0]), fds[1:])
                if job is not None:
                    return job

    def _launch(self, data: bytes, channel: socket.socket, fds: list[int]) -> monitor.Job | None:
        """The job in the fork; None in the launcher itself."""
        try:
            request = json.loads(data)
            config = spec.read(os.path.join(str(request["bundle"]), "config.json"))
            job = monitor.Job(request, channel, config, self._groups, self._confinement(config), self._host)
            if os.fork() == 0:
                self._control.close()
                return job
        except Exception as error:
            # Whatever it was, the next container must still find a launcher.
            _refuse(channel, str(error) or type(error).__name__)
        channel.close()
        for fd in fds:
            os.close(fd)
        return None

    def _confinement(self, config: spec.Config) -> Confinement:
        """The compiled filter is kept: the same few profiles come again and again."""
        if config.seccomp is None:
            return Confinement(None, 0, self._available)
        key = json.dumps(config.seccomp, sort_keys=True)
        if key not in self._programs:
            if len(self._programs) >= MAX_PROGRAMS:
                self._programs.clear()
            self._programs[key] = seccomp.compile_profile(config.seccomp)
        return Confinement(self._programs[key], seccomp.filter_flags(config.seccomp), self._available)


def _refuse(channel: socket.socket, text: str) -> None:
    try:
        channel.sendall(frame({"id": 0, "error": text, "kind": "other"}))
    except OSError:
        return


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    return list(fds)
