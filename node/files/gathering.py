"""What COPY and ADD take: files chosen by patterns in one tree, named as they shall be in another.

Two outputs of one walk: the files as tar, to be put in by `receiving`, or a digest of all that counts about them
(names, kinds, modes, owners, contents; no times), which is what a build's cache knows them by. The tree is hostile: the
process is shut into it (`view`), no name is looked up twice, and only regular files are opened.
"""

import contextlib
import errno
import fnmatch
import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from node.dockerfile.errors import InvalidDockerfile
from node.dockerfile.ignore import Ignore
from node.files.errors import Misfit, PathMissing, TooMuch
from node.files.lookup import made_up
from node.files.sending import MAX_DEPTH, Output, member_of, xattrs_of
from node.files.view import DIRECTORY, IN_ROOT, View
from node.images.archive import compression, headers
from node.images.archive.headers import END, header, padding
from node.images.unpack.decompress import FileInput
from node.linux import syscalls
from ocispec.errors import SeawallError

_PLACE = os.O_PATH | os.O_CLOEXEC
_WILD = re.compile(r"[*?\[\\]")
_MAX_MATCHES = 100_000
_PIECE = 1 << 20
Owner = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """`sources` are paths or patterns of the tree; `target` is where they go, without a leading slash. `folder`: the
    target is a directory, whatever the number of sources. `owner` None: as in the tree."""

    sources: tuple[str, ...]
    target: str
    folder: bool
    parents: bool = False
    exclude: tuple[str, ...] = ()
    owner: Owner | None = None
    mode: str = ""
    """Octal, or symbolic as chmod(1) takes it; empty: as in the tree."""

    there: bool = False
    """The target is a directory already, and stays what it is."""

    hidden: tuple[str, ...] = ()
    """Paths that are as if they were not there."""

    done: tuple[str, ...] = ()
    """Paths of sources that are not to be taken any more."""

    @classmethod
    def from_json(cls, job: Mapping[str, Any]) -> "Wanted":
        return cls(tuple(job["sources"]), job["target"], job["folder"], job["parents"], tuple(job["exclude"]),
                   (job["owner"][0], job["owner"][1]) if job["owner"] else None, job["mode"], job["there"],
                   tuple(job["hidden"]), tuple(job["done"]))


@dataclass(frozen=True, slots=True)
class _Found:
    """One source: its path in the tree and the name it gets. Not opened: there may be more than descriptors."""

    path: str
    name: str


class Digesting:
    """An output that only counts: contents hashed, times left out."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256(usedforsecurity=False)

    def member(self, member: headers.Member, contents: Iterator[bytes]) -> None:
        inner = hashlib.sha256(usedforsecurity=False)
        for piece in contents:
            inner.update(piece)
        for part in (header(replace(member, mtime=0)), inner.digest()):
            self._whole.update(part)

    def hexdigest(self) -> str:
        return self._whole.hexdigest()


class Packing:
    """The members as tar."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def member(self, member: headers.Member, contents: Iterator[bytes]) -> None:
        self._out.write(header(member))
        left = member.size
        for piece in contents:
            left -= len(piece)
            self._out.write(piece)
        # A file that shrank meanwhile is filled up.
        while left > 0:
            self._out.write(bytes(min(left, _PIECE)))
            left -= _PIECE
        self._out.write(padding(member.size))

    def end(self) -> None:
        self._out.write(END)
        self._out.end()


