"""Groups of cgroup version 2: one folder in one tree. Kernel documentation: admin-guide/cgroup-v2.rst.

A controller works in a group only where every group above has handed it down (cgroup.subtree_control), and a group
that hands down may have no processes of its own. Only the real root may; the root one sees from inside a container is
an ordinary group: there our own processes step aside into a group of their own first.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from _collections_abc import Mapping

from node.linux import signals
from node.linux.cgroups import files, members, v2_limits
from node.linux.cgroups.doors import Doors
from node.linux.cgroups.files import CgroupBusy, CgroupError
from node.linux.cgroups.hierarchies import checked_path, is_place
from node.linux.cgroups.mounts import GroupMount, Mounts
from node.linux.cgroups.resources import Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.stats import Stats

_FREEZE_SECONDS = 5.0
_KILL_SECONDS = 5.0
_DELETE_SECONDS = 2.0
_PAUSE = 0.002
ASIDE = "seawall-aside"
"""Where processes of the root group go that stand in the way of handing controllers down."""

_ASIDE_ROUNDS = 20
_IN_MODIFY = 0x2


class GroupV2:
    """One group; implements `store.Cgroup`."""

    __slots__ = ("_evacuates", "_folder", "_root", "path", "warnings")

    def __init__(self, root: str, path: str, *, evacuates: bool = True) -> None:
        """`evacuates`: processes that stand in the way at the root may be moved aside."""
        self.path = path
        self._evacuates = evacuates
        self.warnings: list[str] = []
        self._root = root
        self._folder = f"{root}/{path}"

    # --- membership

    def join(self) -> None:
        self.add(0)

    def doors(self) -> Doors:
        return Doors([f"{self._folder}/cgroup.procs"])

    def add(self, pid: int) -> None:
        """Where a program in the container has made groups and handed controllers down, its own group takes no
        processes any more: then the new one goes where the others are."""
        try:
            files.write(self._folder, "cgroup.procs", pid)
        except CgroupError as error:
            if error.errno != errno.EBUSY:
                raise
            for group in members.groups(self._folder):
                if group != self._folder and files.read_optional(group, "cgroup.procs"):
                    return files.write(group, "cgroup.procs", pid)
            raise

    def procs(self) -> list[int]:
        return members.pids(self._folder)

    def update(self, resources: Mapping[str, object]) -> list[str]:
        return v2_limits.apply(self._folder, Resources(resources))

    # --- ending

    def freeze(self) -> None:
        files.write(self._folder, "cgroup.freeze", 1)
        end = time.monotonic() + _FREEZE_SECONDS
        while files.read_pairs(self._folder, "cgroup.events").get("frozen") != 1:
            if time.monotonic() > end:
                files.write(self._folder, "cgroup.freeze", 0)
                raise CgroupBusy(errno.EBUSY, f"the group {self.path} does not freeze")
            time.sleep(_PAUSE)

    def thaw(self) -> None:
        files.write(self._folder, "cgroup.freeze", 0)

    def frozen(self) -> bool:
        return files.read(self._folder, "cgroup.freeze") == "1"

    def signal(self, number: int) -> int:
        return members.signal_all(self._folder, number)

    def kill(self) -> None:
        """cgroup.kill (Linux 5.14) reaches everybody, however fast they fork, and frozen processes die of it too."""
        end = time.monotonic() + _KILL_SECONDS
        while members.pids(self._folder):
            if files.has(self._folder, "cgroup.kill"):
                files.write(self._folder, "cgroup.kill", 1)
            else:
                members.signal_all(self._folder, signals.SIGKILL)
            if members.wait_empty(self._folder, 0.05):
                return
            if time.monotonic() > end:
                left = members.pids(self._folder)
                raise CgroupBusy(errno.EBUSY, f"processes of the group {self.path} do not die: {left}")

    def delete(self) -> None:
        members.remove(self._folder, _DELETE_SECONDS)

    # --- watch

    def stats(self) -> Stats:
        from node.linux.cgroups.v2_stats import read_stats  # its dataclasses are slow to load; the runtime needs none

        return read_stats(self._folder)

    def oom_events(self) -> int:
        return files.read_pairs(self._folder, "memory.events").get("oom_kill", 0)

    def oom_fd(self) -> int:
        """An inotify descriptor on memory.events, which the kernel marks as modified with each event."""
        libc = ctypes.CDLL(None, use_errno=True)
        fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        path = f"{self._folder}/memory.events".encode()
        if fd < 0 or libc.inotify_add_watch(fd, path, _IN_MODIFY) < 0:
            code = ctypes.get_errno()
            if fd >= 0:
                os.close(fd)
            raise CgroupError(code, f"cannot watch {self._folder}/memory.events: {os.strerror(code)}")
        return fd

    # --- inside

    def make(self, resources: Mapping[str, object]) -> None:
        """Create the folders and write the limits; for `CgroupsV2.create`."""
        made: list[str] = []
        try:
            current = self._root
            for part in self.path.split("/"):
                _hand_down(current, evacuate=self._evacuates and current == self._root)
                current = f"{current}/{part}"
                members.make(current, made)
            if self.procs():
                raise CgroupError(errno.EEXIST, f"the group {self.path} exists and has processes")
            self.warnings = self.update(resources)
        except BaseException:
            for folder in reversed(made):
                members.remove_unused(folder)
            raise


class CgroupsV2:
    """The host's version 2 tree; implements `store.Cgroups`."""

    __slots__ = ("_root", "driver", "version")

    def __init__(self, root: str) -> None:
        self._root = root
        self.version = 2
        self.driver = "cgroupfs"

    def place(self, parent: str, name: str) -> str:
        return f"{parent.strip('/')}/{name}"

    def create(self, path: str, resources: Mapping[str, object], *, first: int = 0) -> GroupV2:
        """`first` joins by itself, or is added."""
        del first
        group = self.open(path)
        group.make(resources)
        return group

    def open(self, path: str) -> GroupV2:
        """Also one that systemd made while another driver was asked for."""
        if is_place(path):
            from node.linux.cgroups.systemd import CgroupsOfSystemd

            return CgroupsOfSystemd(self._root).open(path)
        return GroupV2(self._root, checked_path(path))

    def prune(self, path: str) -> None:
        members.remove_unused(f"{self._root}/{checked_path(path)}")

    def features(self) -> frozenset[str]:
        controllers = files.read(self._root, "cgroup.controllers").split()
        by_controller = {"memory": ("memory", "swap"), "cpu": ("cpu_shares", "cpu_quota"), "cpuset": ("cpuset",),
                         "pids": ("pids",), "io": ("blkio_weight", "blkio_throttle"), "hugetlb": ("hugetlb",)}
        found = {feature for name in controllers for feature in by_controller.get(name, ())}
        return frozenset(found | {"devices", "freeze"})

    def mounts(self, path: str, *, private: bool) -> Mounts:
        if private:
            return Mounts(tmpfs=False, mounts=(GroupMount("", fstype="cgroup2"),))
        return Mounts(tmpfs=False, mounts=(GroupMount("", source=f"{self._root}/{self.open(path).path}"),))


