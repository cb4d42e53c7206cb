"""Names of archive entries as components of a path: by spelling alone, as every layer's reader does."""

from collections.abc import Iterable

from node.images.unpack.errors import InvalidLayer

MAX_PATH = 4096
WHITEOUT = b".wh."

Parts = tuple[bytes, ...]


def clean(name: bytes) -> Parts:
    """`./a//b/../c` → (a, c); leading `..` stay at the root. By spelling alone, as every layer's reader does."""
    if len(name) > MAX_PATH:
        raise InvalidLayer("a path in the archive is too long")
    return spelled(name.split(b"/"))


def spelled(names: Iterable[bytes]) -> Parts:
    parts: list[bytes] = []
    for part in names:
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return tuple(parts)


def hidden_name(name: bytes) -> bytes:
    hidden = name[len(WHITEOUT):]
    if hidden in (b"", b".", b".."):
        raise InvalidLayer(f"whiteout {shown(name)} names no file")
    return hidden


def shown(name: bytes) -> str:
    return ascii(name[:200].decode("utf-8", "replace"))
