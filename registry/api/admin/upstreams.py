"""The registries that are pulled through: which there are, how they do, and what is kept of them."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from registry.api.admin.operation import Asked, Operation, Paged
from registry.auth.policy import Action
from registry.proxy.service import PullThrough, UpstreamState
from storage.metadata.cached import CachedTag


class Upstream(msgspec.Struct, frozen=True):
    """`addresses`: its own, then its mirrors'. `answers`, `paused_for` (seconds) and `fills` (blobs on their way) are
    what the process that answers knows. Passwords are never shown."""

    name: str
    addresses: list[str]
    prefix: str
    platforms: list[str]
    tag_ttl: float
    answers: bool
    paused_for: float
    fills: int

    @classmethod
    def of(cls, state: UpstreamState) -> "Upstream":
        told = state.upstream
        return cls(told.name, [str(reach.base) for reach in told.reaches], told.prefix, [*map(str, told.platforms)],
                   told.tag_ttl, state.answers, round(state.paused_for, 1), state.fills)


class Upstreams(msgspec.Struct, frozen=True):
    items: list[Upstream]


class Copy(msgspec.Struct, frozen=True):
    """A tag that came from an upstream: when that last said what it names, and when somebody last pulled it (to the
    hour)."""

    tag: str
    digest: str
    checked: datetime
    used: datetime

    @classmethod
    def of(cls, tag: CachedTag) -> "Copy":
        return cls(tag.tag.value, str(tag.digest), tag.checked, tag.used)


class Copies(msgspec.Struct, frozen=True):
    """`next` is empty at the end."""

    items: list[Copy]
    next: str


class UpstreamOperations:
    def __init__(self, proxy: PullThrough) -> None:
        self._proxy = proxy

    def operations(self) -> Sequence[Operation]:
        return (
            Operation("GET", "/upstreams", "The registries that are pulled through, and how they do", self.upstreams,
                      result=Upstreams),
            Operation("GET", "/repositories/{repository}/copies", "Its tags that are copies of an upstream's",
                      self.copies, needs=Action.PULL, query=Paged, result=Copies),
        )

    async def upstreams(self, asked: Asked) -> Upstreams:  # noqa: ARG002
        return Upstreams([Upstream.of(state) for state in self._proxy.states()])

    async def copies(self, asked: Asked) -> Copies:
        wanted: Paged = asked.query
        found = await self._proxy.cached_tags(asked.repository, limit=wanted.limit, after=wanted.after)
        return Copies([Copy.of(tag) for tag in found], found[-1].tag.value if len(found) == wanted.limit else "")
