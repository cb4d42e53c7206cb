"""Writing a tag only when it still names what the client believes (RFC 9110 section 13.1): `If-Match`, `If-None-Match`.

The ETag of a manifest is its digest in quotes. With `If-None-Match: *` a tag is only made, with `If-Match: "<digest>"`
it is only moved from there, or deleted: two builds that push one tag at once no longer overwrite each other unseen.
"""

from aiohttp import web

from ocispec.digest import Digest
from registry.errors import InvalidCondition
from storage.repository.pointing import Condition, always

MAX_LISTED = 100


def of(request: web.BaseRequest) -> Condition:
    """Raises InvalidCondition for a header that cannot be read: to ignore it would be to write after all."""
    match, none_match = _listed(request, "If-Match"), _listed(request, "If-None-Match")
    if match is None and none_match is None:
        return always

    def holds(named: Digest | None) -> bool:
        tag = None if named is None else f'"{named}"'
        if match is not None and (tag is None or not {"*", tag} & match):
            return False
        return none_match is None or tag is None or not {"*", tag} & none_match

    return holds


def _listed(request: web.BaseRequest, name: str) -> frozenset[str] | None:
    if name not in request.headers:
        return None
    items = [item.strip() for item in ",".join(request.headers.getall(name)).split(",")]
    for item in items:
        if item != "*" and not (len(item) > 1 and item.removeprefix("W/").startswith('"') and item.endswith('"')):
            raise InvalidCondition(f"{name} is neither * nor a list of entity tags in quotes: {item[:100]!r}")
    if len(items) > MAX_LISTED:
        raise InvalidCondition(f"{name} lists more than {MAX_LISTED} entity tags")
    return frozenset(items)
