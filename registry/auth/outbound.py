"""The HTTP that identity needs: key sets, a login provider's documents and its token endpoint.

The addresses are the operator's, the answers are not to be trusted: no redirects are followed (a provider's open
redirect would otherwise choose our keys), bodies and times are bounded.
"""

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import aiohttp

from ocispec.errors import Unavailable

TIMEOUT = aiohttp.ClientTimeout(total=10)
MAX_BODY = 1024 * 1024
EXPLAINED = 400


class Outbound:
    """`issuers.Fetch` (as `get`) and `oidc.Web`. The session belongs to the caller."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, where: str) -> bytes:
        """A URL, or the path of a file. Raises Unavailable."""
        if "://" not in where:
            return await asyncio.to_thread(_read, Path(where))
        return await self._ask("GET", where, (200,))

    async def post(self, url: str, form: Mapping[str, str], credentials: tuple[str, str]) -> bytes:
        """Raises Unavailable."""
        # Both form-encoded first (RFC 6749 section 2.3.1).
        pair = ":".join(map(quote_plus, credentials))
        headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        return await self._ask("POST", url, (200, EXPLAINED), headers, data=form)

    async def _ask(self, method: str, url: str, good: tuple[int, ...], headers: Mapping[str, str] | None = None,
                   **options: Any) -> bytes:
        try:
            async with self._session.request(method, url, timeout=TIMEOUT, allow_redirects=False,
                                             headers={"Accept": "application/json", **(headers or {})},
                                             **options) as answer:
                if answer.status not in good:
                    raise Unavailable(f"{_host(url)} answers {answer.status}")
                body = await answer.content.read(MAX_BODY + 1)
                while len(body) <= MAX_BODY and not answer.content.at_eof():
                    body += await answer.content.read(MAX_BODY + 1 - len(body))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(f"{_host(url)} does not answer: {type(error).__name__}") from error
        if len(body) > MAX_BODY:
            raise Unavailable(f"{_host(url)} answers with more than {MAX_BODY} bytes")
        return body


def _host(url: str) -> str:
    """Enough to find the fault; a URL may hold more than a log should."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2][:200]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BODY)
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error
