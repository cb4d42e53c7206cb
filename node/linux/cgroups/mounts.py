"""How a container gets to see its own groups under /sys/fs/cgroup, as data for whoever carries out the mounts."""

from __future__ import annotations


class GroupMount:
    """One mount. `target` is relative to the container's /sys/fs/cgroup and "" for that folder itself.

    Either a new mount of `fstype` with `data` (it shows the mounting process's cgroup namespace), or, where `source`
    is set, a bind mount of that host folder.
    """

    __slots__ = ("data", "fstype", "source", "target")

    def __init__(self, target: str, *, fstype: str = "", data: str = "", source: str = "") -> None:
        self.target = target
        self.fstype = fstype
        self.data = data
        self.source = source


class Mounts:
    """`tmpfs`: /sys/fs/cgroup is a tmpfs holding one folder a mount. `links` are (name, target) symlinks in it."""

    __slots__ = ("links", "mounts", "tmpfs")

    def __init__(self, *, tmpfs: bool, mounts: tuple[GroupMount, ...], links: tuple[tuple[str, str], ...] = ()) -> None:
        self.tmpfs = tmpfs
        self.mounts = mounts
        self.links = links
