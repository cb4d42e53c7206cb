"""Docker's stream frames put around bytes or taken off, for who asked for the other form than the process writes."""

from ocispec.errors import FailedPrecondition

HEADER = 8
STDOUT = 1


class WrongFrame(FailedPrecondition):
    """A monitor sent what is no frame."""


def same(data: bytes) -> bytes:
    return data


def framed(data: bytes) -> bytes:
    """A terminal's bytes, all of them standard output."""
    return bytes((STDOUT, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


class Unframed:
    """The bytes of both streams, in the order they come."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def __call__(self, data: bytes) -> bytes:
        out: list[bytes] = []
        at = 0
        while at < len(data):
            if not self._left:
                need = HEADER - len(self._header)
                self._header += data[at : at + need]
                at += need
                if len(self._header) == HEADER:
                    if self._header[0] > 2:
                        raise WrongFrame("the container's output is not framed")
                    self._left = int.from_bytes(self._header[4:], "big")
                    self._header = b""
                continue
            part = data[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            out.append(part)
        return b"".join(out)
