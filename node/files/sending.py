"""A file tree as a tar stream, while the tree may change: no name is looked up twice, nothing waits on a device.

A file is found (O_PATH, no link followed), looked at, and only when it is a regular file opened, through the descriptor
that was looked at. So neither a swapped link nor a swapped device or FIFO does anything. A file that shrinks meanwhile
is filled up with zeros, as tar(1) does; one that grows is cut.
"""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from isal import isal_zlib

from node.files.errors import TooMuch
from node.files.lookup import made_up
from node.files.view import DIRECTORY, View
from node.images.archive import headers
from node.images.archive.headers import Member, header, padding

MAX_DEPTH = 2048
"""As deep as a path of PATH_MAX can be; a tree that is deeper was made to hurt."""

_PIECE = 1 << 20
_BUFFER = 256 * 1024
_XATTRS = ("user.",)
_CAPABILITY = "security.capability"
_TYPES = {
    stat.S_IFREG: headers.REGULAR, stat.S_IFDIR: headers.DIRECTORY, stat.S_IFLNK: headers.SYMLINK,
    stat.S_IFCHR: headers.CHARACTER, stat.S_IFBLK: headers.BLOCK_DEVICE, stat.S_IFIFO: headers.FIFO,
}  # fmt: skip


class Output(Protocol):
    def write(self, data: bytes) -> None: ...
    def file(self, descriptor: int, size: int) -> None:
        """`size` bytes of an open file, zeros where it has fewer."""
        ...

    def end(self) -> None: ...


class Plain:
    """Into a pipe; the bytes of large files go there without passing through this process (sendfile(2))."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            self.end()

    def file(self, descriptor: int, size: int) -> None:
        left = size
        if size > _BUFFER:
            self.end()
            left -= self._sent(descriptor, size)
        for piece in _pieces(descriptor, size - left, left):
            self.write(piece)

    def end(self) -> None:
        view = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while view:
            view = view[os.write(self._descriptor, view):]

    def _sent(self, descriptor: int, size: int) -> int:
        done = 0
        try:
            while done < size and (sent := os.sendfile(self._descriptor, descriptor, done, min(size - done, _PIECE))):
                done += sent
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
        return done


class Gzipped:
    """As a layer: compressed into the pipe, both digests taken on the way."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = Plain(descriptor)
        self._gzip = isal_zlib.compressobj(1, wbits=31)
        self._whole = hashlib.sha256(usedforsecurity=False)
        self._packed = hashlib.sha256(usedforsecurity=False)
        self.plain_size = self.size = 0

    def write(self, data: bytes) -> None:
        self._whole.update(data)
        self.plain_size += len(data)
        self._out(self._gzip.compress(data))

    def file(self, descriptor: int, size: int) -> None:
        for piece in _pieces(descriptor, 0, size):
            self.write(piece)

    def end(self) -> None:
        self._out(self._gzip.flush())
        self._pipe.end()

    def digests(self) -> dict[str, object]:
        return {"diff_id": self._whole.hexdigest(), "digest": self._packed.hexdigest(), "size": self.size}

    def _out(self, data: bytes) -> None:
        self.size += len(data)
        self._packed.update(data)
        self._pipe.write(data)


def _pieces(descriptor: int, start: int, left: int) -> Iterator[bytes]:
    while left:
        data = os.pread(descriptor, min(left, _PIECE), start)
        if not data:
            data = bytes(min(left, _PIECE))
        start += len(data)
        left -= len(data)
        yield data


