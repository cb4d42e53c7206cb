"""`/v1/search`: the one part of Docker's registry API v1 that lives on, because `docker search` asks it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from storage.remote import errors
from storage.remote.auth import Credentials
from storage.remote.transport import RemoteSettings, Request, Transport, read_at_most, unreachable

_MAX_ANSWER = 4 * 1024 * 1024
_HUB_INDEX = "index.docker.io"
_ANY = frozenset({200, 401, 403, 404, 405})
_SCOPE = "registry:catalog:*"  # what a registry with accounts wants of who looks through it


@dataclass(frozen=True, slots=True)
class Found:
    """One repository that a search found. `stars` is what the registry counts, if anything."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


class RegistrySearch:
    """`insecure` says which hosts are spoken to over plain HTTP or without verification."""

    def __init__(self, insecure: Callable[[str], bool], settings: RemoteSettings | None = None) -> None:
        self._insecure = insecure
        # Somebody sits and waits: no long patience.
        self._settings = settings or RemoteSettings(connect_timeout=5, stall_timeout=15, attempts=2)

    async def search(self, host: str, term: str, *, limit: int, auth: Credentials | None) -> Sequence[Found]:
        """At most `limit` repositories of `host` that match. Raises the errors of storage.remote.errors."""
        where = _HUB_INDEX if host == "docker.io" else host
        async with Transport(where, insecure=self._insecure(host), credentials=auth, settings=self._settings) as http:
            request = Request("GET", await http.url("v1/search", {"q": term, "n": str(limit)}), scope=_SCOPE)
            try:
                if auth is not None and not auth.empty:
                    # A registry that shows strangers something asks nobody who they are here, only there.
                    async with http.open(Request("GET", await http.url("v2/"), _SCOPE, ok=_ANY)):
                        pass
                async with http.open(request) as response:
                    raw = await read_at_most(response, _MAX_ANSWER)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise unreachable(request, error) from error
        return _found(raw, host)[:limit]


def _found(raw: bytes, host: str) -> list[Found]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise errors.RemoteInvalid(f"{host} answers a search with something else than results")
    return [_one(item) for item in results if isinstance(item, dict) and isinstance(item.get("name"), str)]


def _one(item: dict[str, Any]) -> Found:
    stars, description = item.get("star_count"), item.get("description")
    return Found(
        item["name"],
        description if isinstance(description, str) else "",
        stars if type(stars) is int else 0,
        item.get("is_official") is True,
        item.get("is_automated") is True,
    )