class Gatherer:
    def __init__(self, inside: View, wanted: Wanted) -> None:
        self._view = inside
        self._wanted = wanted
        self._hidden = frozenset(wanted.hidden)
        self._there = wanted.there
        self._change = mode_of(wanted.mode)
        try:
            self._exclude = Ignore(wanted.exclude)
        except InvalidDockerfile as error:
            raise Misfit(f"--exclude: {error.reason}") from error

    def sources(self) -> list[_Found]:
        """Raises PathMissing for a path that is not there and a pattern that matches nothing."""
        found: list[_Found] = []
        for source in self._wanted.sources:
            places = [one for one in self._matching(source) if one.path not in self._hidden]
            if not places:
                raise PathMissing(source)
            found += places
            if len(found) > _MAX_MATCHES:
                raise TooMuch(f"{source} matches more than {_MAX_MATCHES} paths")
        if len(found) > 1 and not self._wanted.folder:
            raise Misfit("when copying more than one source file, the destination must be a directory and end with a /")
        return found

    def archives(self) -> list[str]:
        """Paths of the sources that are archives, which ADD unpacks."""
        return [one.path for one in self.sources() if not self._left_out(one.path) and self._is_archive(one.path)]

    def gather(self, out: Digesting | Packing) -> None:
        for one in self.sources():
            if self._left_out(one.path) or one.path in self._wanted.done:
                continue
            with self._place(one.path) as place:
                if _is_folder(place):
                    top = self._base_of(one, folder=True)
                    # A target that is there, or has got something already, is not changed by what is copied into it.
                    itself = bool(top) and (not self._there or bool(self._wanted.parents and one.name))
                    self._folder(os.open(".", DIRECTORY, dir_fd=place), one.path, top, out, 0, itself=itself)
                else:
                    self._other(place, self._base_of(one, folder=False), out)
            self._there = True

    # -- finding

    def _matching(self, source: str) -> Iterator[_Found]:
        # "/./" marks where --parents begins to keep names.
        pivot, _, rest = source.rpartition("/./") if self._wanted.parents else ("", "", source)
        parts = [part for part in posixpath.normpath("/" + (f"{pivot}/{rest}" if pivot else source)).split("/") if part]
        cut = len([part for part in posixpath.normpath("/" + pivot).split("/") if part]) if pivot else 0
        if not _WILD.search(source):
            if self._exists(parts):
                yield self._named(parts, cut)
            return
        for path in sorted(self._expanded(parts)):
            if self._exists(path):
                yield self._named(path, cut)

    def _expanded(self, parts: Sequence[str]) -> list[list[str]]:
        paths: list[list[str]] = [[]]
        for part in parts:
            if not _WILD.search(part):
                paths = [[*path, part] for path in paths]
                continue
            if part == "**":
                paths = [deep for path in paths for deep in self._deep(path)]
                continue
            expression = re.compile(_segment(part))
            paths = [[*path, name] for path in paths for name in self._names(path) if expression.fullmatch(name)]
            if len(paths) > _MAX_MATCHES:
                raise TooMuch(f"{'/'.join(parts)} matches more than {_MAX_MATCHES} paths")
        return paths

    def _deep(self, path: list[str], depth: int = 0) -> Iterator[list[str]]:
        yield path
        if depth < MAX_DEPTH:
            for name in self._names(path):
                if self._is_folder([*path, name]):
                    yield from self._deep([*path, name], depth + 1)

    def _names(self, path: Sequence[str]) -> list[str]:
        place = self._open("/".join(path) or ".", follow=True)
        if place is None:
            return []
        try:
            opened = os.open(".", DIRECTORY, dir_fd=place)
        except NotADirectoryError:
            return []
        finally:
            os.close(place)
        try:
            with os.scandir(opened) as entries:
                return sorted(entry.name for entry in entries)
        finally:
            os.close(opened)

    def _is_folder(self, path: Sequence[str]) -> bool:
        place = self._open("/".join(path), follow=False)
        if place is None:
            return False
        try:
            return _is_folder(place)
        finally:
            os.close(place)

    def _exists(self, path: Sequence[str]) -> bool:
        place = self._open("/".join(path) or ".", follow=True)
        if place is not None:
            os.close(place)
        return place is not None

    @contextlib.contextmanager
    def _place(self, path: str) -> Iterator[int]:
        place = self._open(path or ".", follow=True)
        if place is None:
            raise PathMissing(path)
        try:
            yield place
        finally:
            os.close(place)

    def _open(self, path: str, *, follow: bool) -> int | None:
        try:
            place = syscalls.openat2(self._view.root, path, _PLACE | (0 if follow else os.O_NOFOLLOW), resolve=IN_ROOT)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            return None
        if made_up(place):
            os.close(place)
            return None
        return place

    def _named(self, parts: Sequence[str], cut: int) -> _Found:
        name = "/".join(parts[cut:]) if self._wanted.parents else (parts[-1] if parts else "")
        return _Found("/".join(parts), name)

    def _base_of(self, one: _Found, *, folder: bool) -> str:
        """Where it goes: what is in a directory goes into the target, a file to it or into it."""
        target = self._wanted.target.strip("/")
        if self._wanted.parents:
            return posixpath.join(target, one.name).strip("/")
        if folder:
            return target
        return posixpath.join(target, one.name) if self._wanted.folder else target

    def _is_archive(self, path: str) -> bool:
        with self._place(path) as place:
            if not stat.S_ISREG(os.fstat(place).st_mode):
                return False
            opened = self._reading(place)
        try:
            return _begins_archive(opened)
        finally:
            os.close(opened)

    # -- sending

    def _left_out(self, path: str) -> bool:
        return bool(self._wanted.exclude and path and self._exclude.leaves_out(path))

    def _folder(self, opened: int, path: str, name: str, out: Digesting | Packing, depth: int, *, itself: bool) -> None:
        if depth > MAX_DEPTH:
            raise TooMuch("a tree that is too deep")
        try:
            if itself:
                info = os.fstat(opened)
                made = member_of(info, os.fsencode(name) + b"/", headers.DIRECTORY, xattrs=xattrs_of(opened))
                out.member(self._changed(made, folder=True), iter(()))
            for entry in sorted(os.listdir(opened)):
                below = posixpath.join(path, entry)
                if below in self._hidden or (self._left_out(below) and not self._exclude.takes_back):
                    continue
                place = os.open(entry, _PLACE | os.O_NOFOLLOW, dir_fd=opened)
                try:
                    self._entry(place, below, posixpath.join(name, entry), out, depth)
                finally:
                    os.close(place)
        finally:
            os.close(opened)

    def _entry(self, place: int, path: str, name: str, out: Digesting | Packing, depth: int) -> None:
        if _is_folder(place):
            self._folder(os.open(".", DIRECTORY, dir_fd=place), path, name, out, depth + 1,
                         itself=not self._left_out(path))
        elif not self._left_out(path):
            self._other(place, name, out)

    def _other(self, place: int, name: str, out: Digesting | Packing) -> None:
        info = os.fstat(place)
        kind, raw = stat.S_IFMT(info.st_mode), os.fsencode(name)
        if kind == stat.S_IFREG:
            opened = self._reading(place)
            try:
                made = member_of(info, raw, headers.REGULAR, size=info.st_size, xattrs=xattrs_of(opened))
                out.member(self._changed(made, folder=False), _contents(opened, info.st_size))
            finally:
                os.close(opened)
        elif kind == stat.S_IFLNK:
            link = os.fsencode(os.readlink("", dir_fd=place))
            made = member_of(info, raw, headers.SYMLINK, link=link)
            out.member(replace(made, uid=self._owner(made)[0], gid=self._owner(made)[1]), iter(()))
        elif kind == stat.S_IFIFO:
            out.member(self._changed(member_of(info, raw, headers.FIFO), folder=False), iter(()))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            raise Misfit(f"{name} is a device, which cannot be copied")

    def _reading(self, place: int) -> int:
        return os.open(str(place), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._view.own)

    def _owner(self, member: headers.Member) -> Owner:
        return self._wanted.owner or (member.uid, member.gid)

    def _changed(self, member: headers.Member, *, folder: bool) -> headers.Member:
        uid, gid = self._owner(member)
        return replace(member, uid=uid, gid=gid, mode=self._change(member.mode, folder))


