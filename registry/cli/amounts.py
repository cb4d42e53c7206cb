"""Time spans and sizes as people write them."""

import re
from datetime import timedelta

import click

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
LARGEST = 2**62


def duration(text: str) -> timedelta:
    """For click's `type`."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no time span (want 90s, 30m, 12h, 30d or 2w)")
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])


def size(text: str) -> int:
    """Bytes; for click's `type`."""
    found = re.fullmatch(r"([0-9]{1,19}) ?([KMGT]i?)?B?", text)
    bytes_ = int(found[1]) * SIZES[found[2] or ""] if found else LARGEST
    if bytes_ >= LARGEST:
        raise click.BadParameter(f"{text!r} is no size (want bytes, 500MB or 20GiB)")
    return bytes_


def shown(bytes_: int) -> str:
    """With three digits, in powers of ten."""
    for unit, each in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(bytes_) >= each:
            return f"{bytes_ / each:.3g} {unit}"
    return f"{bytes_} B"
