"""What lists show: the repositories that the caller may pull."""

from registry.auth.patterns import Pattern
from registry.auth.policy import Access
from registry.auth.principal import Principal
from storage.metadata.repositories import Region
from storage.repository.tags import Shown

MOST_PLACES = 100
"""Patterns that go into a query. With more, names are read and decided about one by one."""


def visible(access: Access, principal: Principal) -> Shown | None:
    """None: everything."""
    shown = access.shown(principal)
    if shown is None:
        return None
    region = None
    if len(shown.within) <= MOST_PLACES:
        region = Region(tuple((pattern.prefix, _like(pattern)) for pattern in shown.within), shown.hidden[:MOST_PLACES])
    return Shown(lambda name: access.sees(principal, name), region)


def _like(pattern: Pattern) -> str:
    """An SQL pattern for at least what this one matches."""
    text = pattern.text.replace("/**", "%").replace("**/", "%").replace("_", "!_")
    return text.replace("*", "%").replace("?", "_")
