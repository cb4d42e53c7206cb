"""A streaming reader of tar archives: V7, ustar, pax and GNU, as they occur in image layers.

Sources: POSIX.1-2017 pax ("ustar Interchange Format", "pax Header Block"); GNU tar manual, "Basic Tar Format" and
"Storing Sparse Files". Names are bytes. Numbers, sizes and lengths come from whoever made the image: everything is
bounded and checked before it is used. Raises InvalidLayer, LayerUnsupported.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from node.images.unpack.decompress import PlainStream
from node.images.unpack.errors import InvalidLayer, LayerUnsupported

BLOCK = 512
_ZERO = bytes(BLOCK)
_MAX_EXTENSION = 1024 * 1024  # a pax header or GNU long name
_MAX_MAP = 1024 * 1024  # a sparse map, and the number of its digits in a pax 1.0 file
_MAX_NUMBER = (1 << 63) - 1
_NS = 1_000_000_000

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_WITHOUT_DATA = frozenset({HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO})
_GNU_SPARSE = b"S"
_REGULAR_TOO = frozenset({b"\0", b"7", _GNU_SPARSE})
_SKIPPED = frozenset({b"D", b"V"})  # GNU directory listings and volume labels
_XATTR = "SCHILY.xattr."

Regions = list[tuple[int, int]]
"""(offset, length) of the data of a sparse file, ascending."""


@dataclass(slots=True)
class Entry:
    """One archive member. `size` is the file's size; `stored` the bytes that follow in the archive (they differ for
    sparse files, whose `regions` say where the stored bytes go)."""

    name: bytes
    type: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    atime_ns: int | None = None
    link: bytes = b""
    major: int = 0
    minor: int = 0
    stored: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    regions: Regions | None = None


class TarReader:
    """Iterate for entries; between two, `data` gives the bytes of the current one. Unread data is skipped."""

    def __init__(self, stream: PlainStream) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0
        self._global: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def data(self) -> Iterator[memoryview]:
        """The stored bytes of the current entry, in pieces. Raises InvalidLayer when the stream ends before."""
        while self._left:
            piece = self._stream.some(self._left)
            if not piece:
                raise InvalidLayer("the archive ends in the middle of a file")
            self._left -= len(piece)
            yield piece

    def _skip_rest(self) -> None:
        self._stream.skip(self._left)
        # The docker command ends its archives right after the last byte of the last file, as Go's reader permits.
        self._stream.exactly(self._padding)
        self._left = self._padding = 0

    def _next(self) -> Entry | None:
        records: list[tuple[str, bytes]] = []
        long_name = long_link = None
        while True:
            self._skip_rest()
            header = self._header()
            if header is None:
                if records or long_name is not None or long_link is not None:
                    raise InvalidLayer("the archive ends after an extension header")
                return None
            kind = header[156:157]
            if kind in b"xX":
                records = _pax_records(self._extension(header))
            elif kind == b"g":
                self._global.update(_pax_records(self._extension(header)))
            elif kind == b"L":
                long_name = self._extension(header).rstrip(b"\0")
            elif kind == b"K":
                long_link = self._extension(header).rstrip(b"\0")
            elif kind in _SKIPPED:
                self._begin(_number(header[124:136], "size"))
            else:
                return self._entry(header, kind, records, long_name, long_link)

    def _header(self) -> bytes | None:
        """The next header block; None at the end (two zero blocks, or the end of the stream between entries)."""
        block = self._stream.exactly(BLOCK)
        if not block:
            return None
        if len(block) < BLOCK:
            raise InvalidLayer("the archive ends in the middle of a header")
        if block == _ZERO:
            after = self._stream.exactly(BLOCK)
            if after and after != _ZERO:
                raise InvalidLayer("the archive has a zero block between entries")
            return None
        stored = _number(block[148:156], "checksum")
        total = sum(block) - sum(block[148:156]) + 8 * 32
        if stored != total and stored != total - 256 * _high(block):  # some old tars sum signed
            raise InvalidLayer("a tar header has a wrong checksum")
        return block

    def _begin(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _extension(self, header: bytes) -> bytes:
        size = _number(header[124:136], "size")
        if size > _MAX_EXTENSION:
            raise InvalidLayer(f"a tar extension header of {size} bytes")
        data = self._stream.exactly(size)
        if len(data) < size:
            raise InvalidLayer("the archive ends in an extension header")
        self._stream.skip(-size % BLOCK)
        return data

    def _entry(self, header: bytes, kind: bytes, records: list[tuple[str, bytes]],
               long_name: bytes | None, long_link: bytes | None) -> Entry:
        entry = _basic(header, kind)
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.link = long_link
        if kind == _GNU_SPARSE:
            self._gnu_sparse(entry, header)
        if self._global:
            _apply(entry, {key: value for key, value in self._global.items() if key in _INHERITED})
        if records:
            _apply(entry, dict(records))
        _settle_type(entry, kind)
        self._begin(entry.stored)
        if records and kind != _GNU_SPARSE:
            self._pax_sparse(entry, records)
        if b"\0" in entry.name or b"\0" in entry.link:
            raise InvalidLayer("a name in the archive has a NUL byte")
        return entry

    # -- sparse files

    def _gnu_sparse(self, entry: Entry, header: bytes) -> None:
        """The old GNU format: 4 regions in the header, 21 in each block that follows while `isextended` is set."""
        regions: Regions = []
        area, count, more = header[386:482], 4, header[482]
        while True:
            for at in range(0, count * 24, 24):
                if area[at]:
                    regions.append((_number(area[at:at + 12], "sparse offset"),
                                    _number(area[at + 12:at + 24], "sparse length")))
            if not more:
                break
            block = self._stream.exactly(BLOCK)
            if len(block) < BLOCK or len(regions) * 24 > _MAX_MAP:
                raise InvalidLayer("broken sparse map")
            area, count, more = block[:504], 21, block[504]
        entry.size = _number(header[483:495], "real size")
        entry.regions = _checked(regions, entry.size, entry.stored)

    def _pax_sparse(self, entry: Entry, records: list[tuple[str, bytes]]) -> None:
        """GNU's pax formats 0.0 (repeated records), 0.1 (one record) and 1.0 (the map precedes the data)."""
        found = dict(records)
        if found.get("GNU.sparse.major") == b"1":
            if entry.type != REGULAR:
                raise InvalidLayer("a sparse map on something that is no file")
            regions = self._map_in_data()
            size = _decimal(found.get("GNU.sparse.realsize", b""), "GNU.sparse.realsize")
        elif "GNU.sparse.map" in found:
            numbers = [_decimal(part, "GNU.sparse.map") for part in found["GNU.sparse.map"].split(b",") if part]
            regions = list(zip(numbers[::2], numbers[1::2], strict=False))
            size = _decimal(found.get("GNU.sparse.size", b""), "GNU.sparse.size")
        elif "GNU.sparse.size" in found:
            offsets = [_decimal(value, key) for key, value in records if key == "GNU.sparse.offset"]
            lengths = [_decimal(value, key) for key, value in records if key == "GNU.sparse.numbytes"]
            if len(offsets) != len(lengths):
                raise InvalidLayer("broken sparse map")
            regions = list(zip(offsets, lengths, strict=True))
            size = _decimal(found["GNU.sparse.size"], "GNU.sparse.size")
        else:
            return
        entry.name = found.get("GNU.sparse.name", entry.name)
        entry.size = size
        entry.regions = _checked(regions, size, self._left)
        entry.stored = self._left

    def _map_in_data(self) -> Regions:
        text = bytearray()
        numbers: list[int] = []
        wanted = None
        while wanted is None or len(numbers) < wanted:
            block = self._stream.exactly(min(BLOCK, self._left))
            if len(block) < BLOCK or len(text) + BLOCK > _MAX_MAP:
                raise InvalidLayer("broken sparse map")
            self._left -= BLOCK
            *lines, rest = (bytes(text) + block).split(b"\n")
            text = bytearray(rest)
            for line in lines:
                if wanted is None:
                    wanted = 2 * _decimal(line, "sparse map")
                    if wanted > _MAX_MAP:
                        raise InvalidLayer("broken sparse map")
                elif len(numbers) < wanted:
                    numbers.append(_decimal(line, "sparse map"))
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def _basic(header: bytes, kind: bytes) -> Entry:
    name = _text(header[0:100])
    magic = header[257:265]
    if magic[:6] == b"ustar\0":
        star = header[508:512] == b"tar\0"
        prefix = _text(header[345:476] if star else header[345:500])
        if prefix:
            name = prefix + b"/" + name
    size = _number(header[124:136], "size")
    entry = Entry(
        name, kind, _number(header[100:108], "mode"), _number(header[108:116], "uid"), _number(header[116:124], "gid"),
        size, _number(header[136:148], "mtime", signed=True) * _NS, None, _text(header[157:257]), stored=size,
    )
    if kind in (CHARACTER, BLOCK_DEVICE) and magic[:5] == b"ustar":
        entry.major = _number(header[329:337], "major")
        entry.minor = _number(header[337:345], "minor")
    return entry


