"""What a container sees at /sys/fs/cgroup."""

from __future__ import annotations

import os

from node.linux import syscalls as sys
from node.runtime import rootfs
from node.runtime.mountplan import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.mounts import GroupMount
    from node.linux.cgroups.store import Cgroups
    from node.runtime.spec import Config


def mount(root: rootfs.Root, step: Step, groups: Cgroups, config: Config) -> None:
    """/sys/fs/cgroup: one mount (version 2), or a tmpfs that holds one a hierarchy (version 1)."""
    layout = groups.mounts(config.cgroup, private=config.namespaces.get("cgroup") == "")
    if not layout.tmpfs:
        for mount in layout.mounts:
            _build_cgroup(root, mount, step)
        return
    writable = step.attributes & ~sys.MOUNT_ATTR_RDONLY
    rootfs.build(root, Step(step.target, "tmpfs", "tmpfs", writable, data=(("mode", "755"),)))
    folder = root.open(step.target, os.O_PATH | os.O_DIRECTORY)
    for mount in layout.mounts:
        if mount.source:
            _build_cgroup(root, mount, step)
        else:
            rootfs.new_inside(folder, mount.target, mount.fstype, _options(mount.data), step.attributes)
    for name, target in layout.links:
        os.symlink(target, name, dir_fd=folder)
    if step.attributes & sys.MOUNT_ATTR_RDONLY:
        sys.mount_setattr(folder, set_=sys.MOUNT_ATTR_RDONLY)
    os.close(folder)


def _build_cgroup(root: rootfs.Root, mount: GroupMount, step: Step) -> None:
    kind = "bind" if mount.source else mount.fstype
    rootfs.build(root, Step(f"{step.target}/{mount.target}", kind, mount.source or kind, step.attributes,
                            data=_options(mount.data)))


def _options(data: str) -> tuple[tuple[str, str | None], ...]:
    pairs = [pair.partition("=") for pair in data.split(",") if pair]
    return tuple((name, value if equals else None) for name, equals, value in pairs)
