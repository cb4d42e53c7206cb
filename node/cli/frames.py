"""Docker's stream framing, read: one byte stream number, three zero, four of length (big-endian), the data."""

from collections.abc import Iterator

HEADER = 8


class Frames:
    def __init__(self, *, multiplexed: bool) -> None:
        """Not multiplexed (a terminal's): everything is stream 1."""
        self._multiplexed = multiplexed
        self._header = b""
        self._stream = 1
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(1 or 2, bytes) as soon as they are there: a frame's data is not waited for as a whole."""
        if not self._multiplexed:
            yield 1, data
            return
        while data:
            if not self._left:
                need = HEADER - len(self._header)
                self._header, data = self._header + data[:need], data[need:]
                if len(self._header) == HEADER:
                    self._stream, self._left = self._header[0], int.from_bytes(self._header[4:], "big")
                    self._header = b""
                continue
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            yield self._stream, part
