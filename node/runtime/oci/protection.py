"""What `/proc/<pid>/exe` names while a process of ours is in a container cannot be written from there (CVE-2019-5736):
the interpreter is executed from a read-only mount that only we have, or from a sealed copy.

The script that starts us makes that mount where it can, in a mount namespace of its own, because two small programs
there cost a fifth of a second interpreter. Here we come back from it, or, where it could not, do it ourselves. Not
enough: being undumpable. An image whose command is `#!/proc/self/exe` has our interpreter executed as its own process.
"""

from __future__ import annotations

import fcntl
import os
import sys

from node.linux import syscalls
from node.runtime.oci.failure import Failure, reason

HOST = "SEAWALL_RUNTIME_MOUNTS"
"""Environment: the descriptor of the mount namespace that the script left."""

_SELF = "/proc/self/exe"
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEALS = 1 | 2 | 4 | 8  # seal, shrink, grow, write


def ensure() -> None:
    """Returns in a protected process: this one, or another after an execve(2)."""
    if HOST in os.environ:
        _come_back(int(os.environ.pop(HOST)))
    if protected():
        return
    try:
        executable = _readonly()
    except OSError:
        executable = _sealed()
    try:
        os.execve(executable, [sys.executable, *sys.orig_argv[1:]], os.environ)
    except OSError as error:
        raise Failure(f"cannot protect the interpreter from the container: {reason(error)}") from error


def protected() -> bool:
    if os.statvfs(_SELF).f_flag & os.ST_RDONLY:
        return True
    fd = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(fcntl.fcntl(fd, _GET_SEALS) & 8)
    except OSError:
        return False  # a file that knows no seals
    finally:
        os.close(fd)


def _come_back(host: int) -> None:
    """Into the mount namespace of whoever called us. setns(2) sets root and working folder to the namespace's own,
    which is not the caller's root if that one is in a chroot: then we stay."""
    os.set_inheritable(host, False)
    root, cwd = (os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in ("/", "."))
    stay = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    path = os.getcwd()
    syscalls.setns(host, syscalls.CLONE_NEWNS)
    if os.path.sameopenfile(root, os.open("/", os.O_PATH | os.O_CLOEXEC)):
        os.chdir(path)
    else:
        syscalls.setns(stay, syscalls.CLONE_NEWNS)
        os.fchdir(root)
        os.chroot(".")
        os.fchdir(cwd)
    for fd in (host, root, cwd, stay):
        os.close(fd)


def _readonly() -> int:
    """On a mount that is attached nowhere."""
    mount = syscalls.open_tree(syscalls.AT_FDCWD, os.path.realpath(sys.executable), syscalls.OPEN_TREE_CLONE)
    syscalls.mount_setattr(mount, set_=syscalls.MOUNT_ATTR_RDONLY)
    return mount


def _sealed() -> int:
    """Where mounts are not ours to make."""
    copy = os.memfd_create("seawall-runtime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fd = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
    while os.sendfile(copy, fd, None, 1 << 30):
        pass
    os.close(fd)
    fcntl.fcntl(copy, _ADD_SEALS, _SEALS)
    # A descriptor that is open for writing cannot be executed.
    executable = os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(copy)
    return executable
