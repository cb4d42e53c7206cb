"""Asking upstreams: their mirrors in order, with a limit of time, and not again too soon after they failed."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TypeVar

from ocispec.digest import Digest
from ocispec.errors import SeawallError
from registry.proxy.errors import UpstreamSlow, UpstreamThrottled, UpstreamUnavailable, translated
from registry.proxy.upstreams import Place, Upstream, Upstreams
from storage.observation import Observer
from storage.remote.errors import RemoteNotFound, RemoteThrottled, RemoteUnavailable
from storage.remote.origin import Begun, OriginRegistry
from storage.remote.transport import RemoteSettings

T = TypeVar("T")

ANSWER_WITHIN = 60.0
"""Seconds for a document, from the first byte sent to the last received."""

CHECK_WITHIN = 20.0

PATIENCE = RemoteSettings(connect_timeout=10.0, stall_timeout=30.0, attempts=2, first_pause=0.2, longest_pause=1.0,
                          wait_when_throttled=False, read_buffer=128 * 1024)
"""Short: somebody waits, and there may be an older copy to answer with."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
FIRST_THROTTLE, LONGEST_THROTTLE = 5.0, 3600.0
"""Seconds of back-off after a failure, and after a 429 (where Retry-After does not say)."""


class Pause:
    """Since when and how often one address has failed, and until when it is left alone."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0
        self._throttled = False

    def worked(self) -> None:
        self._failures = 0

    def failed(self, error: RemoteUnavailable) -> None:
        self._throttled = isinstance(error, RemoteThrottled)
        first, longest = (FIRST_THROTTLE, LONGEST_THROTTLE) if self._throttled else (FIRST_PAUSE, LONGEST_PAUSE)
        pause = min(longest, first * 2 ** min(self._failures, 20))
        if isinstance(error, RemoteThrottled) and error.retry_after is not None:
            pause = min(longest, max(1.0, error.retry_after))
        self._failures += 1
        self._until = time.monotonic() + pause

    @property
    def doubtful(self) -> bool:
        return self._failures > 0

    @property
    def left(self) -> float:
        """Seconds until it is asked again."""
        return max(0.0, self._until - time.monotonic()) if self._failures else 0.0

    def check(self, upstream: str) -> UpstreamUnavailable | None:
        """Why it is not to be asked now; None: ask it."""
        left = self._until - time.monotonic()
        if left <= 0:
            return None
        kind = UpstreamThrottled if self._throttled else UpstreamUnavailable
        why = "it answered 429 to too many requests" if self._throttled else "it failed a moment ago"
        return kind(upstream, f"{why} and is asked again in {left:.0f} s", left)


class Origin:
    """One upstream with its mirrors."""

    def __init__(self, upstream: Upstream, registries: list[OriginRegistry], observer: Observer) -> None:
        self.upstream = upstream
        self._observer = observer
        self._bytes = observer.tally("upstream.bytes")
        self._registries = [(registry, Pause()) for registry in registries]

    @property
    def doubtful(self) -> bool:
        """Whether nobody has answered since the last failure."""
        return all(pause.doubtful for _, pause in self._registries)

    @property
    def paused_for(self) -> float:
        """Seconds until one of its addresses is asked again; 0: it may be asked now."""
        return min(pause.left for _, pause in self._registries)

    async def check(self) -> Sequence[tuple[str, str]]:
        """Each address, and why it does not answer or take our password; empty: it does."""
        found = []
        for registry, _ in self._registries:
            try:
                async with asyncio.timeout(CHECK_WITHIN):
                    await registry.ping()
                found.append((registry.address, ""))
            except TimeoutError:
                found.append((registry.address, f"no answer within {CHECK_WITHIN:g} s"))
            except SeawallError as error:
                found.append((registry.address, error.message))
        return found

    async def ask(self, call: Callable[[OriginRegistry], Awaitable[T]], within: float = ANSWER_WITHIN) -> T:
        """The first answer; each may take `within` seconds. Raises RemoteNotFound and the errors of
        registry.proxy.errors."""
        failure: SeawallError | None = None
        for registry, pause in self._registries:
            error = pause.check(self.upstream.name)
            if error is not None:
                failure = failure or error
                continue
            try:
                with self._observer.span("upstream", "ask"):
                    async with asyncio.timeout(within):
                        answer = await call(registry)
            except TimeoutError:
                slow = f"no answer within {within:g} s"
                pause.failed(RemoteUnavailable(slow))
                failure = UpstreamSlow(self.upstream.name, slow)
            except RemoteUnavailable as unavailable:
                pause.failed(unavailable)
                failure = translated(self.upstream.name, unavailable)
            except RemoteNotFound:
                pause.worked()
                if failure is None:  # else a mirror, which may be behind, says so: no reason to forget what we have
                    raise
            except SeawallError as other:
                raise translated(self.upstream.name, other) from other
            else:
                pause.worked()
                return answer
        assert failure is not None
        raise failure

    async def fetch(self, place: Place, digest: Digest, start: int, begun: Begun, *,
                    patient: bool = False) -> AsyncGenerator[bytes, None]:
        """A blob's bytes from `start`. `patient`: ask also who failed a moment ago (that a transfer broke says little
        of the next one). Raises as `ask`."""
        failure: SeawallError | None = None
        for registry, pause in self._registries:
            error = None if patient else pause.check(self.upstream.name)
            if error is not None:
                failure = failure or error
                continue
            came = False
            try:
                async with aclosing(registry.fetch(place.path, digest, start, begun)) as chunks:
                    async with asyncio.timeout(ANSWER_WITHIN):  # a head that drips would not end otherwise
                        chunk = await anext(chunks, b"")
                    pause.worked()
                    while chunk:
                        came = True
                        self._bytes.add(len(chunk))
                        yield chunk
                        chunk = await anext(chunks, b"")
                return
            except TimeoutError:
                slow = f"no answer within {ANSWER_WITHIN:g} s"
                pause.failed(RemoteUnavailable(slow))
                failure = UpstreamSlow(self.upstream.name, slow)
            except RemoteUnavailable as unavailable:
                if came:
                    raise translated(self.upstream.name, unavailable) from unavailable
                pause.failed(unavailable)
                failure = translated(self.upstream.name, unavailable)
            except RemoteNotFound:
                if failure is None:
                    raise
            except SeawallError as other:
                raise translated(self.upstream.name, other) from other
        assert failure is not None
        raise failure


class Origins:
    """The upstreams' connections, open for as long as the registry is."""

    def __init__(self, origins: dict[str, Origin]) -> None:
        self._origins = origins

    def at(self, place: Place) -> Origin:
        return self._origins[place.upstream.name]

    @property
    def all(self) -> Sequence[Origin]:
        return list(self._origins.values())


@asynccontextmanager
async def open_origins(upstreams: Upstreams, observer: Observer) -> AsyncIterator[Origins]:
    async with AsyncExitStack() as stack:
        origins = {}
        for upstream in upstreams.all:
            registries = [
                await stack.enter_async_context(OriginRegistry(
                    upstream.name, settings=PATIENCE, reach=reach,
                    # A mirror is somebody else's machine: it gets no password.
                    credentials=upstream.credentials if number == 0 else None))
                for number, reach in enumerate(upstream.reaches)
            ]
            origins[upstream.name] = Origin(upstream, registries, observer)
        yield Origins(origins)
