"""Byte ranges: what a client wants of a blob (RFC 9110 section 14), and where a chunk of an upload belongs."""

import re
from dataclasses import dataclass

from registry.errors import InvalidContentRange, RangeUnsatisfiable

_RANGE = re.compile(r"bytes=\s*([0-9]{0,30})-([0-9]{0,30})\s*", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?\s*([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?\s*")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `start`; never empty when it came from a request."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The last byte's position."""
        return self.start + self.length - 1


def wanted(header: str | None, size: int) -> ByteRange | None:
    """What a `Range` header asks for of `size` bytes; None: all of it.

    A header of another unit, with several ranges, or that cannot be read is ignored, as the RFC allows. One that can
    be read and names no byte raises RangeUnsatisfiable, also `500-0`, which the RFC would let us ignore: a client that
    computed it wants to hear.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1]:
        start, end = int(match[1]), int(match[2]) if match[2] else size - 1
    else:
        start, end = max(size - int(match[2]), 0), size - 1
    end = min(end, size - 1)
    if start > end:
        raise RangeUnsatisfiable(size)
    return ByteRange(start, end - start + 1)


def chunk(header: str | None) -> ByteRange | None:
    """Where the chunk lies that a `Content-Range` header announces: `<first>-<last>`, the spec's form; RFC 9110's
    `bytes first-last/total` is understood too. Raises InvalidContentRange."""
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None or int(match[2]) < int(match[1]):
        raise InvalidContentRange(f"not a content range: {header[:60]!r}")
    return ByteRange(int(match[1]), int(match[2]) - int(match[1]) + 1)
