"""Finding one path in a tree that may change while it is looked at, and saying what is there."""

import os
import stat
from collections.abc import Mapping
from typing import Any

from node.files.errors import Misfit, NotADirectory, PathMissing
from node.files.view import IN_ROOT, View
from node.linux import syscalls

_PLACE = os.O_PATH | os.O_CLOEXEC
_MAX_LINKS = 255
_KERNELS_OWN = frozenset({
    0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202, 0x64626720, 0x74726163, 0xCAFE4A11, 0x73636673,
    0x6165676C, 0x958458F6, 0x65735546 + 1,
})  # fmt: skip
"""proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs, bpf, securityfs, pstore, hugetlbfs (magic.h): what
the kernel makes up has no sizes, may never end and may act upon being read. It is not copied."""


def made_up(descriptor: int) -> bool:
    return syscalls.filesystem_type(descriptor) in _KERNELS_OWN


def spelled(path: str) -> tuple[list[str], bool]:
    """The path's parts, `..` taken back by spelling (it never leads above the root), and whether its end says that it
    is a directory (`/`, `/.`). Raises Misfit."""
    if "\0" in path or len(path) > 4096:
        raise Misfit("invalid path: it has a NUL byte or more than 4096 characters")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return parts, path.endswith(("/", "/.")) or path in ("", ".") or not parts


def find(view: View, path: str) -> tuple[int, str]:
    """What is at `path`, as an O_PATH descriptor, and its name. Links on the way are followed, the last one only when
    the path says it is a directory. Raises PathMissing, NotADirectory."""
    parts, directory = spelled(path)
    name = parts[-1] if parts else "/"
    flags = _PLACE | (os.O_DIRECTORY if directory else os.O_NOFOLLOW)
    try:
        found = syscalls.openat2(view.root, "/".join(parts) or ".", flags, resolve=IN_ROOT)
    except NotADirectoryError as error:
        raise NotADirectory(f"{path} is not a directory") from error
    except OSError as error:
        raise PathMissing(path) from error
    if made_up(found):
        os.close(found)
        raise PathMissing(path)
    return found, name


def describe(view: View, path: str, found: int, name: str) -> Mapping[str, Any]:
    """What `docker cp` is told of a path; the mode is Go's fs.FileMode."""
    info = os.fstat(found)
    target = "/" + "/".join(followed(view, spelled(path)[0])) if stat.S_ISLNK(info.st_mode) else ""
    return {"name": name, "size": info.st_size, "mode": go_mode(info.st_mode), "mtime_ns": info.st_mtime_ns,
            "target": target}  # fmt: skip


def followed(view: View, parts: list[str]) -> list[str]:
    """Where the path leads when every link is followed; what is not there is taken as it is spelled."""
    todo, here, links = list(reversed(parts)), list[str](), 0
    while todo:
        part = todo.pop()
        if part == "..":
            here[-1:] = []
            continue
        if part in ("", "."):
            continue
        target = _link(view, [*here, part]) if links < _MAX_LINKS else None
        if target is None:
            here.append(part)
            continue
        links += 1
        if target.startswith("/"):
            here = []
        todo.extend(reversed(target.split("/")))
    return here


def _link(view: View, parts: list[str]) -> str | None:
    try:
        found = syscalls.openat2(view.root, "/".join(parts), _PLACE | os.O_NOFOLLOW, resolve=IN_ROOT)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=found) if stat.S_ISLNK(os.fstat(found).st_mode) else None
    finally:
        os.close(found)


_GO_TYPES = {
    stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFBLK: 1 << 26, stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24, stat.S_IFCHR: (1 << 26) | (1 << 21),
}  # fmt: skip
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def go_mode(mode: int) -> int:
    """st_mode as Go's io/fs.FileMode, which the Engine API speaks."""
    bits = sum(go for unix, go in _GO_BITS if mode & unix)
    return (mode & 0o777) | _GO_TYPES.get(stat.S_IFMT(mode), 0) | bits