def _settle_type(entry: Entry, kind: bytes) -> None:
    if kind in _REGULAR_TOO or kind == REGULAR:
        # Before POSIX there was no type for directories: a trailing slash told them.
        entry.type = DIRECTORY if kind in (b"\0", REGULAR) and entry.name.endswith(b"/") else REGULAR
    elif kind not in _WITHOUT_DATA:
        raise LayerUnsupported(f"tar entry type {kind!r} in a layer")
    if entry.type in _WITHOUT_DATA:
        entry.size = entry.stored = 0  # some writers set a size on links; no data follows it


_INHERITED = frozenset({"uid", "gid", "mtime", "atime"})
"""What a pax global header may set for the entries after it. A global path, link or size is nonsense that only an
attacker writes: readers disagree on it."""


def _apply(entry: Entry, records: dict[str, bytes]) -> None:
    for key, value in records.items():
        match key:
            case "path":
                entry.name = value
            case "linkpath":
                entry.link = value
            case "size":
                entry.size = entry.stored = _decimal(value, "size")
            case "uid":
                entry.uid = _decimal(value, "uid")
            case "gid":
                entry.gid = _decimal(value, "gid")
            case "mtime":
                entry.mtime_ns = _time(value)
            case "atime":
                entry.atime_ns = _time(value)
            case _ if key.startswith(_XATTR):
                entry.xattrs[key[len(_XATTR):]] = value


