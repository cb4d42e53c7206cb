"""What a birth takes from the host while it still has the host's rights: detached mounts, found by nobody else.

The root file system and every bind are copied (open_tree(2)) and id-mapped in the monitor's mount namespace. For a
container with a user namespace also what its root could not make afterwards: a /dev with device nodes, and mounts that
show a namespace which is not its own.
"""

from __future__ import annotations

import os

from node.linux import syscalls as sys
from node.runtime import mountplan, rootfs
from node.runtime.devnodes import Nodes
from node.runtime.mountplan import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.identity import UserNamespace
    from node.runtime.spec import Config

_SHOWN = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}
"""File systems that show a namespace of whoever mounts them."""


class Holdings:
    """`root`: the root file system; `mounts`: by the number of their step."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.mounts: dict[int, int] = {}
        self.nodes = Nodes()


def take(
    config: Config, steps: list[Step], trees: dict[int, int], id_maps: dict[object, int], user: UserNamespace | None,
) -> Holdings:
    """`trees`: mounts of the host that are already copied, by number. `id_maps`: user namespaces of id-mapped mounts.
    The working folder is the root file system's place afterwards. Raises OSError naming source and target."""
    held = Holdings(-1 if config.namespaces.get("mount") else take_root(config))
    for number, step in enumerate(steps):
        if step.kind == "bind" and not step.remount and (number in trees or _needs_taking(config, step, user)):
            mapped = user is not None and step.id_map == mountplan.CONTAINER
            owner = user.fd if mapped and user is not None else id_maps.get(step.id_map, -1)
            held.mounts[number] = rootfs.open_source(step, owner, trees.get(number))
    if user is not None:
        _take_nodes(held, config, steps, user)
    return held


def _needs_taking(config: Config, step: Step, user: UserNamespace | None) -> bool:
    """Whether a bind cannot be copied when its turn comes. Where it can it is, for /proc/self/mountinfo shows mounts in
    the order of their making, and that is to be the one of config.json."""
    if user is not None or config.namespaces.get("mount") != "" or step.id_map is not None:
        return True
    # What the host shall see later mounts of is copied before our mounts stop to give anything back.
    return config.propagation.endswith("shared") and any(word.endswith("shared") for word in step.propagation)


def take_root(config: Config) -> int:
    """Of a container that joins a mount namespace only there: what was copied in another one nothing can be mounted
    on. Raises OSError."""
    try:
        os.chdir(config.root)
        root = sys.open_tree(sys.AT_FDCWD, ".", sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE)
        # What is mounted on it is the container's alone, also where the host's mounts are shared.
        sys.mount_setattr(root, propagation=sys.MS_SLAVE, recursive=True)
    except OSError as error:
        raise OSError(error.errno, f"root.path {config.root}: {os.strerror(error.errno or 0).lower()}") from error
    return root


def take_foreign(held: Holdings, steps: list[Step], foreign: set[str], pids: str) -> None:
    """Mounts that show namespaces which belong to somebody else's user namespace, `foreign` by their name in
    config.json, entered already: only with the host's rights can they be made. `pids`: path of the pid namespace, for
    which entering means its children only."""
    for number, step in enumerate(steps):
        if _SHOWN.get(step.kind) in foreign and not step.remount:
            held.mounts[number] = proc_of(step, pids) if step.kind == "proc" and pids else rootfs.new_mount(step)


def take_proc(held: Holdings, steps: list[Step], pids: str) -> None:
    """procfs of a pid namespace in which this process is not: a plain one would show the processes around us."""
    for number, step in enumerate(steps):
        if step.kind == "proc" and not step.remount:
            held.mounts[number] = proc_of(step, pids)


def proc_of(step: Step, pids: str) -> int:
    """Linux 6.17 and later. Raises OSError, also where the kernel cannot be told: never another namespace's."""
    return sys.new_mount("proc", [*step.data, ("pidns", pids)], step.attributes, step.source)


def _take_nodes(held: Holdings, config: Config, steps: list[Step], user: UserNamespace) -> None:
    old = os.umask(0)
    try:
        filled = False
        for number, step in enumerate(steps):
            if mountplan.is_dev(step) and not step.copy_up:
                held.mounts[number] = _dev(step, user)
                held.nodes.fill(held.mounts[number], config.devices, user)
                filled = True
        if filled or not any(step.kind == "bind" and os.path.normpath(step.target) == "/dev" for step in steps):
            held.nodes.hold(config.devices, user, filled=filled)
    finally:
        os.umask(old)


def _dev(step: Step, user: UserNamespace) -> int:
    """Its nodes can be made on the host's side only. The folder belongs to the container's root all the same."""
    owner = {"uid": user.host_uid(0), "gid": user.host_gid(0)}
    data: list[tuple[str, str | None]] = []
    for name, value in step.data:
        if name in owner and value is not None and value.isascii() and value.isdigit():
            owner[name] = (user.host_uid if name == "uid" else user.host_gid)(int(value))
        else:
            data.append((name, value))
    data += [(name, str(number)) for name, number in owner.items()]
    return sys.new_mount("tmpfs", data, step.attributes & ~sys.MOUNT_ATTR_RDONLY, step.source)
