"""An archive put into a directory of a container, which may be changing the tree at the same time.

Names are walked part by part from the directory's descriptor; links on the way lead where they lead inside the
container, whose tree is this process's root. A new file is made with O_EXCL and finished by its descriptor.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from node.files.errors import Misfit, NoSpace, ReadOnly, TooMuch
from node.files.view import View
from node.images.unpack import tar
from node.images.unpack.files import DIRECTORY, owner, remove_directory, set_xattrs, times, write, write_sparse
from node.images.unpack.paths import shown
from node.images.unpack.tar import Entry, TarReader
from node.linux import syscalls

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_TYPES = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}

_THE_ARCHIVES = frozenset({
    errno.EPERM, errno.EACCES, errno.EBUSY, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG,
    errno.EMLINK, errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY,
})  # fmt: skip
"""What names, sizes and kinds of the archive can bring about."""

Owner = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rules:
    """`keep_kinds`: no directory gives way to a file and no file to a directory. `owner`: of everything that is put,
    instead of what the archive says."""

    keep_kinds: bool = False
    owner: Owner | None = None
    max_entries: int = 5_000_000


class Receiver:
    def __init__(self, view: View, top: int, where: str, rules: Rules) -> None:
        """`top`: the directory (`where` for messages). It is this object's to close."""
        self._view = view
        self._top = top
        self._where = where
        self._rules = rules
        self._parent: tuple[tuple[bytes, ...], int] | None = None
        self._late: dict[tuple[bytes, ...], Entry] = {}

    def take(self, archive: TarReader) -> None:
        """Raises Misfit, ReadOnly, NoSpace, TooMuch, InvalidLayer."""
        for count, entry in enumerate(archive):
            if count >= self._rules.max_entries:
                raise TooMuch(f"the archive has more than {self._rules.max_entries} entries")
            with self._told(entry.name):
                self._one(entry, archive)
        for parts, entry in reversed(self._late.items()):
            with self._told(entry.name), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._finish(parts, entry)
        self._forget()

    @contextlib.contextmanager
    def _told(self, name: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise told(error, name) from error

    def _one(self, entry: Entry, archive: TarReader) -> None:
        parts = inside(entry.name)
        if not parts:
            return  # the directory itself stays what it is
        above, name = parts[:-1], parts[-1]
        parent = self._folder(above, make=True)
        if not self._make_room(entry, parent, name):
            self._attributes(parent, name, entry)
            self._late[parts] = entry
            return
        makers = {tar.REGULAR: self._file, tar.SYMLINK: self._symlink, tar.HARD_LINK: self._link,
                  tar.DIRECTORY: self._directory}  # fmt: skip
        makers.get(entry.type, self._node)(entry, archive, parent, parts)

    def _make_room(self, entry: Entry, parent: int, name: bytes) -> bool:
        """False: a directory is there already, and a directory is what comes."""
        try:
            here = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return True
        comes = entry.type == tar.DIRECTORY
        if self._rules.keep_kinds and here != comes:
            place = f"{self._where.rstrip('/')}/{shown(entry.name)[1:-1]}"
            if here:
                raise Misfit(f'cannot overwrite directory "{place}" with non-directory "{self._where}"')
            raise Misfit(f'cannot overwrite non-directory "{place}" with directory "{self._where}"')
        if here and comes:
            return False
        if here:
            remove_directory(parent, name)
        else:
            os.unlink(name, dir_fd=parent)
        if self._parent is not None and self._parent[1] != parent:
            self._forget()  # the directory that was kept open may have gone just now
        return True

    def _file(self, entry: Entry, archive: TarReader, parent: int, parts: tuple[bytes, ...]) -> None:
        descriptor = os.open(parts[-1], _NEW_FILE, 0o600, dir_fd=parent)
        try:
            if entry.regions is None:
                for piece in archive.data():
                    write(descriptor, piece)
            else:
                write_sparse(descriptor, entry, archive)
            os.fchown(descriptor, *self._owner(entry))
            set_xattrs(descriptor, entry.xattrs)
            os.fchmod(descriptor, entry.mode & 0o7777)
            os.utime(descriptor, ns=times(entry))
        finally:
            os.close(descriptor)

    def _directory(self, entry: Entry, _archive: TarReader, parent: int, parts: tuple[bytes, ...]) -> None:
        os.mkdir(parts[-1], 0o700, dir_fd=parent)
        self._attributes(parent, parts[-1], entry)
        self._late[parts] = entry

    def _attributes(self, parent: int, name: bytes, entry: Entry) -> None:
        descriptor = os.open(name, DIRECTORY, dir_fd=parent)
        try:
            os.fchown(descriptor, *self._owner(entry))
            os.fchmod(descriptor, entry.mode & 0o7777)
        finally:
            os.close(descriptor)

    def _finish(self, parts: tuple[bytes, ...], entry: Entry) -> None:
        """Times last, as every entry made in a directory touches it."""
        descriptor = os.open(parts[-1], DIRECTORY, dir_fd=self._folder(parts[:-1]))
        try:
            set_xattrs(descriptor, entry.xattrs)
            os.utime(descriptor, ns=times(entry))
        finally:
            os.close(descriptor)

    def _symlink(self, entry: Entry, _archive: TarReader, parent: int, parts: tuple[bytes, ...]) -> None:
        if not entry.link:
            raise Misfit(f"symbolic link {shown(entry.name)} has no target")
        os.symlink(entry.link, parts[-1], dir_fd=parent)
        self._settle(entry, parent, parts[-1])

    def _link(self, entry: Entry, _archive: TarReader, parent: int, parts: tuple[bytes, ...]) -> None:
        target = inside(entry.link)
        if not target:
            raise Misfit(f"hard link {shown(entry.name)} has no target")
        mine = os.dup(parent)
        try:
            os.link(target[-1], parts[-1], src_dir_fd=self._folder(target[:-1]), dst_dir_fd=mine,
                    follow_symlinks=False)  # fmt: skip
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Misfit(f"hard link {shown(entry.name)} to {shown(entry.link)}, which is not there") from error
        finally:
            os.close(mine)

    def _node(self, entry: Entry, _archive: TarReader, parent: int, parts: tuple[bytes, ...]) -> None:
        kind = _TYPES.get(entry.type)
        if kind is None:
            raise Misfit(f"{shown(entry.name)} is of a type that cannot be put into a container")
        mode = entry.mode & 0o7777
        os.mknod(parts[-1], kind | mode, os.makedev(entry.major, entry.minor), dir_fd=parent)
        place = os.open(parts[-1], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(str(place), mode, dir_fd=self._view.own)  # follows to the very node, whatever stands there now
        finally:
            os.close(place)
        self._settle(entry, parent, parts[-1])

    def _settle(self, entry: Entry, parent: int, name: bytes) -> None:
        os.chown(name, *self._owner(entry), dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=times(entry), dir_fd=parent, follow_symlinks=False)

    def _owner(self, entry: Entry) -> Owner:
        return self._rules.owner or owner(entry)

    # -- directories on the way

    def _folder(self, parts: tuple[bytes, ...], *, make: bool = False) -> int:
        if not parts:
            return self._top
        if self._parent is not None and self._parent[0] == parts:
            return self._parent[1]
        here = os.dup(self._top)
        for part in parts:
            above = here
            try:
                here = self._step(above, part, make=make)
            finally:
                os.close(above)
        self._forget()
        self._parent = (parts, here)
        return here

    def _step(self, above: int, part: bytes, *, make: bool) -> int:
        text = os.fsdecode(part)
        try:
            return syscalls.openat2(above, text, _FOLDER, resolve=syscalls.RESOLVE_NO_MAGICLINKS)
        except FileNotFoundError:
            if not make:
                raise
        try:
            os.mkdir(part, 0o755, dir_fd=above)
        except FileExistsError as error:
            raise Misfit(f"{shown(part)} is a link that leads nowhere") from error
        if self._rules.owner is not None:
            os.chown(part, *self._rules.owner, dir_fd=above, follow_symlinks=False)
        return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=above)

    def _forget(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None


def inside(name: bytes) -> tuple[bytes, ...]:
    """The name's parts. Raises Misfit for one that leads above the place it is put."""
    if len(name) > 4096:
        raise Misfit("a path in the archive is too long")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise Misfit(f"{shown(name)} is outside of the directory it would be put into")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return tuple(parts)


def told(error: OSError, name: bytes) -> Exception:
    match error.errno:
        case errno.EROFS:
            return ReadOnly(f"{shown(name)} cannot be written: the file system is read-only")
        case errno.ENOSPC | errno.EDQUOT:
            return NoSpace("no space left on device")
        case code if code in _THE_ARCHIVES:
            return Misfit(f"{shown(name)} cannot be made: {os.strerror(error.errno or 0)}")
        case _:
            return error


def owner_of(value: object) -> Owner | None:
    return (int(value[0]), int(value[1])) if isinstance(value, list) else None