def _pax_records(data: bytes) -> list[tuple[str, bytes]]:
    """`<length> <key>=<value>\\n`, the length counting itself. An empty value takes an earlier one back."""
    records: list[tuple[str, bytes]] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        if space < 0 or not data[at:space].isdigit():
            raise InvalidLayer("broken pax record")
        end = at + int(data[at:space])
        key, equals, value = data[space + 1:end - 1].partition(b"=")
        if end > len(data) or end <= space or data[end - 1:end] != b"\n" or not equals or not key or b"\0" in key:
            raise InvalidLayer("broken pax record")
        name = key.decode("utf-8", "surrogateescape")
        if value:
            records.append((name, value))
        at = end
    return records


def _checked(regions: Regions, size: int, stored: int) -> Regions:
    position = total = 0
    for offset, length in regions:
        if offset < position or offset + length > size:
            raise InvalidLayer("a sparse map whose regions overlap or lie outside the file")
        position = offset + length
        total += length
    if total != stored:
        raise InvalidLayer("a sparse map that does not match the stored bytes")
    return regions


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _high(block: bytes) -> int:
    return sum(byte > 127 for byte in block[:148] + block[156:])


def _number(raw: bytes, what: str, *, signed: bool = False) -> int:
    """Octal text, or base-256 when the first bit is set (GNU)."""
    text = raw.rstrip(b"\0 ")
    if text.isdigit() and b"8" not in text and b"9" not in text:  # nearly all of them, of which a layer has very many
        return int(text, 8)
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=True)
        if raw[0] != 0xFF:
            value = int.from_bytes(bytes([raw[0] & 0x7F]) + raw[1:], "big")
    else:
        text = raw.strip(b" \0").partition(b"\0")[0].strip()
        if not text:
            return 0
        if not text.isdigit() or b"8" in text or b"9" in text:
            raise InvalidLayer(f"a tar header has a broken {what}")
        value = int(text, 8)
    if abs(value) > _MAX_NUMBER or (value < 0 and not signed):
        raise InvalidLayer(f"a tar header has an impossible {what}")
    return value


def _decimal(raw: bytes, what: str) -> int:
    if not raw.isdigit() or len(raw) > 19 or (value := int(raw)) > _MAX_NUMBER:
        raise InvalidLayer(f"a pax header has a broken {what}")
    return value


def _time(raw: bytes) -> int:
    """`[-]seconds[.fraction]` in nanoseconds."""
    negative = raw.startswith(b"-")
    seconds, _, fraction = raw[negative:].partition(b".")
    if (fraction and not fraction.isdigit()) or not (seconds or fraction):
        raise InvalidLayer("a pax header has a broken time")
    value = _decimal(seconds or b"0", "time") * _NS + int(fraction[:9].ljust(9, b"0"))
    return -value if negative else value
