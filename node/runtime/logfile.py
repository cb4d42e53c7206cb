"""A file that grows to a size and is then put aside: PATH becomes PATH.1, what was PATH.1 becomes PATH.2, and so on.

With `compress` a file put aside becomes PATH.1.gz, a slice at a time between other work: a monitor has no threads (its
children are born in another pid namespace, and clone(2) forbids threads then) and may not fork helpers either, which
would be born inside the container. The gzip header's extra field names the inode it was made of, so that a reader who
has that file open knows the two are one.
"""

from __future__ import annotations

import contextlib
import os

SLICE = 128 * 1024
LEVEL = 3
SUFFIXES = ("", ".gz")
EXTRA_ID = b"SW"


class RotatedFile:
    """Beyond `max_size` bytes (0: never) the next is begun; `max_files` in all.

    A write that fails (a full disk) loses that text and never stops the container: `lost` counts the failures.
    """

    def __init__(self, path: str, max_size: int, max_files: int, *, compress: bool = False) -> None:
        self._path = path
        self._max_size = max_size
        self._max_files = max(1, max_files)
        self._compress = compress and self._max_files > 1
        self._packing: _Packing | None = None
        self._fd = self._open()
        self.size = os.fstat(self._fd).st_size
        self.lost = 0
        if self._compress:
            self._pack()  # what an earlier run of the container left uncompressed

    def within(self, count: int) -> bool:
        """Whether so many bytes more may go into the present file."""
        return not self._max_size or self.size + count <= self._max_size

    def put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.write(self._fd, view)
                self.size += written
                view = view[written:]
        except OSError:
            self.lost += 1

    def rotate(self) -> None:
        try:
            while self.work():  # one file at a time is being compressed: the log waits for its disk
                pass
            for number in range(self._max_files - 1, 0, -1):
                self._shift(number)
            if self._max_files == 1:
                os.ftruncate(self._fd, 0)
            else:
                fresh = self._open()
                os.close(self._fd)
                self._fd = fresh
                if self._compress:
                    self._pack()
            self.size = 0
        except OSError:
            self.lost += 1

    def read_at(self, count: int, offset: int) -> bytes:
        return os.pread(self._fd, count, offset)

    @property
    def busy(self) -> bool:
        """Whether `work` has something to do."""
        return self._packing is not None

    def work(self) -> bool:
        """Compress one more slice; whether there is more to do."""
        if self._packing is None:
            return False
        try:
            if self._packing.step():
                return True
        except OSError:
            self.lost += 1
            self._packing.abandon()
        self._packing = None
        return False

    def close(self) -> None:
        """Not synced: what a host that loses power forgets of a log is not worth the wait of everyone who waits for a
        container's end. Nor is a compression under way, which the next run begins anew."""
        if self._packing is not None:
            self._packing.abandon()
            self._packing = None
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    def _shift(self, number: int) -> None:
        """PATH.<number - 1> becomes PATH.<number>, whatever was there."""
        for suffix in SUFFIXES:
            if number > 1:
                older = f"{self._path}.{number - 1}{suffix}"
            elif suffix:
                return
            else:
                older = self._path
            # What is replaced may have the other suffix.
            if os.path.lexists(older):
                for other in SUFFIXES:
                    if other != suffix:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(f"{self._path}.{number}{other}")
                os.rename(older, f"{self._path}.{number}{suffix}")

    def _pack(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._packing = _Packing(f"{self._path}.1")


class _Packing:
    """PATH on its way to PATH.gz, which appears whole before PATH goes."""

    def __init__(self, path: str) -> None:
        import zlib

        self._path = path
        self._checksum = zlib.crc32
        self._reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._writing = os.open(f"{path}.gz.part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                                    | os.O_NOFOLLOW, 0o640)
        except OSError:
            os.close(self._reading)
            raise
        self._deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = 0
        self._size = 0
        status = os.fstat(self._reading)
        extra = EXTRA_ID + (8).to_bytes(2, "little") + status.st_ino.to_bytes(8, "little")
        # RFC 1952: magic, deflate, FEXTRA, modification time, no hint, any system
        self._put(b"\x1f\x8b\x08\x04" + (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + b"\x00\xff"
                  + len(extra).to_bytes(2, "little") + extra)

    def step(self) -> bool:
        data = os.read(self._reading, SLICE)
        if data:
            self._crc = self._checksum(data, self._crc)
            self._size += len(data)
            self._put(self._deflate.compress(data))
            return True
        self._put(self._deflate.flush() + self._crc.to_bytes(4, "little")
                  + (self._size & 0xFFFFFFFF).to_bytes(4, "little"))
        os.rename(f"{self._path}.gz.part", f"{self._path}.gz")
        os.unlink(self._path)
        self._close()
        return False

    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(f"{self._path}.gz.part")
        self._close()

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._writing, view):]

    def _close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)
