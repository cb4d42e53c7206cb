"""Where this host mounts its cgroup hierarchies, and which manager fits.

Every way a host can do it occurs: each controller on its own, `cpu,cpuacct` mounted together, version 2 alone at the
root, version 2 beside version 1 without controllers, or with the few that version 1 left over.
"""

from __future__ import annotations

import errno
import os

from node.linux.cgroups.files import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.store import Cgroups

DRIVERS = ("auto", "cgroupfs", "systemd")
BOOTED = "/run/systemd/system"
"""There where systemd is process 1 (sd_booted(3))."""

_NEEDS_2 = ("the systemd cgroup driver needs cgroup version 2, and this host's controllers are in version 1: "
            "use cgroupfs")
CONTROLLERS = frozenset(("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "net_cls",
                         "net_prio", "perf_event", "pids", "rdma", "misc"))


class Hierarchy:
    """One mounted version 1 hierarchy."""

    __slots__ = ("controllers", "mountpoint")

    def __init__(self, mountpoint: str, controllers: tuple[str, ...]) -> None:
        self.mountpoint = mountpoint
        self.controllers = controllers
        """As the kernel's mount options name them; ("name=systemd",) for one without controllers."""


def detect(root: str = "/sys/fs/cgroup", *, mountinfo: str = "/proc/self/mountinfo",
           driver: str = "cgroupfs") -> Cgroups:
    """The manager for this host's cgroups under `root`; `driver` is one of DRIVERS, auto being systemd where it is
    process 1 and the host has version 2. Raises CgroupError: ENOENT when none are mounted there, or when the systemd
    driver is wanted and cannot be."""
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
        first, second = read_mounts(file.read(), root)
    mine = [hierarchy for hierarchy in first if not all(name.startswith("name=") for name in hierarchy.controllers)]
    if mine or second is not None:
        place = mine[0].mountpoint if mine else second
        assert place is not None
        # Asked of the file system and not of our id: root of a user namespace is nobody here, and a container's root
        # has these mounts read-only.
        if not os.access(place, os.W_OK):
            return _by_leave(second, 1 if mine else 2, driver)
    if mine:
        if driver == "systemd":
            raise CgroupError(errno.ENOENT, _NEEDS_2)
        from node.linux.cgroups.v1 import CgroupsV1  # a host has one version: the other one's module is not loaded

        return CgroupsV1(first, second)
    if second is None:
        raise CgroupError(errno.ENOENT, f"no cgroup hierarchy is mounted under {root}")
    if driver == "systemd" or (driver == "auto" and os.path.isdir(BOOTED)):
        from node.linux.cgroups.systemd import CgroupsOfSystemd

        return CgroupsOfSystemd(second)
    from node.linux.cgroups.v2 import CgroupsV2

    return CgroupsV2(second)


def _by_leave(second: str | None, version: int, driver: str) -> Cgroups:
    if driver == "systemd":
        if second is None or version == 1:
            raise CgroupError(errno.ENOENT, _NEEDS_2)
        from node.linux.cgroups.systemd import CgroupsOfSystemd

        return CgroupsOfSystemd(second, rules=False)  # of the user's own systemd
    from node.linux.cgroups.absent import CgroupsAbsent
    from node.linux.cgroups.delegated import CgroupsDelegated, find

    folder = find(second) if second is not None else None
    return CgroupsAbsent(version) if folder is None else CgroupsDelegated(folder)


def read_mounts(mountinfo: str, root: str) -> tuple[list[Hierarchy], str | None]:
    """The version 1 hierarchies and the version 2 mount point under `root`. See proc_pid_mountinfo(5).

    Of several mounts of one hierarchy the first counts.
    """
    first: list[Hierarchy] = []
    second: str | None = None
    taken: set[str] = set()
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not dash or len(fields) < 5 or len(kind) < 3:
            continue
        mountpoint = _unescape(fields[4])
        if mountpoint != root and not mountpoint.startswith(f"{root}/"):
            continue
        if kind[0] == "cgroup2":
            second = second or mountpoint
        elif kind[0] == "cgroup":
            names = tuple(name for name in kind[2].split(",") if name in CONTROLLERS or name.startswith("name="))
            if names and not taken.intersection(names):
                taken.update(names)
                first.append(Hierarchy(mountpoint, names))
    return first, second


def _unescape(text: str) -> str:
    """Space, tab, newline and backslash come as three octal digits."""
    for code in ("040", "011", "012", "134"):
        text = text.replace("\\" + code, chr(int(code, 8)))
    return text


def checked_path(path: str) -> str:
    """A group's path below the hierarchies' roots. Raises CgroupError (EINVAL) for one that could leave them."""
    parts = [part for part in path.split("/") if part]
    if not parts or any(part in (".", "..") or "\0" in part or "\n" in part for part in parts):
        raise CgroupError(errno.EINVAL, f"{path!r} is not a cgroup path")
    return "/".join(parts)


def is_place(text: str) -> bool:
    """Whether it is `slice:prefix:name`, a path of the systemd driver (`units.Place`)."""
    first, colon, rest = text.partition(":")
    return bool(colon) and ":" in rest and "/" not in text and (not first or first.endswith(".slice"))
