"""Moments as Docker writes them: RFC 3339 in UTC with nanoseconds."""

import re
import time
from datetime import UTC, datetime

_FORM = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def now() -> str:
    return written(time.time_ns())


def written(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def nanoseconds(text: str) -> int:
    """Since the epoch; 0 for what is no moment (a log line of another's making, the zero time)."""
    match = _FORM.fullmatch(text)
    if match is None:
        return 0
    base, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(base + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        return 0
    return max(0, int(moment.timestamp()) * 10**9 + int((fraction or "0").ljust(9, "0")))
