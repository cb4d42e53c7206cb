"""The layout of stored bytes, drawn once for disks and buckets.

    <root>/data/<first two hex digits>/<key>                key = 32 hex digits, random
    <root>/tails/<first two hex digits>/<key>/<name>        name = 32 hex digits, random; in buckets only

Two levels keep folders small (256 folders; a million blobs are 4,000 entries each). The key says nothing of the
content, so a path leaks nothing, an upload is written in place without knowing its digest, and no name that a client
sent ever becomes part of a path. A tail is what an unfinished upload has beyond its last whole part.
"""

import re
import uuid

from ocispec.errors import InvalidArgument
from storage.blobs.store import StorageKey

FOLDER = "data"
TAILS = "tails"
FANOUT = tuple(f"{number:02x}" for number in range(256))

_KEY = re.compile(r"[0-9a-f]{32}")


class InvalidKey(InvalidArgument):
    """The text is no storage key (a damaged database, or a path that somebody tries to smuggle in)."""


def new_key() -> StorageKey:
    return StorageKey(uuid.uuid4().hex)


def parse_key(text: str) -> StorageKey:
    """Raises InvalidKey."""
    if not _KEY.fullmatch(text):
        raise InvalidKey(f"invalid storage key: {text[:64]!r}")
    return StorageKey(text)


def object_name(key: StorageKey) -> str:
    """The relative path, or the name in a bucket. Raises InvalidKey."""
    key = parse_key(key)
    return f"{FOLDER}/{key[:2]}/{key}"


def tails_of(key: StorageKey) -> str:
    """What the names of a key's tails begin with. Raises InvalidKey."""
    key = parse_key(key)
    return f"{TAILS}/{key[:2]}/{key}/"


def key_of(name: str) -> StorageKey:
    """The key of an object or tail. Raises InvalidKey for a name that is none of ours."""
    folder, _, rest = name.partition("/")
    fan, _, rest = rest.partition("/")
    key = parse_key(rest.partition("/")[0] if folder == TAILS else rest)
    if folder not in (FOLDER, TAILS) or fan != key[:2]:
        raise InvalidKey(f"invalid object name: {name[:128]!r}")
    return key
