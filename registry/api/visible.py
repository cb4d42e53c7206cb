"""What lists show: the repositories that the caller may pull."""

from registry.api.call import Call
from registry.auth.patterns import Pattern
from storage.metadata.repositories import Region
from storage.repository.tags import Shown

MOST_PLACES = 100
"""Patterns that go into a query. With more, names are read and decided about one by one."""


def visible(call: Call) -> Shown | None:
    """None: everything."""
    shown = call.access.shown(call.principal)
    if shown is None:
        return None
    region = None
    if len(shown.within) <= MOST_PLACES:
        region = Region(tuple((pattern.prefix, _like(pattern)) for pattern in shown.within), shown.hidden[:MOST_PLACES])
    return Shown(lambda name: call.access.sees(call.principal, name), region)


def _like(pattern: Pattern) -> str:
    """An SQL pattern for at least what this one matches."""
    text = pattern.text.replace("/**", "%").replace("**/", "%").replace("_", "!_")
    return text.replace("*", "%").replace("?", "_")
