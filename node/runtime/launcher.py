"""The zygote: one small process, started once and kept warm, whose forks become monitors.

It never runs a thread, imports almost nothing, and executes from a read-only mount of its own interpreter, so that
nothing inside a container can write to the file that /proc/<pid>/exe names (CVE-2019-5736). On its socket
(SOCK_SEQPACKET, descriptor given as an argument) come launch requests with the descriptors that go with them, the
first of which becomes the monitor's first connection. It ends when the socket closes; monitors go on without it.

One fork, the spare, waits ready for the next request, so that no container waits for a fork of the launcher.
"""

from __future__ import annotations

import array
import gc
import json
import os
import signal
import socket
import sys

from node.linux import capabilities, cgroups, seccomp, syscalls  # noqa: F401 -- the compiler, shared with every spare
from node.linux.seccomp_cache import Programs
from node.runtime import monitor, pairs, place, spec
from node.runtime.birth import Confinement
from node.runtime.job import Job

HOST = "SEAWALL_HOST_MOUNTS"
MAX_REQUEST = 256 * 1024
MAX_FDS = 250


def main(argument: str, cgroup_driver: str = "cgroupfs") -> None:
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
    job = Launcher(control, host, cgroup_driver).serve()
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
    def __init__(self, control: socket.socket, host: int, cgroup_driver: str) -> None:
        self._control = control
        self._host = host
        self._groups = cgroups.detect(driver=cgroup_driver)
        self._programs = Programs()
        self._available = frozenset(capabilities.current()["permitted"])
        self._spare: socket.socket | None = None

    def serve(self) -> Job | None:
        """Returns None when the daemon is gone, and in a fork the job of the monitor it is to become."""
        # Nothing that exists now is ever collected: the pages stay shared with every monitor.
        gc.collect()
        gc.freeze()
        gc.disable()
        while True:
            if self._spare is None and (waiting := self._fork_spare()) is not None:
                return self._become(waiting)
            data, fds = _receive(self._control)
            if not data:
                return None
            if data.startswith(pairs.REQUEST):
                self._make_namespaces(data, fds)
            elif fds and (waiting := self._hand_over(data, fds)) is not None:
                return self._become(waiting)

    # -- in the launcher

    def _fork_spare(self) -> socket.socket | None:
        """In the fork: the socket its job will come by. None in the launcher."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            ours.close()
            self._control.close()
            return theirs
        theirs.close()
        self._spare = ours
        return None

    def _hand_over(self, data: bytes, fds: list[int]) -> socket.socket | None:
        """Give the request to the spare, or to a new one when somebody killed it."""
        for _ in range(2):
            if self._spare is None and (waiting := self._fork_spare()) is not None:
                for fd in fds:
                    os.close(fd)  # they come again by the socket
                return waiting
            assert self._spare is not None
            try:
                self._spare.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
                break
            except OSError:
                continue
            finally:
                self._spare.close()
                self._spare = None
        for fd in fds:
            os.close(fd)
        self._learn(data)
        return None

    def _make_namespaces(self, request: bytes, fds: list[int]) -> None:
        if fds and os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            pairs.answer(request, socket.socket(fileno=fds[0]))
        for fd in fds:
            os.close(fd)

    def _learn(self, data: bytes) -> None:
        """Keep the compiled filter of this container for the spares to come."""
        try:
            self._confinement(_read(json.loads(data)))
        except Exception:
            # Whatever is wrong with it, the spare says so to who asked, and the next container needs a launcher.
            return

    # -- in the spare

    def _become(self, waiting: socket.socket) -> Job | None:
        place.stand_alone()
        data, fds = _receive(waiting)
        waiting.close()
        if not data:
            return None
        channel = socket.socket(fileno=fds[0])
        try:
            request = json.loads(data)
            config = _read(request)
            return Job(request, channel, fds[1:], config, self._groups, self._confinement(config), self._host)
        except Exception as error:
            monitor.refuse(channel, str(error) or type(error).__name__)
            return None

    def _confinement(self, config: spec.Config) -> Confinement:
        if config.seccomp is None:
            return Confinement(None, 0, self._available, config.personality)
        program, flags = self._programs.of(config.seccomp)
        return Confinement(program, flags, self._available, config.personality)


def _read(request: dict[str, object]) -> spec.Config:
    return spec.read(os.path.join(str(request["bundle"]), "config.json"))


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it; no bytes at the end."""
    data, ancillary, _flags, _address = channel.recvmsg(MAX_REQUEST, socket.CMSG_SPACE(4 * MAX_FDS))
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    return data, list(fds)
