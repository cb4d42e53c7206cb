"""Writing archive entries into a directory tree that nothing may lead out of.

The worker has already made the tree its root directory (chroot). On top of that every path is walked here component by
component through directory descriptors, with O_NOFOLLOW, and symbolic links are resolved by hand against the tree's own
root: a name is never given to the kernel with a slash in it.

Two forms (`bare`, see node.snapshots.store.LayerTarget):
- bare: the tree holds this layer alone. Whiteouts become overlayfs' character devices 0:0 and opaque xattrs.
  Directories that the layer uses but does not contain are made with default attributes and reported as `implied`;
  something that only lower layers can hold (a hard link's target) raises NeedsLower.
- merged: the tree holds the layers below as well. Whiteouts delete, but never what this layer itself brought
  (image-spec layer.md, "Whiteouts": they apply to lower layers only, in whatever order they come).
"""

import contextlib
import errno
import os
import stat

from node.images.unpack import tar
from node.images.unpack.errors import InvalidLayer, LayerTooLarge
from node.images.unpack.files import (
    DIRECTORY,
    explained,
    may_make,
    owner,
    remove_directory,
    set_xattrs,
    times,
    write,
    write_sparse,
)
from node.images.unpack.paths import MAX_PATH, WHITEOUT, Parts, clean, hidden_name, shown, spelled
from node.images.unpack.tar import Entry, TarReader
from node.linux.usernamespaces import OVERLAY_XATTRS

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES = 256
_MAX_LINKS = 40  # what Linux itself follows in one path (path_resolution(7))
_SPECIAL_BITS = 0o7000

OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # aufs' own bookkeeping, which old images carry along
_OPAQUE_XATTR = f"{OVERLAY_XATTRS}opaque"
_TYPES = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}



class NeedsLower(Exception):
    """A bare layer names something that only the layers below can hold: unpack it upon the merged tree."""


