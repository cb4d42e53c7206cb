"""What a container changed: its own tree against the image's, without looking at what it did not touch.

Upon overlayfs the container's own tree holds only what it wrote, whiteouts for what it deleted, and opaque directories
that hide everything below them; upon plain copies it is a whole tree. The rules of what counts as a change are
Docker's: a directory is one when its attributes differ or something in it changed; a file's time and size count.
"""

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from node.files.errors import TooMuch
from node.files.sending import MAX_DEPTH
from node.files.view import DIRECTORY
from node.linux.usernamespaces import OVERLAY_XATTRS

MODIFIED, ADDED, DELETED = 0, 1, 2
_OPAQUE = f"{OVERLAY_XATTRS}opaque"
_CAPABILITY = "security.capability"

PLACES = frozenset({b"dev", b"proc", b"sys", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"})
"""Where the runtime mounts something in every container: an empty file or folder there was made for that."""


@dataclass(frozen=True, slots=True)
class Change:
    """`parent`: a descriptor of the directory of the container's own tree that holds `name`, good until the next."""

    kind: int
    path: bytes
    parent: int
    name: str


@dataclass(slots=True)
class _Level:
    own: int
    below: int
    """The image's directory at the same place; -1: there is none."""

    path: bytes
    names: Iterator[str]
    told: bool
    whole: bool
    """What is not in `own` was deleted: an opaque directory, or a whole tree."""

    name: str = ""
    any: bool = False
    """Whether `own` holds anything."""



def changes(own: int, below: int, *, whole: bool) -> Iterator[Change]:
    """Parents before what is in them, names in order. Takes both descriptors over; `below` may be -1."""
    levels = [_level(own, below, b"", "", whole=whole, told=True)]
    try:
        while levels:
            level = levels[-1]
            name = next(level.names, None)
            if name is None:
                _close(levels.pop())
                continue
            kind, deeper = _compare(level, name)
            if kind is not None:
                yield from _parents(levels)
                yield Change(kind, _path(level, name), level.own, name)
            if deeper is not None:
                if len(levels) >= MAX_DEPTH:
                    _close(deeper)
                    raise TooMuch(f"the tree is more than {MAX_DEPTH} directories deep")
                deeper.told = kind is not None
                levels.append(deeper)
    finally:
        for level in levels:
            _close(level)


def _parents(levels: list[_Level]) -> Iterator[Change]:
    """Directories in which something changed and which nobody was told of yet."""
    for above, level in itertools.pairwise(levels):
        if not level.told:
            level.told = True
            yield Change(MODIFIED, level.path, above.own, level.name)


def _compare(level: _Level, name: str) -> tuple[int | None, _Level | None]:
    """What became of one name, and the level to go on with when it is a directory."""
    old = _stat(level.below, name)
    new = _stat(level.own, name)
    if new is None or (stat.S_ISCHR(new.st_mode) and new.st_rdev == 0):
        return (DELETED if old is not None else None), None
    if not stat.S_ISDIR(new.st_mode):
        if old is None:
            return (None if _path(level, name) in PLACES and new.st_size == 0 else ADDED), None
        return (MODIFIED if _differs(level, name, old, new) else None), None
    deeper = _deeper(level, name, old)
    if deeper is None:
        return None, None
    if old is None:
        return (None if _path(level, name) in PLACES and not deeper.any else ADDED), deeper
    return (MODIFIED if _differs(level, name, old, new) else None), deeper


def _differs(level: _Level, name: str, old: os.stat_result, new: os.stat_result) -> bool:
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    if (old.st_size, old.st_mtime_ns) != (new.st_size, new.st_mtime_ns):
        return True
    return stat.S_ISREG(new.st_mode) and _capability(level.below, name) != _capability(level.own, name)


def _deeper(level: _Level, name: str, old: os.stat_result | None) -> _Level | None:
    try:
        own = os.open(name, DIRECTORY, dir_fd=level.own)
    except (FileNotFoundError, NotADirectoryError):
        return None
    below = -1
    if old is not None and stat.S_ISDIR(old.st_mode):
        below = os.open(name, DIRECTORY, dir_fd=level.below)
    return _level(own, below, _path(level, name), name, whole=level.whole or _opaque(own), told=False)


def _level(own: int, below: int, path: bytes, name: str, *, whole: bool, told: bool) -> _Level:
    mine = os.listdir(own)
    names = set(mine)
    if whole and below >= 0:
        names.update(os.listdir(below))
    return _Level(own, below, path, iter(sorted(names)), told, whole, name, bool(mine))


def _close(level: _Level) -> None:
    os.close(level.own)
    if level.below >= 0:
        os.close(level.below)


def _path(level: _Level, name: str) -> bytes:
    return level.path + b"/" + os.fsencode(name) if level.path else os.fsencode(name)


def _stat(directory: int, name: str) -> os.stat_result | None:
    if directory < 0:
        return None
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _opaque(directory: int) -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(directory, _OPAQUE) == b"y"
    return False


def _capability(directory: int, name: str) -> bytes:
    """Of a file that a running container may swap: it is never opened, for a device acts upon being opened."""
    with contextlib.suppress(OSError):
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            return os.getxattr(f"/proc/self/fd/{place}", _CAPABILITY)
        finally:
            os.close(place)
    return b""
