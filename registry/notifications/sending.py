"""One POST to an endpoint: to a checked address, without redirects, without believing or keeping what it answers."""

import asyncio
import ssl
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import aiohttp

from registry.notifications.endpoints import Endpoint
from registry.notifications.envelopes import Message
from storage.remote.addresses import AddressRefused, guarded_sockets

MAX_ANSWER = 4096
"""Bytes of an answer that are read so that the connection can be used again; more end it."""

MAX_PAUSE = timedelta(hours=1)
ACCEPTED = range(200, 300)
WRONG_FOR_EVER = frozenset({400, 413, 415, 422})
"""Answers by which a receiver says that this very message is what it will never take."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`problem` is empty when the endpoint took it. `hopeless`: it says that it will not, ever. `pause`: what it asks
    us to wait."""

    problem: str = ""
    hopeless: bool = False
    pause: timedelta | None = None


class Sender:
    """For one endpoint: its own connection, so that it delays no other. An async context manager."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        context: ssl.SSLContext | bool = True
        if self._endpoint.ca:
            context = await asyncio.to_thread(ssl.create_default_context, cafile=self._endpoint.ca)
        connector = aiohttp.TCPConnector(
            limit=1, ssl=context, socket_factory=guarded_sockets(allow_private=self._endpoint.allow_private),
            use_dns_cache=False, keepalive_timeout=30)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self._timeout), max_line_size=MAX_ANSWER, max_field_size=MAX_ANSWER)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def send(self, message: Message) -> Outcome:
        """Never raises for what the network or the endpoint does."""
        headers = {**message.headers, "User-Agent": "seawall-registry"}
        if self._endpoint.token:
            headers["Authorization"] = f"Bearer {self._endpoint.token}"
        try:
            async with self._session.post(self._endpoint.url, data=message.body, headers=headers,
                                          allow_redirects=False) as answer:
                await _drop(answer)
                return _judge(answer)
        except AddressRefused as error:
            return Outcome(f"{error} (private addresses want allow_private)")
        except TimeoutError:
            return Outcome(f"no answer within {self._timeout:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(_told(error))


async def _drop(answer: aiohttp.ClientResponse) -> None:
    if len(await answer.content.read(MAX_ANSWER)) == MAX_ANSWER:
        answer.close()


def _judge(answer: aiohttp.ClientResponse) -> Outcome:
    if answer.status in ACCEPTED:
        return Outcome()
    moved = ", a redirect, which is not followed" if answer.status in range(300, 400) else ""
    return Outcome(f"it answered {answer.status}{moved}", hopeless=answer.status in WRONG_FOR_EVER,
                   pause=_pause(answer.headers.get("Retry-After", "")))


def _pause(retry_after: str) -> timedelta | None:
    if not (retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 10):
        return None
    return min(timedelta(seconds=int(retry_after)), MAX_PAUSE)


def _told(error: Exception) -> str:
    """The cause beneath aiohttp's own errors says more, and never names headers."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, AddressRefused):
        return f"{cause} (private addresses want allow_private)"
    return f"{type(error).__name__}: {cause}"[:300]
