"""Ranges of the host's ids for containers: root in a container is an id that nobody on the host has.

A range is a run's and not a container's: files on disk have the ids that the container sees, whatever range it runs in
(id-mapped mounts). So nothing about ranges is kept in the database; who runs in one holds a lock on its bytes of one
file, which all nodes of the machine share: byte N stands for id N. The kernel drops the lock with the last copy of its
descriptor (open file description locks, fcntl(2)), however its holders end.
"""

import contextlib
import fcntl
import os
import secrets
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocispec.errors import InvalidArgument, Unavailable

SIZE = 65536
"""Of a range when nothing else is asked for: 65534 is nobody in every distribution."""

DEFAULT = ((0x8000_0000, 0x7FFF_0000),)
"""Ids that no tool gives to users: useradd and systemd-nspawn end below 2³¹."""

OWNER = "seawall"
"""Whose lines of /etc/subuid are the node's."""

TRIES = 64
_FLOCK = "hhqqi4x"
"""struct flock of 64-bit Linux; the process id of an open file description lock is 0."""


class NoFreeIds(Unavailable):
    """Every range is in use."""


class InvalidRanges(InvalidArgument):
    """Text that should name ranges of ids does not."""


@dataclass(frozen=True, slots=True)
class IdRange:
    """The host's ids of one container: `first` is its root."""

    first: int
    size: int = SIZE

    def inside(self, host_id: int) -> int | None:
        """What the container calls this id of the host; None: it is not one of its own."""
        return host_id - self.first if self.first <= host_id < self.first + self.size else None

    def outside(self, inner_id: int) -> int:
        """The host's id of one of the container's. Raises ValueError."""
        if not 0 <= inner_id < self.size:
            raise ValueError(f"id {inner_id} is outside the container's {self.size} ids")
        return self.first + inner_id


@dataclass(frozen=True, slots=True)
class Held:
    """A range that is ours for as long as a copy of `lock` is open."""

    ids: IdRange
    lock: int

    def close(self) -> None:
        os.close(self.lock)


class Ranges:
    """Gives ranges out. `pools` are (first id, how many)."""

    def __init__(self, register: Path, pools: Sequence[tuple[int, int]] = DEFAULT) -> None:
        self._register = register
        self._pools = [(first, count) for first, count in pools if count > 0]

    @property
    def largest(self) -> int:
        return max((count for _, count in self._pools), default=0)

    def take(self, size: int = SIZE) -> Held:
        """A range that nobody on this machine has. Raises NoFreeIds and OSError."""
        for first in self._candidates(size):
            if (held := self._hold(IdRange(first, size), exclusive=True)) is not None:
                # From now on a shared lock: who joins this container's namespaces holds the range as well.
                _lock(held.lock, fcntl.F_RDLCK, held.ids)
                return held
        raise NoFreeIds(f"no {size} ids are free for a container: the ranges of this node are in use or too small")

    def share(self, ids: IdRange) -> Held:
        """A further hold on a range that somebody has. Raises NoFreeIds: it is being given to somebody else."""
        held = self._hold(ids, exclusive=False)
        if held is None:
            raise NoFreeIds(f"the ids from {ids.first} on are no longer this container's")
        return held

    def _candidates(self, size: int) -> Iterable[int]:
        """At random first, so that a range is seldom used again at once and nodes seldom meet; then one after the
        other."""
        slots = [(first, count // size) for first, count in self._pools if count >= size]
        whole = sum(count for _, count in slots)
        for number in range(min(TRIES, whole) + whole):
            place = secrets.randbelow(whole) if number < min(TRIES, whole) else number - min(TRIES, whole)
            for first, count in slots:
                if place < count:
                    yield first + place * size
                    break
                place -= count

    def _hold(self, ids: IdRange, *, exclusive: bool) -> Held | None:
        self._register.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._register, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _lock(lock, fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK, ids)
        except BlockingIOError:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        return Held(ids, lock)


def _lock(fd: int, kind: int, ids: IdRange) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, ids.first, ids.size, 0))


def pools(asked: str, files: tuple[Path, Path] = (Path("/etc/subuid"), Path("/etc/subgid"))) -> list[tuple[int, int]]:
    """Where containers' ids come from: what is asked for (FIRST:COUNT, …); else what both files give to `seawall`; else
    the default, less what the files give to others. Raises InvalidRanges."""
    if asked:
        return [_parse(text) for text in asked.split(",")]
    users, groups = (_entries(file) for file in files)
    own = _common(users.get(OWNER, []), groups.get(OWNER, []))
    if own:
        return own
    taken = [entry for found in (users, groups) for entries in found.values() for entry in entries]
    return _without(list(DEFAULT), taken)


def _parse(text: str) -> tuple[int, int]:
    first, colon, count = text.strip().partition(":")
    if not colon or not (first.isascii() and first.isdigit() and count.isascii() and count.isdigit()):
        raise InvalidRanges(f"a range of ids is FIRST:COUNT, not {text[:50]!r}")
    start, number = int(first), int(count)
    if start < 1 or number < SIZE or start + number > 2**32 - 1:
        raise InvalidRanges(f"the ids {text.strip()[:50]}: want at least {SIZE}, without 0 and below {2**32 - 1}")
    return start, number


def _entries(file: Path) -> dict[str, list[tuple[int, int]]]:
    """subuid(5); lines that are none are skipped."""
    found: dict[str, list[tuple[int, int]]] = {}
    with contextlib.suppress(OSError):
        for line in file.read_text(errors="replace").splitlines():
            name, _, rest = line.strip().partition(":")
            first, _, count = rest.partition(":")
            if name and not name.startswith("#") and first.isdigit() and count.isdigit():
                found.setdefault(name, []).append((int(first), int(count)))
    return found


def _common(one: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A container's users and groups have the same ids."""
    found = []
    for first, count in one:
        for start, number in other:
            low, high = max(first, start), min(first + count, start + number)
            if high - low >= SIZE:
                found.append((low, high - low))
    return found


def _without(whole: list[tuple[int, int]], taken: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    for start, number in taken:
        rest = []
        for first, count in whole:
            below, above = min(first + count, start), max(first, start + number)
            rest += [(first, below - first), (above, first + count - above)]
        whole = rest
    return [part for part in whole if part[1] >= SIZE]
