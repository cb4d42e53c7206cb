"""Compiled filters, kept: in memory, and in a folder for processes that live no longer than one container's start.

A filter is found by its profile itself, not by a hash of it: the file holds what it was compiled from, and the whole of
it is compared. What the folder holds is loaded as it is, so it must be ours alone, or it is not looked at.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import stat
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMIT = 64
_FILES = 256
_FLAGS = 4
_MADE_BY = ("seccomp.py", "seccomp_filter.py", "bpf.py", "syscall_numbers.py")


class Programs:
    """The same few profiles come again and again. The compiler is imported when one comes that is not known.

    What comes out is (program, flags for seccomp(2)).
    """

    def __init__(self, folder: str = "") -> None:
        """`folder`: made if need be, of mode 0700; empty: none."""
        self._folder = folder
        self._known: dict[bytes, tuple[bytes, int]] = {}

    def of(self, profile: Mapping[str, object]) -> tuple[bytes, int]:
        """Of a runtime-spec `linux.seccomp` object. Raises seccomp.InvalidProfile."""
        # Version 2 writes every string out: later ones tell strings apart that are equal but not the same object.
        key = marshal.dumps(profile, 2)  # type: ignore[arg-type]  # as it came from JSON
        known = self._known.get(key)
        if known is not None:
            return known
        if len(self._known) >= _LIMIT:
            self._known.clear()
        sealed = self._kept(key, profile) if self._folder else _compile(profile)
        made = self._known[key] = sealed[_FLAGS:], int.from_bytes(sealed[:_FLAGS], "little")
        return made

    def _kept(self, key: bytes, profile: Mapping[str, object]) -> bytes:
        whole = _compiler() + key
        name = f"{zlib.crc32(whole):08x}"
        try:
            folder = _own_folder(self._folder)
        except OSError:
            return _compile(profile)
        try:
            return _read(folder, name, whole) or _write(folder, name, whole, _compile(profile))
        finally:
            os.close(folder)


def _compile(profile: Mapping[str, object]) -> bytes:
    """Flags and program in one."""
    from node.linux.seccomp import compile_profile, filter_flags

    return filter_flags(profile).to_bytes(_FLAGS, "little") + compile_profile(profile)


def _compiler() -> bytes:
    """Stands for the compiler that a file was made by, and for the machine it was made on."""
    here = os.path.dirname(os.path.abspath(__file__))
    looks = [os.stat(os.path.join(here, name)) for name in _MADE_BY]
    return repr((os.uname().machine, [(look.st_size, look.st_mtime_ns) for look in looks])).encode()


def _own_folder(path: str) -> int:
    """A descriptor of the folder. Raises OSError, also when anybody else may write there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    look = os.fstat(folder)
    if look.st_uid != os.geteuid() or look.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(folder)
        raise PermissionError(f"{path} is not ours alone")
    return folder


def _read(folder: int, name: str, whole: bytes) -> bytes:
    """Nothing when it is not there, or is of another profile that has the same checksum."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        content = file.read()
    # Whole files alone are given their name, but a machine may have stopped before the bytes were on the disk.
    sealed, checksum = content[:-4], content[-4:]
    if zlib.crc32(sealed).to_bytes(4, "little") != checksum or not sealed.startswith(_head(whole)):
        return b""
    return sealed[len(_head(whole)):]


def _write(folder: int, name: str, whole: bytes, program: bytes) -> bytes:
    """Returns `program`. That it cannot be kept is nobody's failure."""
    sealed = _head(whole) + program
    new = f"{name}.{os.getpid()}"
    try:
        if len(os.listdir(folder)) >= _FILES:
            for old in os.listdir(folder):
                os.unlink(old, dir_fd=folder)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        with os.fdopen(fd, "wb") as file:
            file.write(sealed + zlib.crc32(sealed).to_bytes(4, "little"))
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        pass
    return program


def _head(whole: bytes) -> bytes:
    return len(whole).to_bytes(4, "little") + whole