class Sender:
    """Writes members to `out`. What the kernel makes up (/proc, /sys) is sent as empty directories."""

    def __init__(self, view: View, out: Output, newest: int | None = None) -> None:
        """`newest`: seconds since the epoch; what is younger is sent as if it were that old."""
        self._newest = newest
        self._view = view
        self._out = out
        self._links: dict[tuple[int, int], tuple[bytes, int]] = {}

    def tree(self, found: int, name: bytes) -> None:
        """What descriptor `found` (O_PATH) is, under this name, and all below it."""
        if stat.S_ISDIR(os.fstat(found).st_mode):
            self._directory(os.open(".", DIRECTORY, dir_fd=found), name)
        else:
            self._other(found, name)

    def whiteout(self, name: bytes) -> None:
        above, slash, last = name.rpartition(b"/")
        self._out.write(header(Member(above + slash + b".wh." + last, mode=0)))

    def one(self, parent: int, entry: str, name: bytes) -> None:
        """One entry of a directory, without what is below it. One that has gone meanwhile is left out."""
        with contextlib.suppress(FileNotFoundError):
            found = os.open(entry, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                if stat.S_ISDIR(os.fstat(found).st_mode):
                    opened = os.open(".", DIRECTORY, dir_fd=found)
                    try:
                        self._head(opened, name, os.fstat(opened))
                    finally:
                        os.close(opened)
                else:
                    self._other(found, name)
            finally:
                os.close(found)

    def end(self) -> None:
        self._out.write(headers.END)
        self._out.end()

    def _directory(self, top: int, name: bytes) -> None:
        levels = [(top, name, self._entered(top, name))]
        try:
            while levels:
                here, path, names = levels[-1]
                entry = next(names, None)
                if entry is None:
                    os.close(levels.pop()[0])
                    continue
                below = self._entry(here, entry, _joined(path, entry))
                if below is not None:
                    if len(levels) >= MAX_DEPTH:
                        os.close(below)
                        raise TooMuch(f"the tree is more than {MAX_DEPTH} directories deep")
                    inner = _joined(path, entry)
                    levels.append((below, inner, self._entered(below, inner)))
        finally:
            for here, _, _ in levels:
                os.close(here)

    def _entered(self, directory: int, name: bytes) -> Iterator[str]:
        if name:  # the root of an export has none
            self._head(directory, name, os.fstat(directory))
        return iter(()) if made_up(directory) else iter(sorted(os.listdir(directory)))

    def _entry(self, parent: int, entry: str, name: bytes) -> int | None:
        """Send one entry; of a directory its opened descriptor, unsent."""
        try:
            found = os.open(entry, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return None
        try:
            if stat.S_ISDIR(os.fstat(found).st_mode):
                return os.open(".", DIRECTORY, dir_fd=found)
            self._other(found, name)
            return None
        finally:
            os.close(found)

    def _other(self, found: int, name: bytes) -> None:
        info = os.fstat(found)
        kind = stat.S_IFMT(info.st_mode)
        if kind not in _TYPES or made_up(found):  # a socket has no form in tar
            return
        first = self._first_name(info, name)
        if first is not None:
            self._out.write(self._header(member_of(info, name, headers.HARD_LINK, link=first)))
        elif kind == stat.S_IFREG:
            opened = os.open(str(found), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._view.own)
            try:
                self._head(opened, name, info, info.st_size)
                self._out.file(opened, info.st_size)
                self._out.write(padding(info.st_size))
            finally:
                os.close(opened)
        else:
            link = os.fsencode(os.readlink("", dir_fd=found)) if kind == stat.S_IFLNK else b""
            self._out.write(self._header(member_of(info, name, _TYPES[kind], link=link)))

    def _head(self, opened: int, name: bytes, info: os.stat_result, size: int = 0) -> None:
        kind = _TYPES[stat.S_IFMT(info.st_mode)]
        shown = name + b"/" if kind == headers.DIRECTORY and not name.endswith(b"/") else name
        self._out.write(self._header(member_of(info, shown, kind, size=size, xattrs=xattrs_of(opened))))

    def _header(self, member: Member) -> bytes:
        if self._newest is not None and member.mtime > self._newest:
            member = replace(member, mtime=self._newest)
        return header(member)

    def _first_name(self, info: os.stat_result, name: bytes) -> bytes | None:
        """The name under which this inode was sent; names of one inode are forgotten with the last."""
        if info.st_nlink < 2:
            return None
        key = (info.st_dev, info.st_ino)
        first, left = self._links.get(key, (None, info.st_nlink))
        if left <= 1:
            self._links.pop(key, None)
        else:
            self._links[key] = (first or name, left - 1)
        return first


def _joined(path: bytes, entry: str) -> bytes:
    separator = b"" if not path or path.endswith(b"/") else b"/"
    return path + separator + os.fsencode(entry)


def member_of(info: os.stat_result, name: bytes, kind: bytes, *, size: int = 0, link: bytes = b"",
            xattrs: dict[str, bytes] | None = None) -> Member:
    device = kind in (headers.CHARACTER, headers.BLOCK_DEVICE)
    return Member(name, kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, size, int(info.st_mtime), link,
                  os.major(info.st_rdev) if device else 0, os.minor(info.st_rdev) if device else 0, xattrs or {})


def xattrs_of(opened: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with contextlib.suppress(OSError):
        for name in os.listxattr(opened):
            if name == _CAPABILITY or name.startswith(_XATTRS):
                found[name] = os.getxattr(opened, name)
    return found
