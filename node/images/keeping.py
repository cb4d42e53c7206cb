"""Disk that comes back by itself: images that nothing used for long go, or the least recently used when the disk fills.

Off unless a policy says otherwise. An image is used by a pull, a tag, a new container, and as long as a container made
from it exists. Whatever the policy, downloads that nobody took up again for a week are given up.
"""

import asyncio
import fnmatch
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from logging import getLogger
from pathlib import Path
from typing import Protocol

from node.images.image import Image, Pruned
from node.images.news import ImageNews
from node.state.images import ImageUseRows
from ocispec.digest import Digest
from ocispec.errors import SeawallError

log = getLogger(__name__)

EVERY = timedelta(minutes=10)
DOWNLOADS_KEPT = timedelta(days=7)
SHARED_KEPT = timedelta(days=14)
"""How long a shared layer stays that no node takes."""

EASED = 5
"""Percent points below the mark at which the disk is full enough that collecting ends."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`unused`: an image goes when nothing used it for so long; None: never for that. `disk`: percent of the file
    system in use at which the least recently used go; 0: never. `keep`: patterns of names that stay."""

    unused: timedelta | None = None
    disk: int = 0
    keep: tuple[str, ...] = ()

    def protects(self, image: Image) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for name in (*image.repo_tags, *image.repo_digests)
                   for pattern in self.keep)


class Collected(Protocol):
    """Part of node.images.store.Images."""

    async def list(self) -> Sequence[Image]: ...
    async def prune(self, wanted: Callable[[Image], bool], in_use: Mapping[str, Sequence[str]]) -> Pruned: ...
    async def tidy(self, older_than: timedelta) -> None: ...


class Expires(Protocol):
    """Part of node.images.shared.SharedLayers."""

    async def expire(self, older_than: timedelta) -> Sequence[str]: ...


Uses = Callable[[], Mapping[str, Sequence[str]]]
"""Image id to the containers made from it."""

DiskUse = Callable[[], float]
"""Percent of the file system in use."""


def disk_use(root: Path) -> DiskUse:
    """As df(1) counts: of what is not reserved for root."""
    def read() -> float:
        info = os.statvfs(root)
        used = info.f_blocks - info.f_bfree
        return 100 * used / max(used + info.f_bavail, 1)
    return read


class Keeper:
    def __init__(self, images: Collected, rows: ImageUseRows, uses: Uses, news: ImageNews, policy: Policy,
                 disk: DiskUse, shared: Expires | None = None) -> None:
        self._images = images
        self._rows = rows
        self._uses = uses
        self._news = news
        self._policy = policy
        self._disk = disk
        self._shared = shared

    async def run(self) -> None:
        """Until cancelled. A turn that fails is said in the log, and the next one tries again."""
        while True:
            await asyncio.sleep(EVERY.total_seconds())
            try:
                await self._images.tidy(DOWNLOADS_KEPT)
                if self._shared is not None:
                    await self._shared.expire(SHARED_KEPT)
                await self.turn(datetime.now(UTC))
            except SeawallError as error:
                log.warning("images could not be collected: %s", error.message)
            except OSError:
                log.exception("images could not be collected")

    async def turn(self, now: datetime) -> Sequence[Image]:
        """Look once; gives the images that went."""
        idle = await self._idle(now)
        gone = []
        if self._policy.unused is not None:
            old = [image for image, used in idle if now - used >= self._policy.unused]
            gone += await self._remove(old)
        if self._policy.disk and await asyncio.to_thread(self._disk) >= self._policy.disk:
            for image in [image for image, _ in idle if image not in gone]:
                gone += await self._remove([image])
                if await asyncio.to_thread(self._disk) < self._policy.disk - EASED:
                    break
        return gone

    async def _idle(self, now: datetime) -> list[tuple[Image, datetime]]:
        """The images that no container was made from, with the moment of their last use, longest unused first."""
        held, uses = await self._images.list(), self._uses()
        busy = [image for image in held if any(uses.get(str(one)) for one in (image.id, *image.variants))]
        await self._rows.touch([image.id for image in busy], now)
        known = await self._rows.all()
        # One that nobody knows of (an older Seawall pulled it) begins its time now.
        await self._rows.touch([image.id for image in held if image.id not in known], now)
        await self._rows.forget_all_but({one.id for one in held})
        idle = [(image, known.get(image.id, now)) for image in held
                if image not in busy and not self._policy.protects(image)]
        return sorted(idle, key=lambda one: (one[1], str(one[0].id)))

    async def _remove(self, images: Iterable[Image]) -> list[Image]:
        going: dict[Digest, Image] = {image.id: image for image in images}
        if not going:
            return []
        pruned = await self._images.prune(lambda image: image.id in going, self._uses())
        deleted = {removal.text for removal in pruned.removals if removal.kind == "Deleted"}
        self._news.removed(pruned.removals, going.values())
        for image in going.values():
            if str(image.id) in deleted:
                log.info("image %s (%s) was not used for long: removed", image.id.short, ", ".join(image.repo_tags))
        return [image for image in going.values() if str(image.id) in deleted]
