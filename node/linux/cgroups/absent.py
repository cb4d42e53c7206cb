"""A host whose cgroups this process may not change, as for an ordinary user without a delegated group: containers run
where their monitor runs, and whatever needs a group is refused by name."""

from __future__ import annotations

import errno
from _collections_abc import Mapping

from node.linux.cgroups.doors import Doors
from node.linux.cgroups.files import CgroupError
from node.linux.cgroups.hierarchies import checked_path
from node.linux.cgroups.mounts import Mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.stats import Stats

WHY = ("this node may make no cgroups: start it in a group that is delegated to its user "
       "(systemd-run --user -p Delegate=yes seawalld)")
_QUIET = frozenset(("devices", "unified"))
"""Not limits that somebody would miss: who may not make groups may make no device nodes either."""


class GroupAbsent:
    """No group; implements `store.Cgroup`. Its processes end with their pid namespace."""

    __slots__ = ("path", "warnings")

    def __init__(self, path: str) -> None:
        self.path = path
        self.warnings: list[str] = []

    def join(self) -> None:
        return

    def doors(self) -> Doors:
        return Doors([])

    def add(self, pid: int) -> None:
        del pid

    def procs(self) -> list[int]:
        raise self._refusal("who is in a container cannot be told")

    def update(self, resources: Mapping[str, object]) -> list[str]:
        return [f"the limit {name} is not applied: {WHY}" for name, value in resources.items()
                if value and name not in _QUIET]

    def freeze(self) -> None:
        raise self._refusal("a container cannot be paused")

    def frozen(self) -> bool:
        return False

    def signal(self, number: int) -> int:
        raise self._refusal(f"signal {number} reaches the first process alone")

    def thaw(self) -> None:
        return

    def kill(self) -> None:
        return

    def delete(self) -> None:
        return

    def stats(self) -> Stats:
        raise self._refusal("what a container uses cannot be told")

    def oom_events(self) -> int:
        return 0

    def oom_fd(self) -> int:
        raise self._refusal("the out-of-memory killer cannot be watched")

    def _refusal(self, what: str) -> CgroupError:
        return CgroupError(errno.EOPNOTSUPP, f"{what}: {WHY}")


class CgroupsAbsent:
    """Implements `store.Cgroups`. `version` is the host's."""

    __slots__ = ("driver", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.driver = "none"

    def place(self, parent: str, name: str) -> str:
        return f"{parent.strip('/')}/{name}"

    def create(self, path: str, resources: Mapping[str, object], *, first: int = 0) -> GroupAbsent:
        del first
        group = self.open(path)
        group.warnings = group.update(resources)
        return group

    def open(self, path: str) -> GroupAbsent:
        return GroupAbsent(checked_path(path))

    def prune(self, path: str) -> None:
        checked_path(path)

    def features(self) -> frozenset[str]:
        return frozenset()

    def mounts(self, path: str, *, private: bool) -> Mounts:
        """A container sees an empty folder."""
        del path, private
        return Mounts(tmpfs=True, mounts=())
