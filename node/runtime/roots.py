"""The root file system of a container, and of images that it mounts, in its monitor's mount namespace alone."""

from __future__ import annotations

import errno
import os

from node.linux import capabilities, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.identity import UserNamespace

_FLAGS = {"ro": syscalls.MS_RDONLY, "nosuid": syscalls.MS_NOSUID, "nodev": syscalls.MS_NODEV,
          "noexec": syscalls.MS_NOEXEC}


def mount_root(mount: dict[str, object], target: str, user: UserNamespace | None = None) -> None:
    """The root file system, in this process's mount namespace alone: when the monitor ends, however it ends, the
    mount is gone. `user`: what belongs to 0 on disk belongs to its root here, and so on; nothing is changed on disk.
    """
    os.makedirs(target, mode=0o700, exist_ok=True)
    options = [str(option) for option in mount["options"]]  # type: ignore[attr-defined]
    flags = sum(_FLAGS[option] for option in options if option in _FLAGS)
    if mount["type"] == "bind":
        _bind_root(str(mount["source"]), target, flags, recursive="rbind" in options, user=user)
        return
    data = ",".join(option for option in options if option not in _FLAGS)
    source, kind, folder = str(mount["source"]) or "overlay", str(mount["type"]), str(mount["cwd"])
    if user is not None:
        _mount_mapped(source, target, kind, flags, data, folder, user)
        return
    if folder:
        os.chdir(folder)
    syscalls.mount(source, target, kind, flags, data)
    os.chdir("/")


def _bind_root(source: str, target: str, flags: int, *, recursive: bool, user: UserNamespace | None) -> None:
    if user is None:
        syscalls.mount(source, target, flags=syscalls.MS_BIND | (syscalls.MS_REC if recursive else 0))
        if flags:
            syscalls.mount("", target, flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | flags)
        return
    tree = _mapped(source, user, recursive=recursive)
    # MS_RDONLY, _NOSUID, _NODEV and _NOEXEC are the same numbers as MOUNT_ATTR_*.
    syscalls.mount_setattr(tree, set_=flags, propagation=syscalls.MS_PRIVATE, recursive=recursive)
    _attach(tree, target)


def _mount_mapped(source: str, target: str, kind: str, flags: int, data: str, folder: str, user: UserNamespace) -> None:
    """overlayfs itself cannot be id-mapped, but the folders can that it stands on (Linux 5.19).

    Options name them relative to `folder`, which lies in the one folder of all of them: an id-mapped copy of that is
    mounted over it for as long as the mount takes (overlayfs makes private copies). The overlay works on the upper
    folder as whoever mounted it: copies files up, makes its work folder. That must be somebody whom the mapping knows,
    or the container is read-only (EOVERFLOW); so it is mounted by the container's root, with our capabilities.
    """
    above, name = os.path.split(folder.rstrip("/"))
    tree = _mapped(above, user, recursive=False)
    _attach(tree, above)
    try:
        os.chdir(above)  # the copy: it lies on top
        os.chdir(name)
        with _files_of(user):
            syscalls.mount(source, target, kind, flags, data)
    finally:
        os.chdir("/")
        syscalls.umount(above, syscalls.MNT_DETACH)


def _mapped(source: str, user: UserNamespace, *, recursive: bool) -> int:
    flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if recursive else 0)
    tree = syscalls.open_tree(syscalls.AT_FDCWD, source, flags)
    try:
        syscalls.mount_setattr(tree, set_=syscalls.MOUNT_ATTR_IDMAP, userns=user.fd, recursive=recursive)
    except OSError as error:
        os.close(tree)
        if error.errno != errno.EINVAL:
            raise
        raise OSError(errno.EINVAL, f"the file system of {source} has no id-mapped mounts, which a container with a "
                      "user namespace needs: use --userns=host") from error
    return tree


def _attach(tree: int, target: str) -> None:
    place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.move_mount(tree, place)
    finally:
        os.close(place)
        os.close(tree)


class _files_of:  # noqa: N801 -- a context manager; contextlib is not for monitors
    """Within the block this thread's files are the root's of that namespace; its capabilities are as before."""

    def __init__(self, user: UserNamespace) -> None:
        self._user = user

    def __enter__(self) -> None:
        self._before = capabilities.saved()
        # Group first: a file user that is not root takes the capabilities over files away.
        syscalls.setfsgid(self._user.host_gid(0))
        syscalls.setfsuid(self._user.host_uid(0))
        capabilities.restore(self._before)

    def __exit__(self, *_error: object) -> None:
        syscalls.setfsuid(0)
        syscalls.setfsgid(0)
        capabilities.restore(self._before)


def unmount_root(target: str) -> None:
    """So that the next run of the container can mount its writable layer, and its removal take it away, at once."""
    try:
        syscalls.umount(target)
    except OSError:
        syscalls.umount(target, syscalls.MNT_DETACH)
