"""The version 2 tree beside version 1 hierarchies: what its left-over controllers limit, a container has there.

Joining it costs more than all hierarchies of version 1 together (the kernel waits for every processor), so a container
gets a group there only when it asks for a limit that no other hierarchy has: huge pages, mostly.
"""

from __future__ import annotations

from _collections_abc import Collection, Mapping

from node.linux.cgroups import files, members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.v2 import GroupV2

_PARTS = {"memory": "memory", "pids": "pids", "blockIO": "io", "hugepageLimits": "hugetlb"}
"""Parts of `linux.resources` that one controller does alone, by the name version 2 has for it."""

_FIRST = {"io": "blkio"}


class Beside:
    """The tree at `root`; `taken` are the controllers that version 1 holds."""

    __slots__ = ("_left", "_root")

    def __init__(self, root: str, taken: Collection[str]) -> None:
        self._root = root
        found = (files.read_optional(root, "cgroup.controllers") or "").split()
        self._left = frozenset(name for name in found if _FIRST.get(name, name) not in taken)

    @property
    def controllers(self) -> frozenset[str]:
        """Under their version 2 names."""
        return self._left

    def share(self, resources: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
        """(what version 1 limits, what this tree limits)."""
        theirs = {key: value for key, value in resources.items() if value and _PARTS.get(key) in self._left}
        return {key: value for key, value in resources.items() if key not in theirs}, theirs

    def folder(self, path: str) -> str | None:
        """Of a group that is there."""
        folder = f"{self._root}/{path}"
        return folder if files.has(folder, "cgroup.procs") else None

    def group(self, path: str) -> GroupV2:
        from node.linux.cgroups.v2 import GroupV2  # few containers need it, and a monitor's memory is counted

        return GroupV2(self._root, path, evacuates=False)

    def delete(self, path: str, seconds: float) -> None:
        if folder := self.folder(path):
            members.remove(folder, seconds)

    def prune(self, path: str) -> None:
        members.remove_unused(f"{self._root}/{path}")
