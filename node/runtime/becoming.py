"""The last part of every birth: identity, command, leave to go, the filter, execve (`become`)."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import termios

from node.linux import capabilities, scheduling, seccomp_load
from node.linux import syscalls as sys
from node.runtime import command, console, jsontext, labels
from node.runtime.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from node.runtime.allowances import Allowances
    from node.runtime.console import Stdio
    from node.runtime.processspec import Process


_F_GETPIPE_SZ = 1032


@record
class Confinement:
    """The seccomp program (None: unconfined) with its flags for seccomp(2), and the capabilities that this host gives
    us: what is not among them no process can be given. `personality`: see personality(2)."""

    program: bytes | None
    flags: int
    available: frozenset[str]
    personality: int | None = None


class Sync:
    """The child's end of the channel to its monitor: reports, and waits for leave to go on.

    Closed by a successful execve, which is how the monitor learns of it.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def report(self, message: dict[str, object], fds: tuple[int, ...] = ()) -> None:
        rights = b"".join(fd.to_bytes(4, "little") for fd in fds)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
        self._channel.sendmsg([jsontext.dumps(message).encode()], ancillary)

    def fileno(self) -> int:
        return self._channel.fileno()

    def wait_for(self, word: bytes) -> None:
        """Until the monitor says it; ends the process when the monitor is gone."""
        if self._channel.recv(16) != word:
            os._exit(1)


class Streams:
    """What the process has open when it begins."""

    def __init__(self, stdio: Stdio | None, terminal: tuple[int, int] | None, *, given_away: bool, preserve: int,
                 listening: int) -> None:
        """`terminal`: master and slave. `given_away`: pipes belong to the user already."""
        self._stdio, self._terminal, self._given_away = stdio, terminal, given_away
        self._preserve, self._listening = preserve, listening

    def take(self, process: Process, *, lead: bool) -> int | None:
        """The master of a terminal, for the monitor."""
        return console.take(process, self._stdio, self._terminal, lead=lead, given_away=self._given_away)

    def environment(self, process: Process) -> dict[str, str]:
        env = dict(entry.split("=", 1) for entry in process.env)
        if self._listening:
            env.update(LISTEN_FDS=str(self._listening), LISTEN_PID=str(os.getpid()))
        return env

    def close_the_rest(self) -> None:
        """Everything else closes at execve, the sync channel too; nothing of the host leaks (CVE-2024-21626)."""
        sys.close_on_exec_from(3 + self._preserve)


def become(
    sync: Sync, process: Process, confinement: Confinement, streams: Streams, allowed: Allowances,
    *, outside: bool = False, proc: int = -1, hooks_before: Callable[[], None] | None = None,
    alone: bool = False,
) -> None:
    """Identity, command, leave to go, the filter, execve. `hooks_before`: what is to be run first after the leave.

    Whatever is called under the filter it must permit, so it is loaded as late as can be. Without no_new_privs that
    takes CAP_SYS_ADMIN, which nobody in the container may find in us: only where we are `alone` in our pid namespace
    do we keep it until the end.
    """
    master = streams.take(process, lead=not outside)
    warnings = allowed.warnings
    allowed.settle()
    if confinement.personality is not None:
        scheduling.set_personality(confinement.personality)
    os.umask(0o022 if process.umask is None else process.umask)
    inside = _enter_folder(process.cwd, last=False)
    keep = ("CAP_SYS_ADMIN",) if confinement.program is not None and not process.no_new_privileges else ()
    _take_identity(process, confinement.available, keep)
    if not inside:
        _enter_folder(process.cwd, last=True)
    # A folder outside the root reads as "(unreachable)/…": somebody handed us a descriptor of the host.
    if not sys.getcwd().startswith("/"):
        raise OSError(errno.EPERM, f"the working folder {process.cwd} lies outside the container")
    # Without a process the container can be created, not started.
    path = command.find(process.args[0], streams.environment(process)) if process.args else ""
    # What is opened after this closes at execve of itself.
    streams.close_the_rest()
    if keep and not alone:
        _load_with(keep, sync, process, confinement)
    if outside:
        _enter_pids(sync, warnings, master)
    else:
        sync.report({"ready": True, "warnings": warnings}, () if master is None else (master,))
    if master is not None:
        os.close(master)
    sync.wait_for(b"go")
    if not process.args:
        raise command.CannotExecute("other", "config.json has no process: there is nothing to start")
    allowed.settle_last(process)
    if hooks_before is not None:
        hooks_before()
    if labels.wanted(process):
        labels.at_execve(process, proc)
    env = streams.environment(process)  # only by now this is the process that it speaks of
    if keep and alone:
        _load_with(keep, sync, process, confinement)
    elif confinement.program is not None and not keep:
        _load(confinement.program, confinement.flags, sync)
    _execute(path, process, env)


