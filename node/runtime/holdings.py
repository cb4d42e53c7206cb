"""What a birth takes from the host while it still has the host's rights: detached mounts, found by nobody else.

The root file system and every bind are copied (open_tree(2)) and id-mapped in the monitor's mount namespace. For a
container with a user namespace also what its root could not make afterwards: a /dev with device nodes, and mounts that
show a namespace which is not its own.
"""

from __future__ import annotations

import os

from node.linux import syscalls as sys
from node.runtime import rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.identity import UserNamespace
    from node.runtime.spec import Config

_SHOWN = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}
"""File systems that show a namespace of whoever mounts them."""


class Holdings:
    """`root`: the root file system; `mounts`: by the number of their step."""

    def __init__(self, root: int, mounts: dict[int, int]) -> None:
        self.root = root
        self.mounts = mounts


def take(
    config: Config, steps: list[rootfs.Step], trees: dict[str, int], id_maps: dict[object, int],
    user: UserNamespace | None,
) -> Holdings:
    """`trees`: mounts of the host that are already copied, by source. `id_maps`: user namespaces of id-mapped mounts.
    Raises OSError naming source and target."""
    root = sys.open_tree(sys.AT_FDCWD, config.root, sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE)
    mounts = {}
    for number, step in enumerate(steps):
        if step.kind == "bind":
            owner = user.fd if user is not None and step.id_map == rootfs.CONTAINER else id_maps.get(step.id_map, -1)
            mounts[number] = rootfs.open_source(step, owner, trees.get(step.source))
        elif user is not None and _is_dev(step):
            mounts[number] = _dev(step, config, user)
    return Holdings(root, mounts)


def take_foreign(held: Holdings, steps: list[rootfs.Step], foreign: set[str]) -> None:
    """Mounts that show namespaces which belong to somebody else's user namespace, `foreign` by their name in
    config.json, entered already: only with the host's rights can they be made."""
    for number, step in enumerate(steps):
        if _SHOWN.get(step.kind) in foreign:
            held.mounts[number] = sys.new_mount(step.kind, list(step.data), step.attributes, step.source)


def _is_dev(step: rootfs.Step) -> bool:
    return step.kind == "tmpfs" and os.path.normpath(step.target) == "/dev"


def _dev(step: rootfs.Step, config: Config, user: UserNamespace) -> int:
    """Its nodes can be made on the host's side only. The folder belongs to the container's root all the same."""
    owner = {"uid": user.host_uid(0), "gid": user.host_gid(0)}
    data: list[tuple[str, str | None]] = []
    for name, value in step.data:
        if name == "uid" and value:
            owner["uid"] = user.host_uid(int(value))
        elif name == "gid" and value:
            owner["gid"] = user.host_gid(int(value))
        else:
            data.append((name, value))
    data += [(name, str(number)) for name, number in owner.items()]
    mount = sys.new_mount("tmpfs", data, step.attributes & ~sys.MOUNT_ATTR_RDONLY, step.source)
    old = os.umask(0)
    try:
        for path, device in rootfs.wanted_devices(config.devices).items():
            if path.startswith("/dev/"):
                folder, name = _folder(mount, path.split("/")[2:], (owner["uid"], owner["gid"]))
                rootfs.make_node(folder, name, device, (user.host_uid(device.uid), user.host_gid(device.gid)))
                os.close(folder)
    finally:
        os.umask(old)
    if step.attributes & sys.MOUNT_ATTR_RDONLY:
        sys.mount_setattr(mount, set_=sys.MOUNT_ATTR_RDONLY)
    return mount


def _folder(top: int, parts: list[str], owner: tuple[int, int]) -> tuple[int, str]:
    """The folder of a node, made where missing: nobody else has seen this tree. And the node's name."""
    current = os.dup(top)
    for part in parts[:-1]:
        try:
            os.mkdir(part, 0o755, dir_fd=current)
            os.chown(part, *owner, dir_fd=current)
        except FileExistsError:
            pass
        following = sys.openat2(current, part, os.O_PATH | os.O_DIRECTORY, resolve=sys.RESOLVE_NO_SYMLINKS)
        os.close(current)
        current = following
    return current, parts[-1]
