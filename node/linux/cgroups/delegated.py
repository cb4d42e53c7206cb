"""A part of the version 2 tree that its owner gave to an ordinary user (cgroup-v2.rst, Delegation): the group that this
process stands in. Everything below works as at the root, but for device rules, whose programs only the host's root may
load; who is not root there may make no device nodes either."""

from __future__ import annotations

import os
from _collections_abc import Mapping

from node.linux.cgroups.v2 import ASIDE, CgroupsV2, GroupV2

_NEEDED = ("cgroup.procs", "cgroup.subtree_control")


def find(mountpoint: str, *, membership: str = "/proc/self/cgroup") -> str | None:
    """The folder of the delegated group, None where there is none."""
    with open(membership, encoding="utf-8", errors="surrogateescape") as file:
        own = next((line[3:] for line in file.read().splitlines() if line.startswith("0::/")), None)
    if own is None:
        return None
    path = own.strip("/").removesuffix(ASIDE).rstrip("/")  # where an earlier one of us went out of the way
    if not path or ".." in path.split("/"):
        return None
    folder = f"{mountpoint}/{path}"
    writable = os.access(folder, os.W_OK) and all(os.access(f"{folder}/{name}", os.W_OK) for name in _NEEDED)
    return folder if writable else None


class CgroupsDelegated(CgroupsV2):
    """`root` is the delegated group. Implements `store.Cgroups`."""

    __slots__ = ()

    def create(self, path: str, resources: Mapping[str, object], *, first: int = 0) -> GroupV2:
        del first
        group = self.open(path)
        group.make({name: value for name, value in resources.items() if name != "devices"})
        return group

    def features(self) -> frozenset[str]:
        return super().features() - {"devices"}