def _execute(path: str, process: Process, env: dict[str, str]) -> None:
    try:
        os.execve(path, list(process.args), env)
    except OSError as error:
        raise command.failed(path, error) from error


def _enter_pids(sync: Sync, warnings: list[str], master: int | None) -> None:
    """Returns in the child, which is in the container's pid namespace; this process ends."""
    try:
        pid = sys.fork_sibling()
    except OSError as error:
        if error.errno == errno.ENOMEM:
            # fork(2): the first process of the pid namespace has ended
            raise command.CannotExecute("gone", "the container is not running") from error
        raise
    if pid:
        sync.report({"ready": True, "warnings": warnings, "pid": pid}, () if master is None else (master,))
        os._exit(0)
    os.setsid()
    if master is not None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.prctl(sys.PR_SET_PDEATHSIG, 9)


def _load(program: bytes, flags: int, sync: Sync) -> None:
    """Where the filter asks an agent, this process stands still until the agent has been given the listener (`asking`).
    After the filter only write(2) is called, which no filter may ask for."""
    if not flags & seccomp_load.NEW_LISTENER:
        seccomp_load.load(program, flags)
        return
    gate, push = os.pipe2(os.O_CLOEXEC)
    os.write(push, bytes(fcntl.fcntl(push, _F_GETPIPE_SZ)))
    sync.report({"asking": True}, (gate,))
    os.close(gate)
    channel = sync.fileno()
    listener = seccomp_load.load(program, flags)
    os.write(channel, b'{"listener":%d}' % listener)
    os.write(push, b".")


def _load_with(keep: tuple[str, ...], sync: Sync, process: Process, confinement: Confinement) -> None:
    """The filter, and after it what `keep` stands for goes: capset(2) is all that is called under it."""
    assert confinement.program is not None
    sets = _within(process.capabilities, confinement.available)
    effective, permitted, inheritable = sets["effective"], sets["permitted"], sets["inheritable"]
    capabilities.replace_sets(effective=[*effective, *keep], permitted=[*permitted, *keep], inheritable=inheritable)
    _load(confinement.program, confinement.flags, sync)
    capabilities.replace_sets(effective=effective, permitted=permitted, inheritable=inheritable)


def _within(granted: dict[str, tuple[str, ...]], available: frozenset[str]) -> dict[str, list[str]]:
    return {kind: [name for name in names if name in available] for kind, names in granted.items()}


def _take_identity(process: Process, available: frozenset[str], keep: tuple[str, ...]) -> None:
    """`keep`: capabilities that stay permitted for now, beside the process's own."""
    capabilities.drop_bounding(process.capabilities["bounding"])
    capabilities.keep_across_setuid()
    _become_user(process)
    sets = _within(process.capabilities, available)
    capabilities.set_caps(effective=sets["effective"], permitted=[*sets["permitted"], *keep],
                          inheritable=sets["inheritable"], ambient=sets["ambient"])
    if process.no_new_privileges:
        sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    # A change of identity clears the death signal and, where the kernel is set so (fs.suid_dumpable), makes dumpable:
    # until the execve we hold descriptors and an executable of the host.
    sys.prctl(sys.PR_SET_DUMPABLE, 0)
    sys.prctl(sys.PR_SET_PDEATHSIG, 9)


def _groups_stay() -> bool:
    """Whether a user gave this user namespace its own id alone: then nobody in it may change groups
    (user_namespaces(7))."""
    try:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            return file.read() == "deny\n"
    except OSError:
        return False


GROUPS_STAY = _groups_stay()
"""Asked while /proc is the host's."""


def _become_user(process: Process) -> None:
    try:
        _set_groups(process.groups)
        os.setresgid(process.gid, process.gid, process.gid)
        os.setresuid(process.uid, process.uid, process.uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise OSError(errno.EINVAL, f"the user {process.uid}:{process.gid} (or a group of theirs) is not among the ids "
                                    "of this user namespace") from error


def _set_groups(groups: tuple[int, ...]) -> None:
    try:
        os.setgroups(groups)
    except PermissionError:
        if not GROUPS_STAY:
            raise


def _enter_folder(cwd: str, *, last: bool) -> bool:
    """First as root, who may enter where the user may not (a home of somebody else's); where root may not and the user
    may (NFS), as the user."""
    try:
        os.chdir(cwd)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM) and not last:
            return False
        kinds = {errno.ENOENT: "not-found", errno.EACCES: "permission"}
        raise command.CannotExecute(
            kinds.get(error.errno or 0, "other"),
            f'chdir to cwd ("{cwd}") set in config.json failed: {os.strerror(error.errno or 0).lower()}',
        ) from error
    return True
