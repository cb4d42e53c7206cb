"""Pages of listings: `n` and `last` of a request, and the `Link` to the next page (RFC 8288)."""

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from registry.api.call import Call
from registry.errors import InvalidPage

MAX_LAST = 512


@dataclass(frozen=True, slots=True)
class Wanted:
    """At most `limit` entries after `last`."""

    limit: int
    last: str | None


def wanted(call: Call, largest: int) -> Wanted:
    """Raises InvalidPage. A count above `largest` is cut to it: the `Link` says that there is more."""
    text = call.query("n")
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 30):
        raise InvalidPage(f"n is not a count: {text[:50]!r}", detail={"n": text[:50]})
    return Wanted(largest if text is None else min(int(text), largest), (call.query("last") or "")[:MAX_LAST] or None)


def link(path: str, **parameters: str | int | None) -> dict[str, str]:
    """The header that leads to the next page, relative to the host."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return {"Link": f'<{quote(path)}?{urlencode(given)}>; rel="next"'}
