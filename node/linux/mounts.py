"""What is mounted where (proc_pid_mountinfo(5)), and the words of mount(8) as flags of mount(2)."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from node.linux import syscalls

MS_SYNCHRONOUS, MS_MANDLOCK, MS_DIRSYNC = 16, 64, 128
MS_NOATIME, MS_NODIRATIME, MS_RELATIME, MS_STRICTATIME, MS_LAZYTIME = 1 << 10, 1 << 11, 1 << 21, 1 << 24, 1 << 25

_SET = {
    "ro": syscalls.MS_RDONLY, "nosuid": syscalls.MS_NOSUID, "nodev": syscalls.MS_NODEV, "noexec": syscalls.MS_NOEXEC,
    "sync": MS_SYNCHRONOUS, "mand": MS_MANDLOCK, "dirsync": MS_DIRSYNC, "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME, "relatime": MS_RELATIME, "strictatime": MS_STRICTATIME, "lazytime": MS_LAZYTIME,
    "bind": syscalls.MS_BIND, "rbind": syscalls.MS_BIND | syscalls.MS_REC,
}  # fmt: skip
_CLEAR = {
    "rw": syscalls.MS_RDONLY, "suid": syscalls.MS_NOSUID, "dev": syscalls.MS_NODEV, "exec": syscalls.MS_NOEXEC,
    "async": MS_SYNCHRONOUS, "nomand": MS_MANDLOCK, "atime": MS_NOATIME, "diratime": MS_NODIRATIME,
    "norelatime": MS_RELATIME, "nostrictatime": MS_STRICTATIME, "nolazytime": MS_LAZYTIME, "defaults": 0,
}  # fmt: skip
_PROPAGATION = {
    f"{prefix}{name}": flag | rec
    for name, flag in (("private", syscalls.MS_PRIVATE), ("slave", syscalls.MS_SLAVE), ("shared", syscalls.MS_SHARED),
                       ("unbindable", syscalls.MS_UNBINDABLE))
    for prefix, rec in (("", 0), ("r", syscalls.MS_REC))
}  # fmt: skip
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountOptions:
    """`flags` and `data` for mount(2); `propagation` flags for a second call."""

    flags: int
    data: str
    propagation: int


def parse_options(text: str) -> MountOptions:
    """`ro,noatime,size=10m` taken apart; what is no flag of mount(2) is the file system's own."""
    flags = propagation = 0
    data = []
    for option in filter(None, text.split(",")):
        if option in _SET:
            flags |= _SET[option]
        elif option in _CLEAR:
            flags &= ~_CLEAR[option]
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        else:
            data.append(option)
    return MountOptions(flags, ",".join(data), propagation)


@dataclass(frozen=True, slots=True)
class MountEntry:
    mount_id: int
    point: str
    shared: bool
    receives: bool
    """A slave: what is mounted elsewhere arrives here."""

    kind: str = ""
    """The file system's."""


def entries() -> Iterator[MountEntry]:
    """The mounts of this process's namespace, in order."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            dash = fields.index("-", 6)
            optional = fields[6:dash]
            point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
            yield MountEntry(int(fields[0]), point, any(tag.startswith("shared:") for tag in optional),
                             any(tag.startswith("master:") for tag in optional), fields[dash + 1])


def mounted_on(path: str) -> bool:
    """Whether something is mounted exactly there."""
    return any(entry.point == path for entry in entries())


def mount_of(path: str) -> MountEntry | None:
    """The mount that a path lies on. Raises OSError when there is nothing at the path."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            about = dict(line.split(":", 1) for line in file if ":" in line)
    finally:
        os.close(fd)
    wanted = int(about["mnt_id"])
    return next((entry for entry in entries() if entry.mount_id == wanted), None)
