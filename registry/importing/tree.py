"""A source's files, as the layouts read them: names in folders, small files whole, large ones as they come.

Everything here is synchronous and for a thread. Paths are relative to the source, components joined by `/`; a
component comes from `list` or from a parsed value, never from the text of a file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from registry.importing.journal import Class, Damaged

CHUNK = 1024 * 1024


class Kind(Enum):
    FOLDER = "folder"
    FILE = "file"
    SYMLINK = "symbolic link"
    OTHER = "device, pipe or socket"


@dataclass(frozen=True, slots=True)
class Entry:
    """A name within a folder; `size` is a file's. Undecodable bytes are surrogates, as Python's file system encoding
    has it."""

    name: str
    kind: Kind
    size: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """`data` is at most as much as was asked for, `size` what there is."""

    data: bytes
    size: int
    modified: datetime


class OpenFile(Protocol):
    """One file, being read. `close` it whatever happens."""

    @property
    def size(self) -> int: ...

    @property
    def descriptor(self) -> int | None:
        """Of a file of this machine; None when it is elsewhere."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """From the beginning, of at most CHUNK bytes. Raises Damaged."""
        ...

    def close(self) -> None: ...


class Absent(Damaged):
    """There is nothing by this name."""

    def __init__(self, path: str) -> None:
        super().__init__(Class.MISSING_BLOB, path, "there is no such file")


class Tree(Protocol):
    """Every method raises Absent, and Damaged for what is there and cannot be read or is something else."""

    def list(self, path: str) -> list[Entry]:
        """What is in a folder, by name. A bucket knows no folders: an empty one is absent there."""
        ...

    def read(self, path: str, limit: int) -> Content: ...

    def open(self, path: str) -> OpenFile: ...


def join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
