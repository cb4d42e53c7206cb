"""Writing tar: one header after the other, ustar where the values fit and pax records where they do not.

POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header Block". Names are bytes and stay as they are: a name that
is no UTF-8 goes into a pax record as its bytes, as GNU tar and Go's archive/tar read it. Times are whole seconds and
owners numbers, as in every archive that Docker writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

BLOCK = 512
END = bytes(2 * BLOCK)

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_NAME = 100
_ID = 0o7777777
_SIZE = 0o77777777777
_NO_XATTRS: Mapping[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class Member:
    name: bytes
    type: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: _NO_XATTRS)


def header(member: Member) -> bytes:
    """The member's header, with a pax header before it when ustar cannot say everything."""
    records = _records(member)
    plain = _ustar(member, member.type)
    if not records:
        return plain
    body = b"".join(_record(key, value) for key, value in records)
    name = b"PaxHeaders.0/" + member.name.strip(b"/").rpartition(b"/")[2]
    extension = Member(name[:_NAME - 1], size=len(body), mtime=member.mtime)
    return _ustar(extension, b"x") + body + padding(len(body)) + plain


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _records(member: Member) -> list[tuple[str, bytes]]:
    records: list[tuple[str, bytes]] = []
    if len(member.name) > _NAME or not member.name.isascii():
        records.append(("path", member.name))
    if len(member.link) > _NAME or not member.link.isascii():
        records.append(("linkpath", member.link))
    for key, value, limit in (("uid", member.uid, _ID), ("gid", member.gid, _ID), ("size", member.size, _SIZE),
                              ("mtime", member.mtime, _SIZE)):  # fmt: skip
        if not 0 <= value <= limit:
            records.append((key, str(value).encode()))
    records += [(f"SCHILY.xattr.{name}", value) for name, value in member.xattrs.items()]
    return records


def _record(key: str, value: bytes) -> bytes:
    rest = b" " + key.encode("utf-8", "surrogateescape") + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _ustar(member: Member, kind: bytes) -> bytes:
    raw = b"".join((
        member.name[:_NAME].ljust(_NAME, b"\0"),
        _octal(member.mode & 0o7777, 8), _octal(_fitting(member.uid, _ID), 8), _octal(_fitting(member.gid, _ID), 8),
        _octal(_fitting(member.size, _SIZE), 12), _octal(_fitting(member.mtime, _SIZE), 12),
        b"        ", kind, member.link[:_NAME].ljust(_NAME, b"\0"), b"ustar\x0000", bytes(64),
        _octal(member.major & _ID, 8), _octal(member.minor & _ID, 8), bytes(167),
    ))  # fmt: skip
    return raw[:148] + b"%06o\0 " % sum(raw) + raw[156:]


def _fitting(value: int, limit: int) -> int:
    return value if 0 <= value <= limit else 0


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)
