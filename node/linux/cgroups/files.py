"""Reading and writing the kernel's control files: one write is one command, and a refusal names file and reason."""

from __future__ import annotations

import errno
import os


class CgroupError(OSError):
    """The kernel refused; the text says what was asked, of which file, and the kernel's reason."""


class CgroupBusy(CgroupError):
    """Processes in the group did not freeze or die in time."""


def write(folder: str, name: str, value: object, *, what: str = "") -> None:
    """Write `value` in one write(2), as control files want it. `what` names the limit for whoever reads the error."""
    try:
        fd = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        subject = f"{what} {value}" if what else f"{name} = {value}"
        reason = os.strerror(error.errno or 0)
        raise CgroupError(error.errno, f"{subject}: the kernel refused it ({folder}/{name}: {reason})") from error


def read(folder: str, name: str) -> str:
    """The file's text without the newline at its end. Raises CgroupError."""
    try:
        with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError as error:
        raise CgroupError(error.errno, f"{folder}/{name}: {os.strerror(error.errno or 0)}") from error


def read_optional(folder: str, name: str) -> str | None:
    """Like `read`; None where this kernel has no such file or the controller refuses to answer."""
    try:
        return read(folder, name)
    except CgroupError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise


def read_number(folder: str, name: str) -> int | None:
    """A file that holds one number; None where there is no such file, or where it says `max` (no limit)."""
    text = read_optional(folder, name)
    return None if text is None or text == "max" else int(text)


def read_pairs(folder: str, name: str) -> dict[str, int]:
    """A file of `name number` lines; empty where there is no such file."""
    pairs = {}
    for line in (read_optional(folder, name) or "").splitlines():
        key, _, value = line.partition(" ")
        if value.lstrip("-").isdecimal():
            pairs[key] = int(value)
    return pairs


def has(folder: str, name: str) -> bool:
    return os.access(f"{folder}/{name}", os.F_OK)
