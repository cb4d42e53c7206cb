"""Whether files can be shown with other owners (mount_setattr(2), MOUNT_ATTR_IDMAP), and what a folder holds that
cannot. Everything here blocks."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from node.linux import mounts, syscalls

PSEUDO = frozenset(
    {"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
     "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs",
     "tracefs"}
)  # fmt: skip
"""File systems that show the kernel and not files: nobody keeps anything of his own there."""


@dataclass(frozen=True, slots=True)
class Part:
    """A mount at or below a folder."""

    point: str
    kind: str
    mapped: bool

    @property
    def pseudo(self) -> bool:
        return self.kind in PSEUDO


def can_map(path: str, userns: int, *, recursive: bool = False) -> bool:
    """`recursive`: with all that is mounted below. Raises OSError: nothing is there."""
    flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if recursive else 0)
    return _map(syscalls.open_tree(syscalls.AT_FDCWD, path, flags), userns, recursive=recursive)


def can_map_new(kind: str, userns: int) -> bool:
    """A file system without a device, such as tmpfs. Raises OSError."""
    return _map(syscalls.new_mount(kind, []), userns, recursive=False)


def _map(tree: int, userns: int, *, recursive: bool) -> bool:
    try:
        syscalls.mount_setattr(tree, set_=syscalls.MOUNT_ATTR_IDMAP, userns=userns, recursive=recursive)
    except OSError as error:
        # EPERM: it is mapped already, or its file system belongs to a user namespace.
        if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
            raise
        return False
    finally:
        os.close(tree)
    return True


def parts(path: str, userns: int) -> Sequence[Part]:
    """The mount that the folder lies on and those that are visible below it, outer ones first. Raises OSError."""
    real = os.path.realpath(path)
    held = mounts.mount_of(real)
    kind = held.kind if held else ""
    found = [Part(real, kind, can_map(real, userns))]
    inside = real.rstrip("/") + "/"
    seen = {real}
    for entry in sorted(mounts.entries(), key=lambda entry: entry.point.count("/")):
        if not entry.point.startswith(inside) or entry.point in seen:
            continue
        seen.add(entry.point)
        try:
            top = mounts.mount_of(entry.point)
            if top is not None and top.point == entry.point:
                found.append(Part(entry.point, top.kind, can_map(entry.point, userns)))
        except OSError:
            continue  # hidden by another, or gone
    return found
