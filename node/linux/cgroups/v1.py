"""Groups of cgroup version 1: one folder in each hierarchy. Kernel documentation: admin-guide/cgroup-v1/.

On a hybrid host the version 2 tree beside it is used for what only its controllers limit (`hybrid.py`).
"""

from __future__ import annotations

import errno
import os
import time
from _collections_abc import Mapping, Sequence

from node.linux import signals
from node.linux.cgroups import files, members, v1_limits
from node.linux.cgroups.doors import Doors
from node.linux.cgroups.files import CgroupBusy, CgroupError
from node.linux.cgroups.hierarchies import Hierarchy, checked_path
from node.linux.cgroups.hybrid import Beside
from node.linux.cgroups.mounts import GroupMount, Mounts
from node.linux.cgroups.resources import Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.stats import Stats

_FREEZE_SECONDS = 5.0
_KILL_SECONDS = 5.0
_DELETE_SECONDS = 2.0
_PAUSE = 0.002


class GroupV1:
    """One group; implements `store.Cgroup`."""

    __slots__ = ("_beside", "_by_controller", "_folders", "path", "warnings")

    def __init__(self, path: str, hierarchies: Sequence[Hierarchy], beside: Beside | None = None) -> None:
        self._beside = beside
        self.path = path
        self.warnings: list[str] = []
        self._folders = tuple(f"{hierarchy.mountpoint}/{path}" for hierarchy in hierarchies)
        self._by_controller = {name: folder for hierarchy, folder in zip(hierarchies, self._folders, strict=True)
                               for name in hierarchy.controllers}

    # --- membership

    def join(self) -> None:
        self.doors().enter()

    def doors(self) -> Doors:
        paths = [f"{folder}/tasks" for folder in self._folders]
        if self._beside is not None and (folder := self._beside.folder(self.path) or ""):
            paths.append(f"{folder}/cgroup.procs")
        return Doors(paths)

    def add(self, pid: int) -> None:
        for folder in self._folders:
            files.write(folder, "cgroup.procs", pid)
        if self._beside is not None and (folder := self._beside.folder(self.path) or ""):
            files.write(folder, "cgroup.procs", pid)

    def procs(self) -> list[int]:
        return members.pids(self._folder("freezer", "pids", "memory", "devices"))

    def update(self, resources: Mapping[str, object]) -> list[str]:
        if self._beside is None:
            return v1_limits.apply(self._by_controller, Resources(resources))
        mine, theirs = self._beside.share(resources)
        if theirs and self._beside.folder(self.path) is None:
            mine, theirs = dict(resources), {}
        warnings = v1_limits.apply(self._by_controller, Resources(mine))
        return warnings + (self._beside.group(self.path).update(theirs) if theirs else [])

    # --- ending

    def freeze(self) -> None:
        """A process that is just being born or traced can keep the group FREEZING: thawing it for a moment helps."""
        folder = self._needed("freezer")
        end = time.monotonic() + _FREEZE_SECONDS
        while True:
            for _ in range(10):
                files.write(folder, "freezer.state", "FROZEN")
                if files.read(folder, "freezer.state") == "FROZEN":
                    return
                time.sleep(_PAUSE)
            files.write(folder, "freezer.state", "THAWED")
            if time.monotonic() > end:
                raise CgroupBusy(errno.EBUSY, f"the group {self.path} does not freeze")
            time.sleep(_PAUSE)

    def thaw(self) -> None:
        files.write(self._needed("freezer"), "freezer.state", "THAWED")

    def frozen(self) -> bool:
        return files.read(self._needed("freezer"), "freezer.state") != "THAWED"

    def signal(self, number: int) -> int:
        return members.signal_all(self._folder("freezer", "pids", "memory", "devices"), number)

    def kill(self) -> None:
        """A frozen process keeps its SIGKILL pending and never dies: thaw after the signal, whatever happened."""
        folder = self._folder("freezer", "pids", "memory", "devices")
        end = time.monotonic() + _KILL_SECONDS
        while members.pids(folder):
            frozen = self._try_freeze()
            try:
                members.signal_all(folder, signals.SIGKILL)
            finally:
                if frozen:
                    self._thaw_all()
            if members.wait_empty(folder, 0.05):
                return
            if time.monotonic() > end:
                raise CgroupBusy(errno.EBUSY, f"processes of the group {self.path} do not die: {members.pids(folder)}")

    def delete(self) -> None:
        for folder in self._folders:
            members.remove(folder, _DELETE_SECONDS)
        if self._beside is not None:
            self._beside.delete(self.path, _DELETE_SECONDS)

    # --- watch

    def stats(self) -> Stats:
        from node.linux.cgroups.v1_stats import read_stats  # its dataclasses are slow to load; the runtime needs none

        return read_stats(self._by_controller)

    def oom_events(self) -> int:
        """The kernel counts a kill in the group of the process that was killed only, so inner groups are added."""
        folder = self._needed("memory")
        total = 0
        for group in members.groups(folder):
            for line in (files.read_optional(group, "memory.oom_control") or "").splitlines():
                name, _, value = line.partition(" ")
                total += int(value) if name == "oom_kill" else 0
        return total

    def oom_fd(self) -> int:
        """An eventfd, registered for the group's oom notifications (cgroup-v1/memory.rst, 10)."""
        folder = self._needed("memory")
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                files.write(folder, "cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(event)
            raise
        return event

    # --- inside

    def make(self, resources: Mapping[str, object]) -> None:
        """Create the folders and write the limits; for `CgroupsV1.create`."""
        made: list[str] = []
        try:
            for folder in self._folders:
                self._make_folder(folder, made)
            if self.procs():
                raise CgroupError(errno.EEXIST, f"the group {self.path} exists and has processes")
            if self._beside is not None and (theirs := self._beside.share(resources)[1]):
                self._beside.group(self.path).make(theirs)
            self.warnings = self.update(resources)
        except BaseException:
            if self._beside is not None:
                self._beside.delete(self.path, _DELETE_SECONDS)
            for folder in reversed(made):
                members.remove_unused(folder)
            raise

    def _make_folder(self, folder: str, made: list[str]) -> None:
        current = folder.removesuffix(f"/{self.path}")
        for part in self.path.split("/"):
            parent, current = current, f"{current}/{part}"
            members.make(current, made)
            if folder == self._by_controller.get("cpuset"):
                _inherit_cpuset(parent, current)

    def _folder(self, *controllers: str) -> str:
        """The folder of the first of these controllers that this host has: membership is the same in all."""
        found = (self._by_controller[name] for name in controllers if name in self._by_controller)
        return next(found, self._folders[0])

    def _needed(self, controller: str) -> str:
        if controller not in self._by_controller:
            raise CgroupError(errno.ENOTSUP, f"this host has no {controller} cgroup")
        return self._by_controller[controller]

    def _try_freeze(self) -> bool:
        """For killing, freezing is only a help against processes that fork faster than they are killed."""
        try:
            self.freeze()
        except CgroupError as error:
            return error.errno not in (errno.ENOENT, errno.ENODEV)
        return True

    def _thaw_all(self) -> None:
        """Also groups inside that were frozen on their own, by whoever runs in the container."""
        for group in members.groups(self._needed("freezer")):
            try:
                files.write(group, "freezer.state", "THAWED")
            except CgroupError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise


class CgroupsV1:
    """The host's version 1 hierarchies; implements `store.Cgroups`."""

    __slots__ = ("_beside", "_hierarchies", "driver", "version")

    def __init__(self, hierarchies: Sequence[Hierarchy], second: str | None = None) -> None:
        """`second`: the version 2 tree of a hybrid host."""
        self._hierarchies = tuple(hierarchies)
        taken = {name for hierarchy in hierarchies for name in hierarchy.controllers}
        beside = Beside(second, taken) if second else None
        self._beside = beside if beside is not None and beside.controllers else None
        self.version = 1
        self.driver = "cgroupfs"

    def place(self, parent: str, name: str) -> str:
        return f"{parent.strip('/')}/{name}"

    def create(self, path: str, resources: Mapping[str, object], *, first: int = 0) -> GroupV1:
        """`first` joins by itself, or is added."""
        del first
        group = self.open(path)
        group.make(resources)
        return group

    def open(self, path: str) -> GroupV1:
        return GroupV1(checked_path(path), self._hierarchies, self._beside)

    def prune(self, path: str) -> None:
        for hierarchy in self._hierarchies:
            members.remove_unused(f"{hierarchy.mountpoint}/{checked_path(path)}")
        if self._beside is not None:
            self._beside.prune(checked_path(path))

    def features(self) -> frozenset[str]:
        roots = {name: hierarchy.mountpoint for hierarchy in self._hierarchies for name in hierarchy.controllers}
        evidence = {
            "memory": ("memory", "memory.limit_in_bytes"), "swap": ("memory", "memory.memsw.limit_in_bytes"),
            "oom_control": ("memory", "memory.oom_control"), "cpu_shares": ("cpu", "cpu.shares"),
            "cpu_quota": ("cpu", "cpu.cfs_quota_us"), "cpuset": ("cpuset", "cpuset.cpus"), "pids": ("pids", ""),
            "blkio_throttle": ("blkio", "blkio.throttle.read_bps_device"), "devices": ("devices", "devices.list"),
            "hugetlb": ("hugetlb", ""), "freeze": ("freezer", ""), "swappiness": ("memory", "memory.swappiness"),
            "kernel_tcp": ("memory", "memory.kmem.tcp.limit_in_bytes"), "cpu_realtime": ("cpu", "cpu.rt_runtime_us"),
        }
        found = {feature for feature, (controller, name) in evidence.items()
                 if controller in roots and files.has(roots[controller], name)}
        if "blkio" in roots and _has_weight(roots["blkio"]):
            found.add("blkio_weight")
        if self._beside is not None and "hugetlb" in self._beside.controllers:
            found.add("hugetlb")
        return frozenset(found)

    def mounts(self, path: str, *, private: bool) -> Mounts:
        mounts, links = [], []
        for hierarchy in self._hierarchies:
            names = [name.removeprefix("name=") for name in hierarchy.controllers]
            target = ",".join(names)
            if private:
                data = ",".join(f"none,{name}" if name.startswith("name=") else name for name in hierarchy.controllers)
                mounts.append(GroupMount(target, fstype="cgroup", data=data))
            else:
                mounts.append(GroupMount(target, source=f"{hierarchy.mountpoint}/{checked_path(path)}"))
            links += [(name, target) for name in names if name != target]
        return Mounts(tmpfs=True, mounts=tuple(mounts), links=tuple(links))


def _inherit_cpuset(parent: str, folder: str) -> None:
    """A new cpuset is empty and takes no process until it has processors and memory nodes: start with the parent's."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(folder, name):
            files.write(folder, name, files.read(parent, name))


def _has_weight(root: str) -> bool:
    """The root group has no weight of its own; the scheduler's statistics tell whether there are weights below."""
    return files.has(root, "blkio.weight") or files.has(root, "blkio.bfq.io_serviced")
