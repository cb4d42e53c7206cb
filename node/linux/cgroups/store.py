"""What a group can do, whatever the host's cgroup version. Implementations: `v1.CgroupsV1`, `v2.CgroupsV2`.

All calls are synchronous and touch only the kernel's own file system; those that wait say how long. `CgroupError` is
raised where the kernel refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from node.linux.cgroups.doors import Doors
from node.linux.cgroups.mounts import Mounts
from node.linux.cgroups.stats import Stats


class Membership(Protocol):
    """Who is in the group and what holds for all of them."""

    def join(self) -> None:
        """Put the calling process, which must have a single thread, into the group.

        Much cheaper on version 1 than `add`: the kernel need not wait for the process to stand still (0.5 ms instead
        of some 14 ms). A cgroup namespace must be unshared after it, not before.
        """

    def doors(self) -> Doors:
        """For joining later, when the right to open the group's files is gone. Raises CgroupError."""

    def add(self, pid: int) -> None:
        """Put a process with all its threads into the group; its later children are born there."""

    def procs(self) -> list[int]:
        """Process ids, as seen from this process, of the group and the groups inside it."""

    def update(self, resources: Mapping[str, object]) -> list[str]:
        """Change what `resources` (runtime-spec `linux.resources`) names and leave the rest. Gives warnings about
        limits this host does not have. Raises InvalidResources and CgroupError."""


class Ending(Protocol):
    """Stopping everybody in the group, for a while or for good."""

    def freeze(self) -> None:
        """Stop all processes; returns when they stand still. Raises CgroupBusy when some do not within 5 s."""

    def thaw(self) -> None:
        """Undo `freeze`."""

    def frozen(self) -> bool:
        """Whether `freeze` holds (also one that is still on its way)."""

    def signal(self, number: int) -> int:
        """Send a signal to all processes now in the group; gives how many got it."""

    def kill(self) -> None:
        """SIGKILL to all processes, also frozen ones, until none is alive. Raises CgroupBusy when some stay for 5 s
        (uninterruptible sleep). Whoever is their parent still has to reap them."""

    def delete(self) -> None:
        """Remove the group and the groups inside it; a group that is gone already is no error. Raises CgroupBusy
        when there are still processes after 2 s."""


class Watch(Protocol):
    """Looking on."""

    def stats(self) -> Stats:
        """What the group uses now."""

    def oom_events(self) -> int:
        """How many processes the out-of-memory killer has killed in the group and the groups inside it."""

    def oom_fd(self) -> int:
        """A new non-blocking descriptor that becomes readable when `oom_events` may have risen, and when the group is
        deleted. The caller drains it (read up to 4096 bytes) and closes it."""


class Cgroup(Membership, Ending, Watch, Protocol):
    """One group. `path` is relative to the hierarchies' roots, `warnings` are those of its creation."""

    path: str
    warnings: list[str]


class Cgroups(Protocol):
    """The host's hierarchies."""

    version: int
    driver: str
    """cgroupfs: we make the folders; systemd: it makes them for us."""

    def place(self, parent: str, name: str) -> str:
        """The path of a group `name` in `parent`: a folder, or with the systemd driver a slice."""

    def create(self, path: str, resources: Mapping[str, object], *, first: int = 0) -> Cgroup:
        """Make the group with its parents and apply the limits. Nothing is left behind when it fails.

        `first`: the process that is going to be in it. The systemd driver cannot do without: it puts it in at once, and
        kills it when the limits are refused.

        Raises CgroupError (EEXIST) when a group of that path already has processes, and like `Cgroup.update`.
        """

    def open(self, path: str) -> Cgroup:
        """A group that exists, or existed. Raises CgroupError (EINVAL) for an impossible path."""

    def prune(self, path: str) -> None:
        """Remove a parent group if it has neither processes nor groups inside it; otherwise do nothing."""

    def features(self) -> frozenset[str]:
        """Kinds of limits this host has: memory, swap, swappiness, oom_control, kernel_tcp, cpu_shares, cpu_quota,
        cpu_realtime, cpuset, pids, blkio_weight, blkio_throttle, devices, hugetlb, freeze."""

    def mounts(self, path: str, *, private: bool) -> Mounts:
        """How to mount the hierarchies for a container whose group is `path`; `private` with a cgroup namespace of
        its own."""