def _is_folder(place: int) -> bool:
    return stat.S_ISDIR(os.fstat(place).st_mode)


def _contents(opened: int, size: int) -> Iterator[bytes]:
    at = 0
    while at < size:
        piece = os.pread(opened, min(_PIECE, size - at), at)
        if not piece:
            return
        at += len(piece)
        yield piece


def _begins_archive(opened: int) -> bool:
    """Whether a tar header stands at the beginning, behind whatever compression."""
    source, head = FileInput(opened), b""
    try:
        kind = compression.told(source.peek(compression.HEAD))
        for chunk in compression.chunks(source, kind):
            head += chunk
            if len(head) >= headers.BLOCK:
                break
    except SeawallError:
        return False
    block = head[:headers.BLOCK]
    if len(block) < headers.BLOCK or not any(block):
        return False
    try:
        told = int(block[148:156].rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        return False
    return told == sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _segment(pattern: str) -> str:
    """One part of a path: `*`, `?`, `[a-z]`, `[^a-z]` and escapes, none of which matches a slash."""
    return fnmatch.translate(re.sub(r"\\(.)", r"[\1]", pattern).replace("[^", "[!"))


Change = Callable[[int, bool], int]
_CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")


def mode_of(text: str) -> Change:
    """The new mode of (old mode, whether a directory). Raises Misfit."""
    if not text:
        return lambda mode, _folder: mode
    if text.isdecimal():
        if not re.fullmatch(r"[0-7]{1,5}", text) or int(text, 8) > 0o7777:
            raise Misfit(f"invalid --chmod: {text[:50]}")
        return lambda _mode, _folder: int(text, 8)
    clauses = []
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise Misfit(f"invalid --chmod: {text[:50]}")
        clauses.append((match[1] or "a", match[2], match[3]))
    return lambda mode, folder: _symbolic(mode, clauses, folder=folder)


def _symbolic(mode: int, clauses: Sequence[tuple[str, str, str]], *, folder: bool) -> int:
    """chmod(1)."""
    shifts = {"u": 6, "g": 3, "o": 0}
    for who, operator, what in clauses:
        people = "ugo" if "a" in who else who
        bits = reach = 0
        for person in people:
            shift = shifts[person]
            execute = "x" in what or ("X" in what and (folder or mode & 0o111))
            bits |= ((4 if "r" in what else 0) | (2 if "w" in what else 0) | (1 if execute else 0)) << shift
            reach |= 7 << shift
        if "s" in what:
            bits |= (stat.S_ISUID if "u" in people else 0) | (stat.S_ISGID if "g" in people else 0)
        if "t" in what:
            bits |= stat.S_ISVTX
        if operator == "+":
            mode |= bits
        elif operator == "-":
            mode &= ~bits
        else:
            mode = (mode & ~reach) | bits
    return mode
