"""A tar from an address, for `docker import URL`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from ocispec.errors import InvalidArgument, Unavailable

_LONG = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
_REDIRECTS = 5
_CHUNK = 256 * 1024


class Unreachable(Unavailable):
    """Nothing came from there."""


@asynccontextmanager
async def download(url: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """The body at an http or https address, asked without any credentials. Raises InvalidArgument, Unreachable."""
    address = url if "://" in url else f"http://{url}"
    if not address.startswith(("http://", "https://")):
        raise InvalidArgument(f"cannot import from {url[:200]}: only http and https addresses are fetched")
    try:
        async with (
            aiohttp.ClientSession(timeout=_LONG, auto_decompress=False) as session,
            session.get(address, max_redirects=_REDIRECTS) as response,
        ):
            if response.status != 200:
                raise Unreachable(f"{address} answers with status {response.status}")
            yield _chunks(response)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Unreachable(f"cannot fetch {address}: {error or type(error).__name__}") from error


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content.iter_chunked(_CHUNK):
            yield chunk
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unreachable(f"{response.url} broke off: {error or type(error).__name__}") from error