class Tree:
    """One layer being written. `bottom`: nothing is below it, so whiteouts hide nothing. Close it."""

    def __init__(self, root: int, *, bare: bool, bottom: bool, max_entries: int) -> None:
        self._root = root
        self._bare = bare
        self._bottom = bottom
        self._max_entries = max_entries
        self._open: dict[Parts, int] = {}
        self._canonical: dict[Parts, Parts] = {}
        self._late: dict[Parts, Entry] = {}
        self._mine: set[Parts] = set()  # what this layer brought, and the directories on the way to it
        self._opaque: set[Parts] = set()
        self._whiteouts: set[Parts] = set()
        self._implied: set[Parts] = {()}
        self.entries = 0
        self.bytes = 0

    def close(self) -> None:
        self._forget_directories()

    def extract(self, archive: TarReader) -> None:
        """Raises InvalidLayer, LayerTooLarge, DiskFull, NeedsLower."""
        for entry in archive:
            self.entries += 1
            if self.entries > self._max_entries:
                raise LayerTooLarge(f"the layer has more than {self._max_entries} entries")
            if len(self._open) > _OPEN_DIRECTORIES:  # only here: within one entry descriptors are held by number
                self._forget_directories()
            try:
                self._extract(entry, archive)
            except OSError as error:
                raise explained(error, entry.name) from error
        for path in [path for path in self._whiteouts if self._covered(path)]:
            # Needless, and worse: overlayfs shows a whiteout as a file where nothing below is merged.
            os.unlink(path[-1], dir_fd=self._descriptor(path[:-1]))
            self._whiteouts.discard(path)
        for path in sorted(self._implied - self._mine, reverse=True):
            if self._covered(path):  # made for such a whiteout alone
                os.rmdir(path[-1], dir_fd=self._descriptor(path[:-1]))
                self._forget_below(path)
        self._finish_directories()

    def implied(self) -> list[bytes]:
        """Directories that the layer uses without containing them, parents first; `b""` is the root itself."""
        return [b"/".join(path) for path in sorted(self._implied) if not self._covered(path)]

    def whiteouts(self) -> list[bytes]:
        """Of a bare layer: the whiteouts that were made. Each must go if nothing below has its name (see `adopt`)."""
        return [b"/".join(path) for path in sorted(self._whiteouts)]

    def _covered(self, path: Parts) -> bool:
        """Whether a directory above is opaque, so that nothing from below is seen here."""
        return any(path[:depth] in self._opaque for depth in range(len(path)))

    # -- entries

    def _extract(self, entry: Entry, archive: TarReader) -> None:
        parts = clean(entry.name)
        if not parts:
            if entry.type == tar.DIRECTORY:  # the attributes of the root itself
                self._implied.discard(())
                self._attributes_of_directory(self._root, entry)
                self._late[()] = entry
            return  # anything else would replace the root: ignored, as it names nothing
        name = parts[-1]
        if name.startswith(WHITEOUT):
            if name == OPAQUE:
                self._make_opaque(parts[:-1])
                return
            if not name.startswith(_AUFS):
                self._whiteout(parts[:-1], hidden_name(name))
            return
        if parts[0].startswith(_AUFS):
            return
        parent = self._walk(parts[:-1], create=True, replace=True)
        path = (*parent, name)
        if entry.type == tar.CHARACTER and entry.major == entry.minor == 0:
            self._whiteout(parent, name)  # overlayfs would read it so: one meaning for every snapshotter
            return
        descriptor = self._descriptor(parent)
        self._create(entry, archive, descriptor, path)
        self._claim(path)

    def _claim(self, path: Parts) -> None:
        while path and path not in self._mine:
            self._mine.add(path)
            path = path[:-1]

    def _create(self, entry: Entry, archive: TarReader, parent: int, path: Parts) -> None:
        if entry.type == tar.DIRECTORY:
            self._make_directory(entry, parent, path)
            return
        make = {tar.REGULAR: self._make_file, tar.SYMLINK: self._make_symlink, tar.HARD_LINK: self._make_link}
        maker = make.get(entry.type, self._make_node)
        try:
            maker(entry, archive, parent, path[-1])
        except FileExistsError:
            if entry.type == tar.HARD_LINK and self._same_file(entry, parent, path[-1]):
                return
            self._remove(parent, path)
            maker(entry, archive, parent, path[-1])

    def _make_file(self, entry: Entry, archive: TarReader, parent: int, name: bytes) -> None:
        self.bytes += entry.size
        descriptor = os.open(name, _NEW_FILE, entry.mode & 0o777, dir_fd=parent)
        try:
            if entry.regions is None:
                for piece in archive.data():
                    write(descriptor, piece)
            else:
                write_sparse(descriptor, entry, archive)
            # Always, not only for other owners: a set-group-id directory below would have given its group.
            os.fchown(descriptor, *owner(entry))
            if entry.mode & _SPECIAL_BITS or not self._bare:
                os.fchmod(descriptor, entry.mode & 0o7777)
            if entry.xattrs:
                set_xattrs(descriptor, entry.xattrs)
            os.utime(descriptor, ns=times(entry))
        finally:
            os.close(descriptor)

    def _make_symlink(self, entry: Entry, _archive: TarReader, parent: int, name: bytes) -> None:
        if not entry.link:
            raise InvalidLayer(f"symbolic link {shown(entry.name)} has no target")
        os.symlink(entry.link, name, dir_fd=parent)
        self._attributes(entry, parent, name)

    def _make_node(self, entry: Entry, _archive: TarReader, parent: int, name: bytes) -> None:
        mode, device = _TYPES[entry.type] | (entry.mode & 0o7777), os.makedev(entry.major, entry.minor)
        if not may_make(mode, device):
            return  # left out, as by every rootless engine: no container of ours could open it
        os.mknod(name, mode, device, dir_fd=parent)
        self._attributes(entry, parent, name)

    def _attributes(self, entry: Entry, parent: int, name: bytes) -> None:
        os.chown(name, *owner(entry), dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            os.fchdir(parent)  # lsetxattr has no form relative to a descriptor
            set_xattrs(name, entry.xattrs)
        os.utime(name, ns=times(entry), dir_fd=parent, follow_symlinks=False)

    def _make_link(self, entry: Entry, _archive: TarReader, parent: int, name: bytes) -> None:
        """A hard link to what the last component is, be it a symbolic link; those before it are followed."""
        try:
            target, target_name = self._link_target(entry)
            os.link(target_name, name, src_dir_fd=target, dst_dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            if self._bare and not self._bottom:
                raise NeedsLower from error
            why = "a directory" if isinstance(error, PermissionError) else "not there"
            raise InvalidLayer(f"hard link {shown(entry.name)} to {shown(entry.link)}, which is {why}") from error

    def _link_target(self, entry: Entry) -> tuple[int, bytes]:
        parts = clean(entry.link)
        if not parts:
            raise InvalidLayer(f"hard link {shown(entry.name)} has no target")
        where = self._walk(parts[:-1], create=False)
        descriptor = self._descriptor(where)
        if self._bare and self._is_whiteout(descriptor, parts[-1]):
            raise FileNotFoundError(errno.ENOENT, "whiteout")
        return descriptor, parts[-1]

    def _same_file(self, entry: Entry, parent: int, name: bytes) -> bool:
        """A link onto itself (under another spelling): removing the name first would lose the file."""
        with contextlib.suppress(FileNotFoundError):
            target, target_name = self._link_target(entry)
            one = os.stat(target_name, dir_fd=target, follow_symlinks=False)
            return os.path.samestat(one, os.stat(name, dir_fd=parent, follow_symlinks=False))
        return False

    # -- directories

    def _make_directory(self, entry: Entry, parent: int, path: Parts) -> None:
        name = path[-1]
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._remove(parent, path)
                os.mkdir(name, 0o700, dir_fd=parent)
                self._cover(path)
        self._implied.discard(path)
        self._attributes_of_directory(self._descriptor(path), entry)
        self._late[path] = entry

    def _attributes_of_directory(self, descriptor: int, entry: Entry) -> None:
        os.fchown(descriptor, *owner(entry))
        os.fchmod(descriptor, entry.mode & 0o7777)

    def _finish_directories(self) -> None:
        """Times last, as every entry made in a directory touches it; xattrs too: a default ACL would be inherited."""
        for path, entry in reversed(self._late.items()):
            if len(self._open) > _OPEN_DIRECTORIES:
                self._forget_directories()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                descriptor = self._descriptor(path)
                try:
                    if entry.xattrs:
                        set_xattrs(descriptor, entry.xattrs)
                    os.utime(descriptor, ns=times(entry))
                except OSError as error:
                    raise explained(error, entry.name) from error

    def _walk(self, parts: Parts, *, create: bool, replace: bool = False) -> Parts:
        """The canonical path (no symbolic link in it) of the directory that `parts` leads to.

        With `create` what is missing is made, also behind a dangling link; with `replace` a file in the way gives
        place. Otherwise raises FileNotFoundError or NotADirectoryError.
        """
        known = self._canonical.get(parts)
        if known is not None:
            return known
        todo = list(reversed(parts))
        here: Parts = ()
        links = steps = 0
        while todo:
            part = todo.pop()
            steps += 1
            if steps > MAX_PATH:
                raise InvalidLayer("a path in the archive is too long")
            if part in (b"", b"."):
                continue
            if part == b"..":
                here = here[:-1]
                continue
            if b".." in todo and self._missing((*here, part)):
                # `gone/../etc`: nothing can be looked up below what is not there, so the spelling decides.
                here, todo = (), list(reversed(spelled((*here, part, *reversed(todo)))))
                continue
            target = self._step(here, part, create=create, replace=replace)
            if target is None:
                here = (*here, part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise InvalidLayer("too many levels of symbolic links in the archive's paths")
            if target.startswith(b"/"):
                here = ()
            todo.extend(reversed(target.split(b"/")))
        self._canonical[parts] = here
        return here

    def _missing(self, path: Parts) -> bool:
        try:
            os.stat(path[-1], dir_fd=self._descriptor(path[:-1]), follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False

    def _step(self, here: Parts, part: bytes, *, create: bool, replace: bool) -> bytes | None:
        """Go into `part` of the directory `here`: None when it is a directory, else the symbolic link's target."""
        path = (*here, part)
        if path in self._open:
            return None
        if sum(map(len, path)) + len(path) > MAX_PATH:
            raise InvalidLayer("a path in the archive is too long")
        parent = self._descriptor(here)
        try:
            self._open[path] = os.open(part, DIRECTORY, dir_fd=parent)
            return None
        except FileNotFoundError:
            if not create:
                raise
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            info = os.stat(part, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                return os.readlink(part, dir_fd=parent)
            if not replace:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
            self._replace_by_directory(parent, path)
            return None
        self._make_implied(parent, path)
        return None

    def _make_implied(self, parent: int, path: Parts) -> None:
        os.mkdir(path[-1], 0o755, dir_fd=parent)
        self._implied.add(path)
        descriptor = self._descriptor(path)
        os.fchown(descriptor, 0, 0)  # not the group and bit of a set-group-id parent
        os.fchmod(descriptor, 0o755)

    def _replace_by_directory(self, parent: int, path: Parts) -> None:
        self._remove(parent, path)
        self._make_implied(parent, path)
        self._implied.discard(path)  # it has nothing of a directory below: this layer had replaced that by a file
        self._cover(path)

    def _cover(self, path: Parts) -> None:
        """A directory took the place of a whiteout or file of this layer, which had already deleted a directory below:
        that one must not shine through again."""
        if self._bare:
            self._set_opaque(path)

    def _descriptor(self, path: Parts) -> int:
        """An open directory by its canonical path."""
        if not path:
            return self._root
        descriptor = self._open.get(path)
        if descriptor is None:
            descriptor = self._root
            for depth in range(1, len(path) + 1):
                above, descriptor = descriptor, self._open.get(path[:depth], -1)
                if descriptor < 0:
                    descriptor = os.open(path[depth - 1], DIRECTORY, dir_fd=above)
                    self._open[path[:depth]] = descriptor
        return descriptor

    def _forget_directories(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._canonical.clear()

    # -- removal and whiteouts

    def _remove(self, parent: int, path: Parts) -> None:
        """Take away what is at `path`, to make room."""
        if self._bare and not self._bottom and any(other[:len(path)] == path for other in self._implied):
            raise NeedsLower  # what went in there may have belonged elsewhere, through a symbolic link below
        self._forget_below(path)
        name = path[-1]
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            remove_directory(parent, name)

    def _forget_below(self, path: Parts) -> None:
        """Every cached path may lead through a link or directory that is about to go."""
        depth = len(path)
        self._canonical.clear()
        for other in [other for other in self._open if other[:depth] == path]:
            os.close(self._open.pop(other))
        for known in (self._late, self._mine, self._implied, self._opaque, self._whiteouts):
            for other in [other for other in known if other[:depth] == path]:
                known.pop(other) if isinstance(known, dict) else known.discard(other)

    def _whiteout(self, parent_parts: Parts, name: bytes) -> None:
        if self._bottom:
            return
        if self._bare:
            with contextlib.suppress(NotADirectoryError):
                self._bare_whiteout(self._walk(parent_parts, create=True), name)
            return
        try:
            parent = self._walk(parent_parts, create=False)
            descriptor = self._descriptor(parent)
            info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing is there to hide
        path = (*parent, name)
        if path not in self._mine:
            self._remove(descriptor, path)
        elif stat.S_ISDIR(info.st_mode):
            self._empty(path)

    def _bare_whiteout(self, parent: Parts, name: bytes) -> None:
        descriptor, path = self._descriptor(parent), (*parent, name)
        try:
            info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if path in self._mine:
                if stat.S_ISDIR(info.st_mode):
                    self._set_opaque(path)
                return
            self._remove(descriptor, path)  # a directory that only earlier whiteouts needed
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=descriptor)
        self._whiteouts.add(path)

    def _is_whiteout(self, parent: int, name: bytes) -> bool:
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0

    def _make_opaque(self, parts: Parts) -> None:
        if self._bottom:
            return
        if self._bare:
            with contextlib.suppress(NotADirectoryError):
                path = self._walk(parts, create=True)
                if not path:
                    raise NeedsLower  # overlayfs does not heed an opaque root: each name below gets its own whiteout
                self._set_opaque(path)
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._empty(self._walk(parts, create=False))

    def _set_opaque(self, path: Parts) -> None:
        if self._bottom:
            return
        os.setxattr(self._descriptor(path), _OPAQUE_XATTR, b"y")
        self._opaque.add(path)

    def _empty(self, top: Parts) -> None:
        """Remove what the layers below left in a directory, keeping what this layer brought."""
        pending = [top]
        while pending:
            path = pending.pop()
            descriptor = self._descriptor(path)
            for name in os.listdir(descriptor):
                child = (*path, os.fsencode(name))
                if child not in self._mine:
                    self._remove(descriptor, child)
                elif stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    pending.append(child)
