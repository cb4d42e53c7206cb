"""What a container sees at /sys/fs/cgroup."""

from __future__ import annotations

import os

from node.linux import syscalls as sys
from node.runtime import rootfs
from node.runtime.mountplan import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.mounts import Mounts
    from node.linux.cgroups.store import Cgroups
    from node.runtime.spec import Config


def mount(root: rootfs.Root, step: Step, groups: Cgroups, config: Config) -> None:
    """/sys/fs/cgroup: one mount (version 2), or a tmpfs that holds one a hierarchy (version 1)."""
    layout = groups.mounts(config.cgroup, private=config.namespaces.get("cgroup") == "")
    if not layout.tmpfs:
        for mount in layout.mounts:
            kind = "bind" if mount.source else mount.fstype
            rootfs.build(root, Step(f"{step.target}/{mount.target}", kind, mount.source or kind, step.attributes,
                                    data=_options(mount.data)))
        return
    shelf = Step(step.target, "tmpfs", "tmpfs", step.attributes & ~sys.MOUNT_ATTR_RDONLY, data=(("mode", "755"),))
    if config.namespaces.get("mount") == "":
        rootfs.build(root, shelf)
        folder = root.open(step.target, os.O_PATH | os.O_DIRECTORY)
        _fill(folder, layout, step)
        os.close(folder)
    else:
        # In a detached tree (`covers.change_root`) only what is not mounted yet can be made read-only.
        whole = rootfs.new_mount(shelf)
        _fill(whole, layout, step)
        rootfs.build(root, shelf, whole)


def _fill(folder: int, layout: Mounts, step: Step) -> None:
    for mount in layout.mounts:
        kind = "bind" if mount.source else mount.fstype
        part = Step(f"{step.target}/{mount.target}", kind, mount.source or kind, step.attributes,
                    data=_options(mount.data))
        tree = rootfs.open_source(part) if mount.source else rootfs.new_mount(part)
        os.mkdir(mount.target, 0o755, dir_fd=folder)
        place = sys.openat2(folder, mount.target, os.O_PATH | os.O_DIRECTORY, resolve=sys.RESOLVE_NO_SYMLINKS)
        sys.mount_setattr(tree, propagation=sys.MS_PRIVATE)
        sys.move_mount(tree, place)
        os.close(tree)
        os.close(place)
    for name, target in layout.links:
        os.symlink(target, name, dir_fd=folder)
    if step.attributes & sys.MOUNT_ATTR_RDONLY:
        sys.mount_setattr(folder, set_=sys.MOUNT_ATTR_RDONLY)


def _options(data: str) -> tuple[tuple[str, str | None], ...]:
    pairs = [pair.partition("=") for pair in data.split(",") if pair]
    return tuple((name, value if equals else None) for name, equals, value in pairs)
