"""A group's files for joining it, opened ahead by somebody who may: the kernel asks who opened them, not who writes."""

from __future__ import annotations

import errno
import os

from node.linux.cgroups import files
from node.linux.cgroups.files import CgroupError

_SAFE = "/sys/kernel/cgroup/delegate"
"""The kernel's own list of what a group's new owner may write (cgroups(7), "Cgroup delegation")."""

_BOUNDS = {"cgroup.max.depth": "32", "cgroup.max.descendants": "1024"}
"""So that whoever owns a group cannot make more groups in it than we could ever walk and remove."""


class Doors:
    """For a process that has given up the host's rights by the time it joins (cgroups(7), CVE-2021-4197)."""

    __slots__ = ("_fds", "_paths")

    def __init__(self, paths: list[str]) -> None:
        """Raises CgroupError."""
        self._fds: list[int] = []
        self._paths = paths
        for path in paths:
            try:
                self._fds.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
            except OSError as error:
                raise CgroupError(error.errno, f"{path}: {os.strerror(error.errno or 0)}") from error

    def enter(self) -> None:
        """Put the calling process, which must have a single thread, into the group. Once. Raises CgroupError."""
        for fd in self._fds:
            try:
                os.write(fd, b"0")
            except OSError as error:
                text = f"the cgroup takes no process: {os.strerror(error.errno or 0)}"
                raise CgroupError(error.errno, text) from error
            finally:
                os.close(fd)
        self._fds.clear()

    def give(self, uid: int, gid: int) -> None:
        """To an owner who may make groups inside and share out what this one has, and can change none of its own
        limits. Instead of `enter`. Raises CgroupError."""
        while self._fds:
            os.close(self._fds.pop())
        for path in self._paths:
            folder = os.path.dirname(path)
            if not os.path.exists(f"{folder}/cgroup.subtree_control"):
                raise CgroupError(errno.EOPNOTSUPP, "a container with a user namespace of its own gets writable groups "
                                                    "of cgroup version 2 alone, and this host has version 1")
            for name, bound in _BOUNDS.items():
                files.write(folder, name, bound)
            try:
                with open(_SAFE) as file:
                    safe = file.read().split()
                for name in ("", *(name for name in safe if os.path.exists(f"{folder}/{name}"))):
                    os.chown(f"{folder}/{name}", uid, gid)
            except OSError as error:
                raise CgroupError(error.errno, f"{folder}: {os.strerror(error.errno or 0)}") from error
