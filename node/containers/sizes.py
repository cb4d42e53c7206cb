"""Sizes as people write them."""

import re

from ocispec.errors import InvalidArgument

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgtpKMGTP]?)(?:i?[bB])?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """`10m` → 10 000 000 bytes (decimal, as log options are). Raises InvalidArgument."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise InvalidArgument(f"invalid size: '{text[:50]}'")
    return int(float(match[1]) * 1000 ** _POWERS[match[2].lower()])


def parse_binary_size(text: str) -> int:
    """`10m` → 10 MiB, as memory is written. Raises InvalidArgument."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise InvalidArgument(f"invalid size: '{text[:50]}'")
    return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
