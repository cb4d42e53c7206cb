"""The mounts of config.json as data: every option that runtime-spec 1.2 lists, taken apart (`plan`).

What is carried out with them is `rootfs`' affair.
"""

from __future__ import annotations

import os

from node.linux import syscalls as sys
from node.runtime.fields import InvalidConfig
from node.runtime.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.spec import Config, Mount

ATTRIBUTES = {
    "ro": sys.MOUNT_ATTR_RDONLY, "nosuid": sys.MOUNT_ATTR_NOSUID, "nodev": sys.MOUNT_ATTR_NODEV,
    "noexec": sys.MOUNT_ATTR_NOEXEC, "nodiratime": sys.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": sys.MOUNT_ATTR_NOSYMFOLLOW,
}
_OPPOSITE = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "diratime": "nodiratime",
             "symfollow": "nosymfollow"}
_ATIME = {"relatime": sys.MOUNT_ATTR_RELATIME, "atime": sys.MOUNT_ATTR_RELATIME,
          "norelatime": sys.MOUNT_ATTR_RELATIME, "nostrictatime": sys.MOUNT_ATTR_RELATIME,
          "noatime": sys.MOUNT_ATTR_NOATIME,
          "strictatime": sys.MOUNT_ATTR_STRICTATIME}
PROPAGATION = {
    "private": (sys.MS_PRIVATE, False), "rprivate": (sys.MS_PRIVATE, True),
    "slave": (sys.MS_SLAVE, False), "rslave": (sys.MS_SLAVE, True),
    "shared": (sys.MS_SHARED, False), "rshared": (sys.MS_SHARED, True),
    "unbindable": (sys.MS_UNBINDABLE, False), "runbindable": (sys.MS_UNBINDABLE, True),
}
_SILENT = frozenset(("defaults", "silent", "loud"))
"""fsopen(2) says nothing to the kernel's log anyway."""

_USUAL = frozenset(("async", "nomand", "nolazytime", "noiversion"))
"""What a bind is without being told."""

OPTIONS = frozenset((
    *ATTRIBUTES, *_OPPOSITE, *_ATIME, *(f"r{word}" for word in (*ATTRIBUTES, *_OPPOSITE, *_ATIME)), *PROPAGATION,
    *_SILENT, *_USUAL, "bind", "rbind", "idmap", "ridmap", "remount", "tmpcopyup", "sync", "dirsync", "lazytime",
    "mand",
))
"""All but those of single file systems; also X-mount.subdir=."""

CONTAINER = "container"
_OF_A_FILE_SYSTEM = frozenset(("mode", "size", "uid", "gid", "nr_blocks", "nr_inodes"))
SUBDIR = "X-mount.subdir="


@record
class Step:
    """One mount. `attributes` are set on it and `clear` taken away, the recursive ones also on all below it; `data`
    goes to a new file system. `propagation`: keys of PROPAGATION, in order."""

    target: str
    kind: str
    source: str
    attributes: int = 0
    clear: int = 0
    recursive_attributes: int = 0
    recursive_clear: int = 0
    recursive: bool = False
    data: tuple[tuple[str, str | None], ...] = ()
    propagation: tuple[str, ...] = ()
    subdir: str = ""
    """Of a bind: only this folder or file below the source (mount(8), X-mount.subdir)."""

    id_map: object = None
    """Of a bind: whose ids its files show: a mapping, CONTAINER (those of the container's user namespace), or None."""

    id_map_below: bool = False
    remount: bool = False
    """Changes what is mounted there instead of mounting anything."""

    copy_up: bool = False
    """Of a tmpfs: it begins with what lies below it."""


