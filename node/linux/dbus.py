"""A client of D-Bus: enough to ask systemd for things and to hear when it has done them.

Blocking, with a deadline, for a process that has nothing else to do meanwhile. Standard library alone, because a
container's monitor uses it. Wire format: https://dbus.freedesktop.org/doc/dbus-specification.html, "Message Protocol".
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY, _DESTINATION, _SENDER, _SIGNATURE = range(1, 9)
_FIELD_KINDS = {_PATH: "o", _INTERFACE: "s", _MEMBER: "s", _DESTINATION: "s", _SIGNATURE: "g"}
_FIXED = {"y": ("B", 1), "b": ("I", 4), "n": ("h", 2), "q": ("H", 2), "i": ("i", 4), "u": ("I", 4), "x": ("q", 8),
          "t": ("Q", 8), "d": ("d", 8), "h": ("I", 4)}
_ALIGNED = {"s": 4, "o": 4, "a": 4, "(": 8, "{": 8, "g": 1, "v": 1}
MAX_MESSAGE = 16 << 20
MAX_KEPT_SIGNALS = 256
BUS = "org.freedesktop.DBus"


class BusError(OSError):
    """The other side refused, or cannot be reached. `name` is D-Bus's own of the error, or empty."""

    def __init__(self, number: int, message: str, name: str = "") -> None:
        super().__init__(number, message)
        self.name = name


class Variant:
    """A value that says its own type."""

    __slots__ = ("kind", "value")

    def __init__(self, kind: str, value: object) -> None:
        self.kind = kind
        self.value = value


class Message:
    __slots__ = ("body", "error", "interface", "kind", "member", "path", "reply")

    def __init__(self, kind: int, fields: dict[int, object], body: tuple[object, ...]) -> None:
        self.kind = kind
        self.path = str(fields.get(_PATH, ""))
        self.interface = str(fields.get(_INTERFACE, ""))
        self.member = str(fields.get(_MEMBER, ""))
        self.error = str(fields.get(_ERROR_NAME, ""))
        self.reply = fields.get(_REPLY)
        self.body = body


class Connection:
    """To a bus, or (`bus` False) to a program that listens itself. A context manager."""

    def __init__(self, path: str, *, bus: bool, seconds: float) -> None:
        """Raises BusError. `seconds` hold for every single thing asked."""
        self._seconds = seconds
        self._serial = 0
        self._pending = bytearray()
        self._signals: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(seconds)
            self._socket.connect(path)
            self._authenticate()
            if bus:
                self.call(BUS, "/org/freedesktop/DBus", BUS, "Hello")
        except OSError as error:
            self._socket.close()
            if isinstance(error, BusError):
                raise
            raise BusError(error.errno or errno.ETIMEDOUT, f"{path}: {error.strerror or error}") from error

    def __enter__(self) -> Connection:  # noqa: PYI034 -- Self is typing's, which the runtime does not load
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def call(self, to: str, path: str, interface: str, member: str, signature: str = "", *values: object,
             ) -> tuple[object, ...]:
        """What it answers. Raises BusError."""
        self._serial += 1
        fields = {_PATH: path, _INTERFACE: interface, _MEMBER: member}
        if to:
            fields[_DESTINATION] = to
        if signature:
            fields[_SIGNATURE] = signature
        body = marshal(signature, values)
        head = marshal("yyyyuua(yv)", (ord("l"), CALL, 0, 1, len(body), self._serial, [
            (code, Variant(_FIELD_KINDS[code], value)) for code, value in fields.items()]))
        end = time.monotonic() + self._seconds
        try:
            self._socket.sendall(head + b"\0" * (-len(head) % 8) + body)
            while True:
                message = self._receive(end)
                if message.kind in (RETURN, ERROR) and message.reply == self._serial:
                    break
                self._keep(message)
        except OSError as error:
            raise BusError(error.errno or errno.ETIMEDOUT, f"{member}: {error.strerror or error}") from error
        if message.kind == ERROR:
            said = str(message.body[0]) if message.body else message.error
            raise BusError(errno.EREMOTEIO, f"{member}: {said}", message.error)
        return message.body

    def signal(self, wanted: Callable[[Message], bool]) -> Message:
        """The next signal that is wanted, or one of those that came while others were awaited. Raises BusError."""
        for kept in self._signals:
            if wanted(kept):
                self._signals.remove(kept)
                return kept
        end = time.monotonic() + self._seconds
        try:
            while not ((message := self._receive(end)).kind == SIGNAL and wanted(message)):
                self._keep(message)
        except OSError as error:
            raise BusError(error.errno or errno.ETIMEDOUT, f"no answer: {error.strerror or error}") from error
        return message

    def _keep(self, message: Message) -> None:
        if message.kind == SIGNAL:
            self._signals = [*self._signals[-MAX_KEPT_SIGNALS:], message]

    def _authenticate(self) -> None:
        """All at once: systemd's own end forgets a message that it reads together with BEGIN (seen with 252), so none
        is sent before its OK. The empty DATA leaves it to the kernel to say who we are, in a user namespace too."""
        self._socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        if self._line() != b"DATA" or not self._line().startswith(b"OK"):
            raise BusError(errno.EACCES, "the bus does not take this user")

    def _line(self) -> bytes:
        while b"\r\n" not in self._pending:
            if len(self._pending) > 4096:
                raise BusError(errno.EPROTO, "the bus speaks another protocol")
            self._more()
        line, _, rest = bytes(self._pending).partition(b"\r\n")
        self._pending = bytearray(rest)
        return line

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise BusError(errno.ECONNRESET, "the bus has closed the connection")
        self._pending += data

    def _receive(self, end: float) -> Message:
        while (message := self._parsed()) is None:
            left = end - time.monotonic()
            if left <= 0:
                raise BusError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            self._socket.settimeout(left)
            self._more()
        return message

    def _parsed(self) -> Message | None:
        if len(self._pending) < 16:
            return None
        order = {ord("l"): "<", ord("B"): ">"}.get(self._pending[0])
        if order is None:
            raise BusError(errno.EPROTO, "the bus speaks another protocol")
        length, _serial, header = struct.unpack_from(f"{order}III", self._pending, 4)
        start = 16 + header + -header % 8
        if start + length > MAX_MESSAGE:
            raise BusError(errno.EMSGSIZE, "a message of the bus is too long")
        if len(self._pending) < start + length:
            return None
        data = bytes(self._pending[:start + length])
        del self._pending[:start + length]
        try:
            listed = unmarshal("a(yv)", data[:16 + header], order, 12)[0]
            assert isinstance(listed, list)
            fields = dict(listed)
            return Message(data[1], fields, unmarshal(str(fields.get(_SIGNATURE, "")), data, order, start))
        except (struct.error, IndexError, KeyError, ValueError, AssertionError) as error:
            raise BusError(errno.EPROTO, f"a message of the bus cannot be read: {error}") from error


