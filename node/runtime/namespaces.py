"""The namespaces of config.json: those of others are joined, the rest is made."""

from __future__ import annotations

import errno
import os

from node.linux import syscalls as sys
from node.runtime import identity
from node.runtime.spec import InvalidConfig, sysctl_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.identity import UserNamespace
    from node.runtime.spec import Config

FLAGS = {"network": sys.CLONE_NEWNET, "ipc": sys.CLONE_NEWIPC, "uts": sys.CLONE_NEWUTS, "mount": sys.CLONE_NEWNS,
         "cgroup": sys.CLONE_NEWCGROUP, "pid": sys.CLONE_NEWPID, "time": sys.CLONE_NEWTIME}

_FILES = {"network": "net", "mount": "mnt"}
_AFTER_THE_FORK = ("network", "ipc", "uts", "mount")


def join(config: Config, user: UserNamespace | None) -> set[str]:
    """Enter those that are given by path; of a pid namespace this means that the next child is to be in it. Returns the
    kinds that the container's user namespace does not own. Raises OSError, InvalidConfig."""
    # Every path is opened before the first is entered: afterwards /proc may mean another one.
    given = [(kind, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)) for kind, path in config.namespaces.items()
             if path and kind != "user"]
    foreign = {kind for kind in FLAGS if kind not in config.namespaces}
    changed = changes(config)
    for kind, path, fd in given:
        if identity.kind(fd) != FLAGS[kind]:
            raise InvalidConfig(f"linux.namespaces: {path} is no {kind} namespace")
        if kind in changed and _is_ours(kind, fd):
            raise InvalidConfig(f"linux.namespaces: {path} is the host's {kind} namespace, which {changed[kind]} would "
                                "change")
        if user is None or not identity.owns(user.fd, fd):
            foreign.add(kind)
    # With the host's rights, which reach into every user namespace below. A mount namespace last: it hides /proc.
    for kind, _, fd in sorted(given, key=lambda entry: entry[0] == "mount"):
        sys.setns(fd, FLAGS[kind])
        os.close(fd)
    return foreign


def changes(config: Config) -> dict[str, str]:
    """Kinds of namespaces that something in the configuration changes, and what."""
    found = {sysctl_namespace(key): f"sysctl {key}" for key in config.sysctl}
    if config.hostname or config.domainname:
        found["uts"] = "the hostname"
    return found


def _is_ours(kind: str, fd: int) -> bool:
    own = os.open(f"/proc/self/ns/{_FILES.get(kind, kind)}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.path.sameopenfile(own, fd)
    finally:
        os.close(own)


def open_offsets(config: Config) -> int:
    """Of the clocks, for `new_time`; -1: none are set. In a user namespace they can be written only
    through a file that was opened before."""
    if not config.time_offsets:
        return -1
    try:
        return os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, "linux.timeOffsets: this kernel has no time namespaces") from error


def new_time(config: Config, offsets: int) -> None:
    """A new time namespace that later children of this process are born in. `offsets` is closed."""
    if config.namespaces.get("time") != "":
        return
    sys.unshare(sys.CLONE_NEWTIME)
    if offsets >= 0:
        lines = "".join(f"{clock} {seconds} {nanoseconds}\n" for clock, seconds, nanoseconds in config.time_offsets)
        try:
            os.write(offsets, lines.encode())
        except OSError as error:
            raise OSError(error.errno, f"linux.timeOffsets: {os.strerror(error.errno or 0).lower()}") from error
        finally:
            os.close(offsets)


def enter_time(config: Config) -> None:
    """A new time namespace, entered by this process itself."""
    if config.namespaces.get("time") == "":
        new_time(config, open_offsets(config))
        fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        sys.setns(fd, sys.CLONE_NEWTIME)
        os.close(fd)


def time_flag() -> int:
    """CLONE_NEWTIME where the kernel knows it (5.6)."""
    return sys.CLONE_NEWTIME if os.access("/proc/self/ns/time", os.F_OK) else 0


def enter(init: int, flags: int) -> None:
    """Those of the process that `init` is a pidfd of. Root of a user namespace may not even enter again what is the
    host's and its own already: such are left out then. Raises OSError."""
    try:
        sys.setns(init, flags)
    except PermissionError:
        others = _others(init, flags)
        if others == flags:
            raise
        sys.setns(init, others)


def _others(init: int, flags: int) -> int:
    with open(f"/proc/self/fdinfo/{init}") as file:
        pid = next(line.split()[1] for line in file if line.startswith("Pid:"))
    names = {"network": "net", "mount": "mnt"}
    kinds = {**{names.get(kind, kind): flag for kind, flag in FLAGS.items()}, "pid": 0, "time": sys.CLONE_NEWTIME}
    same = 0
    for name, flag in kinds.items():
        if flag & flags and os.readlink(f"/proc/self/ns/{name}") == os.readlink(f"/proc/{pid}/ns/{name}"):
            same |= flag
    return flags & ~same


def joins_unseen(config: Config, user: UserNamespace | None) -> bool:
    """Whether the first process of the container, which joins another's pid namespace, is prepared outside of it. A
    container that may trace would take over what it sees there. In a user namespace the kernel keeps it from that;
    otherwise its procfs must be had from outside, which is not possible before Linux 6.17."""
    path = config.namespaces.get("pid")
    if user is not None or not path:
        return False
    try:
        os.close(sys.new_mount("proc", [("pidns", path)]))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def new(config: Config) -> int:
    """Flags of those that the container's process makes for itself, all but its cgroup namespace: that shows as root
    where it stands when it is made."""
    flags = 0
    for kind in _AFTER_THE_FORK:
        if config.namespaces.get(kind) == "":
            flags |= FLAGS[kind]
    return flags