class _Words:
    """A mount's options, taken apart one by one."""

    def __init__(self) -> None:
        self.set = self.clear = self.set_below = self.clear_below = 0
        self.bind = self.recursive = self.remount = self.copy_up = self.mapped = self.mapped_below = False
        self.propagation: list[str] = []
        self.subdir = ""
        self.data: list[tuple[str, str | None]] = []

    def take(self, option: str) -> None:
        if option in _SILENT or self._action(option) or self._attribute(option):
            return
        if option.startswith(SUBDIR):
            self.subdir = option[len(SUBDIR):]
        elif option in PROPAGATION:
            self.propagation.append(option)
        elif not option.startswith(("X-", "x-")):  # comments of programs above the kernel, mount(8)
            name, equals, value = option.partition("=")
            self.data.append((name, value if equals else None))

    def _action(self, option: str) -> bool:
        if option in ("bind", "rbind"):
            self.bind, self.recursive = True, self.recursive or option == "rbind"
        elif option in ("idmap", "ridmap"):
            self.mapped, self.mapped_below = True, self.mapped_below or option == "ridmap"
        elif option == "remount":
            self.remount = True
        elif option == "tmpcopyup":
            self.copy_up = True
        else:
            return False
        return True

    def _attribute(self, option: str) -> bool:
        below = option.startswith("r") and option not in ("ro", "rw", "relatime")
        word = option[1:] if below else option
        if word in ATTRIBUTES:
            set_, clear = ATTRIBUTES[word], 0
        elif word in _OPPOSITE:
            set_, clear = 0, ATTRIBUTES[_OPPOSITE[word]]
        elif word in _ATIME:
            set_, clear = _ATIME[word], sys.MOUNT_ATTR__ATIME
        else:
            return False
        if below:
            self.set_below = (self.set_below & ~clear) | set_
            self.clear_below = (self.clear_below & ~(set_ & ~sys.MOUNT_ATTR__ATIME)) | clear
        else:
            self.set = (self.set & ~clear) | set_
            self.clear = (self.clear & ~(set_ & ~sys.MOUNT_ATTR__ATIME)) | clear
        return True


def plan(config: Config) -> list[Step]:
    """The mounts in order. Raises InvalidConfig for an option that this runtime does not know."""
    return [_step(mount) for mount in config.mounts]


def _step(mount: Mount) -> Step:
    words = _Words()
    for option in mount.options:
        words.take(option)
    kind = "bind" if words.bind or mount.kind == "bind" else mount.kind
    if kind == "bind":
        words.data = [(name, value) for name, value in words.data if value is not None or name not in _USUAL]
    _check(mount, kind, words)
    id_map = mount.id_map or (CONTAINER if words.mapped else None)
    return Step(mount.destination, kind, mount.source, words.set, words.clear, words.set_below, words.clear_below,
                words.recursive, tuple(words.data), tuple(words.propagation), words.subdir, id_map,
                words.mapped_below, words.remount, words.copy_up)


def _check(mount: Mount, kind: str, words: _Words) -> None:
    where = f"mount of {mount.destination}"
    if not kind.isascii() or kind in ("", "none"):
        raise InvalidConfig(f"{where}: type {kind!r} is not supported")
    if kind == "bind":
        # mount(2) does not look at them, and there are engines that write them for every mount.
        words.data = [pair for pair in words.data if pair[0] not in _OF_A_FILE_SYSTEM]
    if kind == "bind" and words.data:
        raise InvalidConfig(f"{where}: a bind has no option {words.data[0][0]!r}")
    if kind == "bind" and not mount.source and not words.remount:
        raise InvalidConfig(f"{where}: a bind needs a source")
    if kind != "bind" and (words.subdir or mount.id_map or words.mapped):
        raise InvalidConfig(f"{where}: only binds are id-mapped or of a part")
    if words.subdir and any(word.endswith("shared") for word in words.propagation):
        raise InvalidConfig(f"{where}: a part cannot be shared")
    if words.copy_up and kind != "tmpfs":
        raise InvalidConfig(f"{where}: tmpcopyup is of tmpfs")
    if words.remount and (words.subdir or mount.id_map or words.mapped):
        raise InvalidConfig(f"{where}: a remount maps no ids")


def is_dev(step: Step) -> bool:
    """Whether it is a fresh /dev."""
    return step.kind == "tmpfs" and not step.remount and os.path.normpath(step.target) == "/dev"
