"""`/v1/_ping` and `/v1/search`: what `docker search` asks (the index API of the first Docker registry)."""

from aiohttp import web

from registry.api.answers import document
from registry.api.call import Call
from registry.api.visible import visible
from registry.auth.policy import Action
from registry.errors import InvalidPage
from storage.metadata.repositories import MOST_TAGS
from storage.repository.tags import Tags

DEFAULT_SIZE, MAX_SIZE = 25, 100
MAX_PAGE = 1_000_000
MAX_TERM = 255


class SearchEndpoints:
    def __init__(self, tags: Tags) -> None:
        self._tags = tags

    async def ping(self, _call: Call) -> web.StreamResponse:
        """Docker asks it before it searches, and shows no credentials."""
        return document({"standalone": True}, headers={"X-Docker-Registry-Standalone": "true"})

    async def search(self, call: Call) -> web.StreamResponse:
        """Repositories whose name contains `q`. Stars and official images are Docker Hub's; here there are none."""
        call.access.require(call.principal, Action.LIST, None)
        term = (call.query("q") or "")[:MAX_TERM]
        size = min(_count(call, "n", DEFAULT_SIZE) or DEFAULT_SIZE, MAX_SIZE)
        page = min(_count(call, "page", 1) or 1, MAX_PAGE)
        shown = visible(call.access, call.principal)
        found, total = await self._tags.search(term, limit=size, offset=(page - 1) * size, shown=shown)
        results = [
            {"name": str(item.name), "description": _description(item.tags),
             "star_count": 0, "is_official": False, "is_automated": False, "is_trusted": False}
            for item in found
        ]
        return document({"query": term, "num_pages": -(-total // size), "num_results": total, "page": page,
                         "page_size": size, "results": results})


def _description(tags: int) -> str:
    return f"{tags}{' or more' if tags == MOST_TAGS else ''} tag{'' if tags == 1 else 's'}"


def _count(call: Call, name: str, default: int) -> int:
    text = call.query(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidPage(f"{name} is not a count: {text[:50]!r}", detail={name: text[:50]})
    return int(text)
