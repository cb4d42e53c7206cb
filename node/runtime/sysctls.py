"""Kernel parameters of the container's namespaces."""

from __future__ import annotations

import os

from node.linux import syscalls as sys
from node.runtime.spec import sysctl_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.spec import Config

OURS = frozenset(("network", "ipc", "uts"))


def write(proc: int, config: Config, kinds: set[str] | frozenset[str]) -> None:
    """Those of the namespaces in `kinds`, through a procfs of our own that nobody else sees, so that no swapped /proc
    redirects a write (CVE-2025-52881)."""
    for key, value in config.sysctl.items():
        if sysctl_namespace(key) not in kinds:
            continue
        path = "sys/" + key.translate({ord("."): "/", ord("/"): "."})
        try:
            fd = sys.openat2(proc, path, os.O_WRONLY, resolve=sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_IN_ROOT)
            with os.fdopen(fd, "w") as file:
                file.write(value)
        except OSError as error:
            raise OSError(error.errno, f"sysctl {key}: {os.strerror(error.errno or 0)}") from error
