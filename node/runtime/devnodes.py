"""Device nodes of a container: those of every container and those asked for, and the links of /dev."""

from __future__ import annotations

import errno
import os
import stat

from node.linux import syscalls as sys
from node.runtime import hostdevices
from node.runtime.mountplan import Step
from node.runtime.rootfs import Root
from node.runtime.spec import Device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.identity import UserNamespace

DEFAULT_DEVICES = (
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
)
DEV_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"), ("core", "/proc/kcore"),
)


def has_own_dev(steps: list[Step]) -> bool:
    """Whether /dev is the container's: in one bound from the host nothing may be made."""
    return not any(step.kind == "bind" and os.path.normpath(step.target) == "/dev" for step in steps)


def wanted_devices(devices: tuple[Device, ...]) -> dict[str, Device]:
    """The nodes of every container and those asked for, by path."""
    wanted = {f"/dev/{name}": Device(f"/dev/{name}", "c", major, minor, 0o666, 0, 0)
              for name, major, minor in DEFAULT_DEVICES}
    wanted.update((device.path, device) for device in devices)
    return wanted


def make_devices(root: Root, devices: tuple[Device, ...], bound: dict[str, int]) -> None:
    """Nodes that are there already must be what they should be. `bound`: detached binds of nodes that were made on the
    host's side, by path."""
    old = os.umask(0)
    try:
        for path, device in wanted_devices(devices).items():
            if path in bound:
                place = root.make_file(path)
                sys.move_mount(bound[path], place)
                os.close(place)
                continue
            parent, name = os.path.split(path)
            folder = root.make_folder(parent)
            try:
                make_node(folder, name, device)
            finally:
                os.close(folder)
        folder = root.make_folder("/dev")
        for name, target in DEV_LINKS:
            try:
                os.symlink(target, name, dir_fd=folder)
            except FileExistsError:
                continue
        os.close(folder)
    finally:
        os.umask(old)


_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def make_node(folder: int, name: str, device: Device, owner: tuple[int, int] | None = None) -> None:
    """`owner`: instead of the device's own."""
    number = 0 if device.kind == "p" else os.makedev(device.major, device.minor)
    uid, gid = owner or (device.uid, device.gid)
    try:
        # Where it is there already a user namespace's root hears so too, and not that it may make none.
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        try:
            os.mknod(name, _KINDS[device.kind] | device.mode, number, dir_fd=folder)
        except PermissionError:
            hostdevices.bind_node(folder, name, device)
            return
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        return
    there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_IFMT(there.st_mode) != _KINDS[device.kind] or there.st_rdev != number:
        raise OSError(errno.EEXIST, f"{device.path} exists and is another thing")


class Nodes:
    """Device nodes made on the host's side for a container whose root may make none, on file systems of our own.

    Those below a fresh /dev lie in it already (`fill`). The others wait in a tmpfs, to be bound where they belong.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}
        self._tree = -1

    def fill(self, dev: int, devices: tuple[Device, ...], user: UserNamespace) -> None:
        """`dev`: a detached tmpfs that will be /dev."""
        owner = user.host_uid(0), user.host_gid(0)
        for path, device in wanted_devices(devices).items():
            if path.startswith("/dev/"):
                folder, name = _folder(dev, path.split("/")[2:], owner)
                make_node(folder, name, device, (user.host_uid(device.uid), user.host_gid(device.gid)))
                os.close(folder)

    def hold(self, devices: tuple[Device, ...], user: UserNamespace, *, filled: bool) -> None:
        """`filled`: there is a /dev that has its own."""
        apart = {path: device for path, device in wanted_devices(devices).items()
                 if device.kind != "p" and not (filled and path.startswith("/dev/"))}
        if not apart:
            return
        self._tree = sys.new_mount("tmpfs", [("mode", "0755")], sys.MOUNT_ATTR_NOSUID | sys.MOUNT_ATTR_NOEXEC)
        for number, (path, device) in enumerate(apart.items()):
            self._waiting[path] = str(number)
            make_node(self._tree, str(number), device, (user.host_uid(device.uid), user.host_gid(device.gid)))

    def take(self) -> dict[str, int]:
        """Detached binds by path. In the container's mount namespace: before Linux 6.15 only what is attached can be
        copied, so the tmpfs lies over its root until that is left behind."""
        if self._tree < 0:
            return {}
        top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sys.move_mount(self._tree, top)
        os.close(top)
        found = {}
        for path, name in self._waiting.items():
            node = sys.openat2(self._tree, name, os.O_PATH | os.O_NOFOLLOW)
            found[path] = sys.open_tree(node, "", sys.OPEN_TREE_CLONE | sys.AT_EMPTY_PATH)
            os.close(node)
        os.close(self._tree)
        return found


def _folder(top: int, parts: list[str], owner: tuple[int, int]) -> tuple[int, str]:
    """The folder of a node, made where missing: nobody else has seen this tree. And the node's name."""
    current = os.dup(top)
    for part in parts[:-1]:
        try:
            os.mkdir(part, 0o755, dir_fd=current)
            os.chown(part, *owner, dir_fd=current)
        except FileExistsError:
            pass  # contextlib would be loaded for this alone
        following = sys.openat2(current, part, os.O_PATH | os.O_DIRECTORY, resolve=sys.RESOLVE_NO_SYMLINKS)
        os.close(current)
        current = following
    return current, parts[-1]
