"""Where a monitor stands: out of its launcher's session, in a mount namespace that holds the container's root."""

from __future__ import annotations

import errno
import os

from node.linux import signals, syscalls
from node.runtime import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.identity import UserNamespace
    from node.runtime.spec import Config

_IGNORED = ("SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTSTP")


def stand_alone() -> None:
    """A process of its own: whatever ends the daemon, its terminal or its launcher does not end the monitor.

    It is stopped by ending its container. Standard streams go to the null device, or whoever waits for the end of the
    daemon's output would wait for all containers.
    """
    os.setsid()
    os.chdir("/")
    for name in _IGNORED:
        signals.signal(getattr(signals, name), signals.SIG_IGN)
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    syscalls.set_name("seawall-spare")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


def own_mounts(
    host: int, shared: tuple[tuple[int, str, bool], ...], foreign: tuple[tuple[int, str], ...] = ()
) -> dict[int, int]:
    """A mount namespace of our own, made from what the host has mounted by now; it still receives what is mounted there
    later.

    Gives copies of mounts by their number in config.json. `shared`: numbers and paths (and whether with what is
    mounted below) whose mounts are copied before, for binds that give back to the host what the container mounts. A
    copy made from our own namespace, which only receives, could not give.
    `foreign`: /proc/<pid>/root/…, mounts of another container.
    """
    trees = {number: _foreign_tree(source) for number, source in foreign}
    syscalls.setns(host, syscalls.CLONE_NEWNS)
    for number, source, recursive in shared:
        flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if recursive else 0)
        trees[number] = syscalls.open_tree(syscalls.AT_FDCWD, source, flags)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=syscalls.MS_SLAVE | syscalls.MS_REC)
    return trees


def _foreign_tree(source: str) -> int:
    """A copy of what that process has there, taken inside its mount namespace: only there may its mounts be copied, and
    a symlink that the container has put there would lead through the host's tree if it were followed from ours."""
    _, _, pid, _, path = source.split("/", 4)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(namespace, syscalls.CLONE_NEWNS)
    os.close(namespace)
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    place = syscalls.openat2(top, path, os.O_PATH | os.O_DIRECTORY,
                             resolve=syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS)
    tree = syscalls.open_tree(place, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
    os.close(place)
    os.close(top)
    return tree


def enter_pid_namespace(path: str) -> None:
    """The next child of this process is in it; "": a new one, whose first process that child is."""
    if not path:
        syscalls.unshare(syscalls.CLONE_NEWPID)
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(fd, syscalls.CLONE_NEWPID)
    os.close(fd)


def id_maps(config: Config) -> dict[object, int]:
    """A user namespace for each mapping of an id-mapped mount. Before the pid namespace is entered: /proc must mean
    the processes we fork."""
    return {mount.id_map: identity.make(*mount.id_map) for mount in config.mounts if mount.id_map is not None}


FILES = "files"
"""The folder in a container's own where its secrets lie, in its monitor's mount namespace."""


def write_files(folder: str, files: list[dict[str, object]], contents: int, user: UserNamespace | None = None) -> None:
    """Each a part of `contents` (a memfd, closed here), in memory only, named by its number, read-only."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
    try:
        mount = syscalls.new_mount("tmpfs", [("mode", "0700"), ("noswap", None)], attributes)
    except OSError:  # before Linux 6.4 tmpfs knows no noswap
        mount = syscalls.new_mount("tmpfs", [("mode", "0700")], attributes)
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.move_mount(mount, place)
    os.close(place)
    offset = 0
    for number, about in enumerate(files):
        size, uid, gid, mode = (int(str(about[name])) for name in ("size", "uid", "gid", "mode"))
        file = os.open(str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=mount)
        end = offset + size
        while offset < end:
            sent = os.sendfile(file, contents, offset, end - offset)
            if not sent:
                raise OSError(errno.EIO, "the contents of a secret are cut short")
            offset += sent
        if user is not None:
            uid, gid = user.host_uid(uid), user.host_gid(gid)
        os.fchown(file, uid, gid)
        os.fchmod(file, mode)
        os.close(file)
    syscalls.mount_setattr(mount, set_=syscalls.MOUNT_ATTR_RDONLY)
    os.close(mount)
    os.close(contents)


def leave_pid_namespace() -> None:
    """Later children of this process are born beside it again."""
    fd = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(fd, syscalls.CLONE_NEWPID)
    os.close(fd)