def _hand_down(folder: str, *, evacuate: bool) -> None:
    """Enable every controller the group has for the groups inside it. What cannot be enabled stays away quietly: the
    limits that need it are reported when their files turn out to be missing."""
    enabled = files.read(folder, "cgroup.subtree_control").split()
    for controller in files.read(folder, "cgroup.controllers").split():
        if controller in enabled:
            continue
        try:
            files.write(folder, "cgroup.subtree_control", f"+{controller}")
        except CgroupError as error:
            if error.errno != errno.EBUSY or not evacuate:
                if error.errno in (errno.EBUSY, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):
                    continue
                raise
            _step_aside(folder)
            files.write(folder, "cgroup.subtree_control", f"+{controller}")


def _step_aside(root: str) -> None:
    """Move all processes of a container's root group, us among them, into a group beside our containers'."""
    aside = f"{root}/{ASIDE}"
    os.makedirs(aside, exist_ok=True)
    for _ in range(_ASIDE_ROUNDS):
        listed = [pid for pid in files.read(root, "cgroup.procs").split() if pid != "0"]
        for pid in listed:
            try:
                files.write(aside, "cgroup.procs", pid)
            except CgroupError as error:
                if error.errno != errno.ESRCH:  # ended meanwhile
                    raise
        if not listed:
            return
    raise CgroupBusy(errno.EBUSY, f"processes of {root} do not leave it, so its controllers cannot be handed down")
