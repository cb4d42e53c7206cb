"""Groups as folders: which processes are inside, signalling them without hitting a stranger, removing the folders."""

from __future__ import annotations

import errno
import os
import time
from _collections_abc import Iterator

from node.linux import signals
from node.linux.cgroups import files
from node.linux.cgroups.files import CgroupBusy, CgroupError

_PAUSE = 0.005


def make(folder: str, made: list[str]) -> None:
    """Make one group in an existing one; `made` gets its folder unless it was there already."""
    try:
        os.mkdir(folder, 0o755)
        made.append(folder)
    except FileExistsError:
        return
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise CgroupError(error.errno, f"cannot make the group {folder}: {reason}") from error


def remove_unused(folder: str) -> None:
    """Remove one group, unless it is in use or gone."""
    try:
        os.rmdir(folder)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOENT, errno.ENOTEMPTY):
            raise CgroupError(error.errno, f"cannot remove {folder}: {os.strerror(error.errno or 0)}") from error


def groups(folder: str) -> Iterator[str]:
    """The group and all groups inside it, the innermost first. A group that is gone yields nothing."""
    try:
        inside = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for path in inside:
        yield from groups(path)
    yield folder


def pids(folder: str) -> list[int]:
    """Every process in the group and inside it. 0 stands for processes this pid namespace cannot see: left out."""
    found: set[int] = set()
    for group in groups(folder):
        try:
            found.update(map(int, files.read(group, "cgroup.procs").split()))
        except CgroupError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                raise
    found.discard(0)
    return sorted(found)


def signal_all(folder: str, number: int) -> int:
    """Send a signal to all processes now in the group; gives how many got it.

    A process id read from the group may be somebody else's a moment later. So a pidfd is taken first and the group is
    read again: an id that is still listed was the group's when the pidfd was taken.
    """
    held: dict[int, int] = {}
    try:
        for pid in pids(folder):
            try:
                held[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                break  # the caller comes again until nobody is left
        still = set(pids(folder))
        return sum(_signal(fd, number) for pid, fd in held.items() if pid in still)
    finally:
        for fd in held.values():
            os.close(fd)


def _signal(pidfd: int, number: int) -> bool:
    try:
        signals.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def wait_empty(folder: str, seconds: float) -> bool:
    """Whether the group is without processes within that time."""
    end = time.monotonic() + seconds
    while pids(folder):
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE)
    return True


def remove(folder: str, seconds: float) -> None:
    """rmdir the group, inner groups first. A process that is on its way out keeps it busy for some milliseconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            for group in groups(folder):
                os.rmdir(group)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                reason = os.strerror(error.errno or 0)
                kind = CgroupBusy if error.errno == errno.EBUSY else CgroupError
                left = f"{reason}, processes {pids(folder)}"
                raise kind(error.errno, f"cannot remove the group {folder}: {left}") from None
            time.sleep(_PAUSE)
        else:
            return
