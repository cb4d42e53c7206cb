"""A group's files for joining it, opened ahead by somebody who may: the kernel asks who opened them, not who writes."""

from __future__ import annotations

import os

from node.linux.cgroups.files import CgroupError


class Doors:
    """For a process that has given up the host's rights by the time it joins (cgroups(7), CVE-2021-4197)."""

    __slots__ = ("_fds",)

    def __init__(self, paths: list[str]) -> None:
        """Raises CgroupError."""
        self._fds: list[int] = []
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
