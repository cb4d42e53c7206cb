"""journald's native protocol: a datagram of fields for each line; what is too large for one goes as a sealed memfd.

See systemd.journal-fields(7) and "Native Journal Protocol".
"""

import array
import errno
import fcntl
import os
import socket
from collections.abc import Mapping, Sequence

from node.containers.delivery.senders import SECONDS, lines
from node.containers.logformats import Entry

INFO, ERROR = "6", "3"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class JournalSender:
    def __init__(self, path: str, fields: Mapping[str, str]) -> None:
        """`fields` go with every line; names are upper case, digits and underscores."""
        self._path = path
        self._fields = b"".join(_field(name, value.encode()) for name, value in fields.items())
        self._socket: socket.socket | None = None

    def send(self, entries: Sequence[Entry]) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(SECONDS)
        try:
            for entry in entries:
                for line in lines(entry):
                    self._one(entry, line)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _one(self, entry: Entry, line: bytes) -> None:
        assert self._socket is not None
        data = (
            _field("PRIORITY", (ERROR if entry.stream == 2 else INFO).encode())
            + _field("SYSLOG_TIMESTAMP", str(entry.time_ns // 1000).encode())
            + self._fields
            + _field("MESSAGE", line)
        )
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._by_file(data)

    def _by_file(self, data: bytes) -> None:
        assert self._socket is not None
        fd = os.memfd_create("journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.write(fd, data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = array.array("i", [fd])
            self._socket.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], 0, self._path)
        finally:
            os.close(fd)


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def field_name(text: str) -> str:
    """What journald takes for a name: upper case, no underscore first."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in text.upper())
    return name.strip("_")[:64]
