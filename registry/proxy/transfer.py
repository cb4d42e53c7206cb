"""The bytes of one blob from its upstream: taken up again where they broke off, bounded in number and in slowness."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ocispec.digest import Digest
from registry.proxy.errors import UpstreamBroken, UpstreamSlow, UpstreamThrottled, UpstreamUnavailable
from registry.proxy.filling import Filling
from registry.proxy.origins import Origin
from registry.proxy.upstreams import Place

ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 4.0

LEAST = 64 * 1024
WINDOW = 30.0
"""Fewer bytes than that in so many seconds, and the upstream only holds us: it sends one byte just before each time
limit. 2 KiB/s is below any modem."""


class Pace:
    def __init__(self) -> None:
        self._began = time.monotonic()
        self._moved = 0

    def enough(self, count: int) -> bool:
        """Whether it is fast enough, with `count` more bytes."""
        self._moved += count
        now = time.monotonic()
        if now - self._began < WINDOW:
            return True
        fast, self._began, self._moved = self._moved >= LEAST, now, 0
        return fast


class Transfer:
    """`most`: bytes of the largest blob that is taken; 0: any."""

    def __init__(self, origin: Origin, place: Place, digest: Digest, filling: Filling, most: int) -> None:
        self._origin = origin
        self._place = place
        self._digest = digest
        self._filling = filling
        self._most = most

    async def run(self, start: int) -> AsyncGenerator[bytes, None]:
        """From `start`, which is less than the size. Raises RemoteNotFound and the errors of registry.proxy.errors."""
        offset, barren = start, 0
        while True:
            before = offset
            try:
                async for chunk in self._once(offset, patient=barren > 0 or offset > start):
                    offset += len(chunk)
                    yield chunk
                if self._filling.size is None or offset == self._filling.size:
                    return
                broken = UpstreamUnavailable(self._name, "the transfer ended early")
            except (UpstreamSlow, UpstreamThrottled):
                raise
            except UpstreamUnavailable as error:
                broken = error
            if not self._filling.begun:
                raise broken  # nobody has been promised anything yet: better they hear it now
            barren = 0 if offset > before else barren + 1
            if barren >= ATTEMPTS:
                raise broken
            await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**barren))

    async def _once(self, offset: int, *, patient: bool) -> AsyncGenerator[bytes, None]:
        pace = Pace()
        fetched = self._origin.fetch(self._place, self._digest, offset, self._begun, patient=patient)
        async with aclosing(fetched) as chunks:
            async for chunk in chunks:
                offset += len(chunk)
                self._check(offset)
                if not pace.enough(len(chunk)):
                    raise UpstreamSlow(self._name, f"fewer than {LEAST} bytes in {WINDOW:g} s")
                yield chunk

    def _begun(self, size: int | None) -> None:
        known = self._filling.size
        if size is not None and known is not None and size != known:
            raise UpstreamBroken(self._name, f"{self._digest} had {known} bytes, and now {size}")
        self._check(size or 0)
        self._filling.announce(size)

    def _check(self, size: int) -> None:
        announced = self._filling.size
        if announced is not None and size > announced:
            raise UpstreamBroken(self._name, f"{self._digest} is longer than the {announced} bytes announced")
        if self._most and size > self._most:
            raise UpstreamBroken(self._name, f"{self._digest} is larger than the {self._most} bytes allowed here")

    @property
    def _name(self) -> str:
        return self._place.upstream.name
