"""Security modules: the AppArmor profile or SELinux label that a process takes at its execve, and the label of mounts.

Where the kernel has no such module, asking for one is an error: nobody is to believe in a confinement that is not
there.
"""

from __future__ import annotations

import errno
import os

from node.linux import syscalls as sys
from node.runtime.fields import InvalidConfig
from node.runtime.mountplan import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.processspec import Process
    from node.runtime.spec import Config

_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_SELINUX = "/sys/fs/selinux/status"
_LABELLED = ("tmpfs", "devpts", "mqueue")


def check(process: Process, mount_label: str = "") -> None:
    """With the host's /sys in sight. Raises InvalidConfig for what this kernel does not have."""
    if process.apparmor and not _apparmor():
        raise InvalidConfig("process.apparmorProfile: this kernel has no AppArmor")
    if (process.selinux or mount_label) and not os.path.exists(_SELINUX):
        field = "process.selinuxLabel" if process.selinux else "linux.mountLabel"
        raise InvalidConfig(f"{field}: this kernel has no SELinux")


def _apparmor() -> bool:
    try:
        with open(_APPARMOR) as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def wanted(process: Process) -> bool:
    return bool(process.apparmor or process.selinux)


def at_execve(process: Process, proc: int) -> None:
    """`proc`: a procfs of our own (CVE-2019-16884: the container's may lie). Raises OSError."""
    if process.apparmor:
        _write(proc, ("self/attr/apparmor/exec", "self/attr/exec"), f"exec {process.apparmor}")
    if process.selinux:
        _write(proc, ("self/attr/exec",), process.selinux)


def _write(proc: int, paths: tuple[str, ...], word: str) -> None:
    for path in paths:
        try:
            fd = sys.openat2(proc, path, os.O_WRONLY, resolve=sys.RESOLVE_IN_ROOT)
        except FileNotFoundError:
            continue
        try:
            os.write(fd, word.encode())
        except OSError as error:
            text = os.strerror(error.errno or 0).lower()
            if error.errno == errno.ENOENT:
                text = "no profile of that name is loaded"
            raise OSError(error.errno, f"label {word!r}: {text}") from error
        finally:
            os.close(fd)
        return
    raise OSError(f"label {word!r}: this kernel has no place for it")


def of_mounts(config: Config, steps: list[Step]) -> list[Step]:
    """With linux.mountLabel on every file system that takes one."""
    if not config.mount_label:
        return steps
    return [_labelled(step, config.mount_label) if step.kind in _LABELLED and not step.remount else step
            for step in steps]


def _labelled(step: Step, label: str) -> Step:
    fields = {name: getattr(step, name) for name in Step.__slots__}  # type: ignore[attr-defined]
    fields["data"] = (*step.data, ("context", label))
    return Step(**fields)
