"""Id-mapped mounts: files of other owners than on disk (mount_setattr(2), MOUNT_ATTR_IDMAP).

Two ways to ask. `idmap` alone: whoever owns the source on disk appears as the user that the container runs as, and the
other way round; everybody else stays who they are. Or every mapping said, as podman writes it:

    idmap=uids=DISK-SEEN-COUNT[#DISK-SEEN-COUNT…];gids=…

With that, an id on disk that no mapping names appears as nobody (65534) and cannot be written.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from ocispec.errors import InvalidArgument

AUTO = "auto"
LAST = 0xFFFF_FFFF
"""No id: -1 of an uid_t."""

MAX_EXTENTS = 340
"""user_namespaces(7)"""

_EXTENT = re.compile(r"@?([0-9]{1,10})-([0-9]{1,10})-([0-9]{1,10})")

Extents = tuple[tuple[int, int, int], ...]
"""(first id on disk, first id as seen, how many)"""


class InvalidIdMap(InvalidArgument):
    """The mapping cannot be; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class IdMap:
    uids: Extents
    gids: Extents


def parse_idmap(text: str) -> IdMap | None:
    """None: `auto`. Raises InvalidIdMap."""
    if text in ("", AUTO):
        return None
    found: dict[str, Extents] = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if name not in ("uids", "gids") or not equals or name in found:
            raise InvalidIdMap(f"invalid idmap '{text[:100]}': expected uids=DISK-SEEN-COUNT;gids=DISK-SEEN-COUNT")
        found[name] = tuple(_extent(extent, text) for extent in value.split("#"))
        _check_overlap(found[name], text)
    # One alone stands for both, as a user's group mostly has the user's number.
    uids = found.get("uids", found.get("gids", ()))
    return IdMap(uids, found.get("gids", uids))


def _extent(text: str, whole: str) -> tuple[int, int, int]:
    match = _EXTENT.fullmatch(text)
    if not match:
        raise InvalidIdMap(f"invalid idmap '{whole[:100]}': '{text[:40]}' is not DISK-SEEN-COUNT")
    disk, seen, count = int(match[1]), int(match[2]), int(match[3])
    if not count or disk + count > LAST or seen + count > LAST:
        raise InvalidIdMap(f"invalid idmap '{whole[:100]}': '{text[:40]}' is empty or beyond the last id")
    return disk, seen, count


def _check_overlap(extents: Extents, whole: str) -> None:
    if len(extents) > MAX_EXTENTS:
        raise InvalidIdMap(f"invalid idmap: more than {MAX_EXTENTS} mappings")
    for side in (0, 1):
        ordered = sorted((extent[side], extent[2]) for extent in extents)
        for (first, count), (following, _) in pairwise(ordered):
            if first + count > following:
                raise InvalidIdMap(f"invalid idmap '{whole[:100]}': mappings overlap")


def exchange(disk: tuple[int, int], seen: tuple[int, int]) -> IdMap | None:
    """The owner on disk and the user of the container change places (uid, gid each). None: they are the same."""
    if disk == seen:
        return None
    return IdMap(_exchange(disk[0], seen[0]), _exchange(disk[1], seen[1]))


def _exchange(one: int, other: int) -> Extents:
    if one == other:
        return ((0, 0, LAST),)
    low, high = sorted((one, other))
    extents = [(0, 0, low), (low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1),
               (high + 1, high + 1, LAST - high - 1)]  # fmt: skip
    return tuple(extent for extent in extents if extent[2] > 0)
