"""The fast lane: `GET` and `HEAD` of a manifest that is in memory, answered without anything that can be left out.

Pulls are mostly this: every node asks for a tag again and again to hear that nothing changed. What the lane does not
recognise at a glance (a condition, unknown credentials, an old protocol version, a manifest that is not in memory) it
leaves to the ordinary way; it never answers differently from `manifests.ManifestEndpoints.get`, which a test holds
it to.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

from aiohttp import web

from ocispec.digest import Digest
from ocispec.errors import InvalidArgument
from ocispec.reference import RepositoryName, Tag, parse_tag_or_digest
from registry.api.answers import COMMON
from registry.api.manifests import describe
from registry.api.paths import Endpoint, parse
from registry.api.rates import Rates
from registry.api.reached import Reached
from registry.api.requests import HEADER, Request, name_of
from registry.auth.policy import Access, Action
from registry.auth.principal import Presented
from storage.metadata.manifests import StoredManifest
from storage.repository.manifests import Manifests
from storage.repository.pulls import Key, Pulls, key

_MANIFEST = Endpoint.MANIFEST.label

MAX_PATHS = 4096
MAX_PATH = 512
"""Bounds what strangers can make us remember: about 4 MiB."""


@dataclass(slots=True)
class _Known:
    """What a path means, and the head of its last answer with the digest object it was made for."""

    repository: RepositoryName
    reference: Tag | Digest
    pulled: Key
    digest: Digest | None = None
    head: bytes = b""


class ManifestLane:
    def __init__(self, manifests: Manifests, pulls: Pulls, access: Access, reached: Reached, rates: Rates,
                 elsewhere: Callable[[str], object] | None = None) -> None:
        """`elsewhere`: whether the repository of this name is another registry's, whose tags must be asked after."""
        self._manifests = manifests
        self._pulls = pulls
        self._elsewhere = elsewhere
        self._access = access
        self._looks = access.looks
        self._reached = reached
        self._rates = rates
        self._paths: dict[str, _Known] = {}
        self._second = 0
        self._date = b""

    def answer(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """None: take the ordinary way."""
        headers = request.headers
        if "If-None-Match" in headers or "Origin" in headers or not request.keep_alive:
            return None
        if request.version != (1, 1):
            return None
        path = request.raw_path
        known = self._paths.get(path) or self._learn(path)
        if known is None:
            return None
        principal = self._access.known(Presented(headers.get("Authorization")))
        if principal is None or not self._access.allows(principal, Action.PULL, known.repository):
            return None
        stored = self._manifests.cached(known.repository, known.reference, looked=self._looks)
        if stored is None:
            return None
        if self._rates.on and not self._rates.admit(self._reached.remote(request), principal.name):
            return None
        if isinstance(request, Request):
            request.endpoint, request.actor = _MANIFEST, principal.name
        # By identity: the object in memory is replaced whenever it was read anew, and then the head is made anew.
        if known.digest is not stored.digest:
            known.digest, known.head = stored.digest, _head(stored)
        if request.method == "GET" or isinstance(known.reference, Tag):
            self._pulls.count(known.pulled)  # which of them is a pull: see `manifests.is_pull`
        return Prepared(known.head, self._date_line(), f"{HEADER}: {name_of(request)}\r\n\r\n".encode(),
                        stored.raw if request.method == "GET" else b"")

    def _learn(self, path: str) -> _Known | None:
        target = parse(path) if len(path) <= MAX_PATH and "?" not in path else None
        if target is None or target.endpoint is not Endpoint.MANIFEST:
            return None
        if self._elsewhere is not None and self._elsewhere(target.name):
            return None
        try:
            repository, reference = RepositoryName.parse(target.name), parse_tag_or_digest(target.value)
        except InvalidArgument:
            return None
        known = _Known(repository, reference, key(repository, reference))
        if len(self._paths) >= MAX_PATHS:
            self._paths.clear()
        self._paths[path] = known
        return known

    def _date_line(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second, self._date = second, f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._date


class Prepared(web.StreamResponse):
    """A complete answer, written at once."""

    def __init__(self, head: bytes, date: bytes, name: bytes, body: bytes) -> None:
        super().__init__()
        self._parts = (head, date, name, body)
        self._keep_alive = True

    async def prepare(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("client went")
        answer = b"".join(self._parts)
        transport.write(answer)
        request.writer.output_size += len(answer)  # for the metrics
        self._body_length = len(self._parts[3])
        self._writer = request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        assert not data
        await self._writer.drain()


def _head(stored: StoredManifest) -> bytes:
    headers = {**COMMON, **describe(stored), "Content-Type": stored.media_type, "Content-Length": len(stored.raw)}
    return "".join(["HTTP/1.1 200 OK\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items())]).encode()