# --- values


def marshal(signature: str, values: Sequence[object]) -> bytes:
    out = bytearray()
    for kind, value in zip(kinds(signature), values, strict=True):
        _write(out, kind, value)
    return bytes(out)


def unmarshal(signature: str, data: bytes, order: str = "<", start: int = 0) -> tuple[object, ...]:
    reader = _Reader(data, order, start)
    return tuple(reader.read(kind) for kind in kinds(signature))


def kinds(signature: str) -> Iterator[str]:
    """The complete types that a signature is made of."""
    at = 0
    while at < len(signature):
        end = _end(signature, at)
        yield signature[at:end]
        at = end


def _end(signature: str, at: int) -> int:
    if signature[at] == "a":
        return _end(signature, at + 1)
    if signature[at] not in "({":
        return at + 1
    depth = 0
    for place in range(at, len(signature)):
        depth += (signature[place] in "({") - (signature[place] in ")}")
        if not depth:
            return place + 1
    raise ValueError(f"the signature {signature!r} has no end")


def _alignment(kind: str) -> int:
    return _FIXED[kind][1] if kind in _FIXED else _ALIGNED[kind[0]]


def _write(out: bytearray, kind: str, value: object) -> None:
    out += b"\0" * (-len(out) % _alignment(kind))
    if kind in _FIXED:
        out += struct.pack("<" + _FIXED[kind][0], value)
    elif kind in ("s", "o", "g"):
        text = str(value).encode()
        out += struct.pack("<B" if kind == "g" else "<I", len(text)) + text + b"\0"
    elif kind == "v":
        assert isinstance(value, Variant)
        _write(out, "g", value.kind)
        _write(out, value.kind, value.value)
    elif kind[0] == "a":
        place = len(out)
        out += b"\0\0\0\0"
        out += b"\0" * (-len(out) % _alignment(kind[1:]))
        start = len(out)
        for item in value:  # type: ignore[attr-defined]
            _write(out, kind[1:], item)
        struct.pack_into("<I", out, place, len(out) - start)
    else:
        for inner, item in zip(kinds(kind[1:-1]), value, strict=True):  # type: ignore[call-overload]
            _write(out, inner, item)


class _Reader:
    def __init__(self, data: bytes, order: str, at: int) -> None:
        self._data = data
        self._order = order
        self._at = at

    def read(self, kind: str) -> object:
        self._at += -self._at % _alignment(kind)
        if kind in _FIXED:
            return self._fixed(*_FIXED[kind])
        if kind in ("s", "o", "g"):
            length = self._fixed("B", 1) if kind == "g" else self._fixed("I", 4)
            self._at += length + 1
            return self._data[self._at - length - 1:self._at - 1].decode("utf-8", "replace")
        if kind == "v":
            inner = str(self.read("g"))
            return self.read(inner)
        if kind[0] == "a":
            end = self._fixed("I", 4)
            self._at += -self._at % _alignment(kind[1:])
            end += self._at
            if end > len(self._data):
                raise ValueError("an array goes beyond the message")
            items = []
            while self._at < end:
                items.append(self.read(kind[1:]))
            return items
        return tuple(self.read(inner) for inner in kinds(kind[1:-1]))

    def _fixed(self, letter: str, size: int) -> int:
        value: int = struct.unpack_from(self._order + letter, self._data, self._at)[0]
        self._at += size
        return value
