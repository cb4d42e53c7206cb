"""Sizes and spans of time as Docker writes and reads them."""

import re
from datetime import UTC, datetime

from node.containers.model import ZERO_TIME
from ocispec.errors import InvalidArgument

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9})\d*)?(Z|z|[+-]\d\d:\d\d)?)?")
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h)")
_SPANS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


class InvalidTime(InvalidArgument):
    """The text is no moment: seconds since the epoch, RFC 3339, or a span before now."""


def parse_time(text: str, now: float) -> int:
    """Nanoseconds since the epoch; 0 for "" and "0". `now` in seconds, for spans (`10m`). Raises InvalidTime."""
    if not text:
        return 0
    seconds, _, fraction = text.partition(".")
    if seconds.isascii() and seconds.isdigit() and len(seconds) < 12 and (not fraction or fraction.isdigit()):
        return int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))
    if text.isascii() and (match := _RFC3339.fullmatch(text)):
        return _moment(match, text)
    spans = _SPAN.findall(text)
    if spans and "".join(number + unit for number, unit in spans) == text.removeprefix("-"):
        length = sum(int(float(number) * _SPANS[unit]) for number, unit in spans)
        return int(now * 10**9) - length
    raise InvalidTime(f'failed to parse value as time or duration: "{text[:50]}"')


def _moment(match: "re.Match[str]", text: str) -> int:
    clock = match[2] or "00:00:00"
    zone = (match[4] or "+00:00").upper().replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(f"{match[1]}T{clock if clock.count(':') == 2 else clock + ':00'}{zone}")
    except ValueError as error:
        raise InvalidTime(f'failed to parse value as time: "{text[:50]}": {error}') from error
    return int(moment.timestamp()) * 10**9 + int((match[3] or "").ljust(9, "0"))


def epoch(text: str) -> int:
    """Seconds since the epoch of an RFC 3339 time; 0 when there is none."""
    if not text or text == ZERO_TIME:
        return 0
    try:
        return parse_time(text, 0) // 10**9
    except InvalidTime:
        return 0


def human_span(seconds: float) -> str:
    """Docker's words for a span: `About a minute`, `3 hours`."""
    whole, minutes, hours = int(seconds), int(seconds // 60), int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours <= 1 else f"{hours} hours"
    for limit, length, unit in ((336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // length} {unit}"
    return f"{hours // 8760} years"


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
