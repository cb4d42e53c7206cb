"""Blobs as files.

A file is written under its final name: the database alone says which keys are content, so no rename is needed to
make it appear, and one fsync of file and folder makes it durable. A sealed file has no write permission bit; that
bit is checked by us, not left to the kernel, because root passes every permission check.

Every system call runs in a thread of the store's own pool: a slow disk delays its own users and not the event loop,
nor those who need the loop's default executor.
"""

import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from storage.blobs import keys
from storage.blobs.store import (
    BytesMissing,
    CannotShare,
    KeyBusy,
    KeySealed,
    StorageKey,
    StoredBytes,
    StoreUnavailable,
)
from storage.blobs.threads import Threads
from storage.errors import StoreFull

READ_CHUNK = 1024 * 1024
THREADS = 16
IOV_MAX = 1024  # sysconf(_SC_IOV_MAX) on Linux
SEALED_MODE = 0o440
OPEN_MODE = 0o640
FICLONE = 0x4004_9409  # ioctl_ficlone(2)
UNSHARED = {
    errno.EXDEV: "it lies on another file system", errno.EMLINK: "it has as many links as the file system allows",
    errno.EPERM: "the kernel lets only a file's owner link it (fs.protected_hardlinks), or the file system cannot",
    errno.EOPNOTSUPP: "the file system cannot", errno.ENOTTY: "the file system cannot",
    errno.EINVAL: "the file system cannot", errno.ENOSYS: "the file system cannot",
}
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskBlobs:
    """BlobStore and LocalFiles upon a folder of one local file system. Call `prepare` before anything else."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = Threads(THREADS, "blobs", _translated)

    async def prepare(self) -> None:
        """Make the folders, once, so that no write has to. Raises StoreFull or StoreUnavailable."""
        await self._threads.run(_make_folders, self._root)

    def path(self, key: StorageKey) -> Path:
        return self._root / keys.object_name(key)

    async def size(self, key: StorageKey) -> int:
        return await self._threads.run(_size, key, self.path(key))

    async def read(self, key: StorageKey, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        file = await self._threads.open(os.close, _open_for_reading, key, self.path(key))
        try:
            left = length
            while left is None or left > 0:
                chunk = await self._threads.run(os.pread, file, READ_CHUNK if left is None else min(left, READ_CHUNK),
                                                start)
                if not chunk:
                    return
                start += len(chunk)
                left = None if left is None else left - len(chunk)
                yield chunk
        finally:
            # Without waiting: the last close of a deleted file frees its blocks, which takes a while for a large one.
            self._threads.soon(os.close, file)

    async def create(self) -> "DiskWriter":
        key = keys.new_key()
        path = self.path(key)
        return DiskWriter(key, path, await self._threads.open(os.close, _create, key, path), 0, self._threads)

    async def resume(self, key: StorageKey, offset: int, mark: str = "", *,  # noqa: ARG002  # the lock says who writes
                     contested: bool = False) -> "DiskWriter":  # noqa: ARG002
        path = self.path(key)
        file = await self._threads.open(os.close, _resume, key, path, offset)
        return DiskWriter(key, path, file, offset, self._threads)

    async def settle(self, key: StorageKey, offset: int, mark: str = "") -> None:
        """Files can be read while they grow."""

    async def link(self, file: int) -> StorageKey:
        return await self._threads.run(_link, self._root, file)

    async def clone(self, file: int) -> StorageKey:
        return await self._threads.run(_clone, self._root, file)

    async def delete(self, key: StorageKey) -> None:
        await self._threads.run(_delete, self.path(key))

    async def list(self) -> AsyncIterator[StoredBytes]:
        for folder in keys.FANOUT:
            for item in await self._threads.run(_list_folder, self._root / keys.FOLDER / folder):
                yield item


class DiskWriter:
    """BlobWriter. The open file is locked (flock(2)), so that two processes never write one upload at once."""

    def __init__(self, key: StorageKey, path: Path, file: int, offset: int, threads: Threads) -> None:
        self._key = key
        self._path = path
        self._file = file
        self._offset = offset
        self._threads = threads

    @property
    def key(self) -> StorageKey:
        return self._key

    @property
    def mark(self) -> str:
        return ""

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def readable(self) -> int:
        return self.offset

    async def write(self, chunks: Sequence[bytes | bytearray]) -> None:
        try:
            await self._threads.run(self._write_all, chunks)
        finally:
            # After a failure only the kernel knows how much it took.
            self._offset = os.lseek(self._file, 0, os.SEEK_CUR)

    async def flush(self) -> int:
        await self._threads.run(os.fdatasync, self._file)
        return self._offset

    async def seal(self) -> int:
        await self._threads.run(_seal, self._key, self._path, self._file)
        await self.close()
        return self._offset

    async def close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            await self._threads.run(os.close, file)

    def _write_all(self, chunks: Sequence[bytes | bytearray]) -> None:
        for first in range(0, len(chunks), IOV_MAX):
            views = [memoryview(chunk) for chunk in chunks[first : first + IOV_MAX]]
            while views:
                written = os.writev(self._file, views)
                while views and written >= len(views[0]):
                    written -= len(views.pop(0))
                if written:
                    views[0] = views[0][written:]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull(f"no space left for blobs: {error.strerror}") from error
        raise StoreUnavailable(f"blob store: {error.strerror or error}") from error


def _make_folders(root: Path) -> None:
    for name in keys.FANOUT:
        (root / keys.FOLDER / name).mkdir(parents=True, exist_ok=True)
    for folder in (root / keys.FOLDER, root, root.parent):
        _sync_folder(folder)


def _sync_folder(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _link(root: Path, file: int) -> StorageKey:
    """Through the descriptor, so that the link is to what the caller read and not to what the name means by now. The
    inode stays as it is, mode and times too: it belongs to somebody else as well."""
    key = keys.new_key()
    path = root / keys.object_name(key)
    os.fsync(file)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # A descriptor of a folder makes Python use linkat(2) with AT_SYMLINK_FOLLOW, which is what goes through /proc.
        os.link(f"/proc/self/fd/{file}", path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
        os.fsync(folder)
    except OSError as error:
        raise _unshared("link", error) from error
    finally:
        os.close(folder)
    return key


def _clone(root: Path, file: int) -> StorageKey:
    key = keys.new_key()
    path = root / keys.object_name(key)
    copy = _create(key, path)
    try:
        fcntl.ioctl(copy, FICLONE, file)
        _seal(key, path, copy)
    except BaseException as error:
        path.unlink()
        raise _unshared("clone", error) if isinstance(error, OSError) else error from error
    finally:
        os.close(copy)
    return key


def _unshared(what: str, error: OSError) -> Exception:
    reason = UNSHARED.get(error.errno or 0)
    return CannotShare(f"cannot {what} the file: {reason}") if reason else error


def _size(key: StorageKey, path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise BytesMissing(key) from None


def _open_for_reading(key: StorageKey, path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise BytesMissing(key) from None


def _create(key: StorageKey, path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, OPEN_MODE)
    return _locked(key, file)


def _resume(key: StorageKey, path: Path, offset: int) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except PermissionError:
        raise KeySealed(key) from None
    except FileNotFoundError:
        raise BytesMissing(key) from None
    file = _locked(key, file)
    try:
        status = os.fstat(file)
        if not status.st_mode & stat.S_IWUSR:
            raise KeySealed(key)
        if status.st_size < offset:
            raise BytesMissing(key)
        if status.st_size > offset:
            os.ftruncate(file, offset)
        os.lseek(file, offset, os.SEEK_SET)
    except BaseException:
        os.close(file)
        raise
    return file


def _locked(key: StorageKey, file: int) -> int:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise KeyBusy(key) from None
    return file


def _seal(key: StorageKey, path: Path, file: int) -> None:
    os.fchmod(file, SEALED_MODE)
    os.fsync(file)
    if os.fstat(file).st_nlink == 0:  # somebody deleted the key meanwhile: a row for it would have no bytes
        raise BytesMissing(key)
    _sync_folder(path.parent)


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)


def _list_folder(folder: Path) -> list[StoredBytes]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                key = keys.parse_key(entry.name)
                status = entry.stat(follow_symlinks=False)
            except (keys.InvalidKey, FileNotFoundError):
                continue  # not ours, or gone since
            # A linked file is as old as its content; that its inode changed when the link was made, the ctime knows.
            changed = max(status.st_mtime, status.st_ctime)
            found.append(StoredBytes(key, status.st_size, datetime.fromtimestamp(changed, UTC)))
    return found
