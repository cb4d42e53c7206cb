"""Kernel parameters of the container's namespaces."""

from __future__ import annotations

import os

from node.linux import syscalls as sys
from node.runtime.spec import sysctl_namespace, sysctl_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.spec import Config

OURS = frozenset(("network", "ipc", "uts"))


def procfs() -> int:
    """One of our own that nobody else sees. In a pid namespace that somebody above us made, the kernel gives root of a
    user namespace none: then the one that is mounted, while that is the host's still."""
    try:
        return sys.new_mount("proc", [])
    except PermissionError:
        return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def write(proc: int, config: Config, kinds: set[str] | frozenset[str]) -> None:
    """Those of the namespaces in `kinds`, by a descriptor of `procfs`, so that no swapped /proc redirects a write
    (CVE-2025-52881)."""
    for key, value in config.sysctl.items():
        if sysctl_namespace(key) not in kinds:
            continue
        path = f"sys/{sysctl_path(key)}"
        try:
            fd = sys.openat2(proc, path, os.O_WRONLY, resolve=sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_IN_ROOT)
            with os.fdopen(fd, "w") as file:
                file.write(value)
        except OSError as error:
            raise OSError(error.errno, f"sysctl {key}: {os.strerror(error.errno or 0)}") from error
