"""`GET /system/df`: bytes on disk, counted so that they add up: images (unpacked layers, each once, and the packed
content beside them), containers (their writable layer, log and bundle) and volumes."""

import time
from collections import Counter
from collections.abc import Sequence

from aiohttp import web

from node.api.answers import reply
from node.api.call import Call
from node.api.parts import BuildsImages, Catalogue, ImageShelf, Usage, Volumes
from node.api.types import containers as container_view
from node.api.types import images as image_view
from node.api.types import usage as view
from node.api.types import volumes as volume_view
from node.api.types.usage import Kind
from node.containers.model import Container
from node.images.census import packed_size, reclaimable, shared_sizes
from ocispec.errors import InvalidArgument


class UsageRoutes:
    def __init__(self, catalogue: Catalogue, usage: Usage, images: ImageShelf, volumes: Volumes,
                 builds: BuildsImages) -> None:  # fmt: skip
        self._catalogue = catalogue
        self._usage = usage
        self._images = images
        self._volumes = volumes
        self._builds = builds

    async def disk_usage(self, call: Call) -> web.StreamResponse:
        wanted = dict.fromkeys(call.texts("type")) or dict.fromkeys(view.KINDS)
        kinds = []
        for name in wanted:
            match name:
                case "image":
                    kinds.append(await self._image_usage(call))
                case "container":
                    kinds.append(await self._container_usage())
                case "volume":
                    kinds.append(await self._volume_usage())
                case "build-cache":
                    kinds.append(await self._build_usage())
                case _:
                    raise InvalidArgument(f"unknown object type: {name[:100]}")
        if call.version < view.SUMS:
            return reply(view.legacy(kinds))
        return reply(view.sums(kinds, verbose=call.flag("verbose")))

    async def _build_usage(self) -> Kind:
        """What builds keep: one record a step, none of which anybody is using."""
        kept = await self._builds.kept()
        items = [
            {"ID": one.key, "Parents": None, "Type": "regular", "Description": one.line, "InUse": False,
             "Shared": False, "Size": one.size, "CreatedAt": one.updated.isoformat(),
             "LastUsedAt": one.updated.isoformat(),
             "UsageCount": 1}
            for one in kept
        ]  # fmt: skip
        total = sum(one.size for one in kept)
        return Kind("build-cache", items, total=total, reclaimable=total)

    async def _image_usage(self, call: Call) -> Kind:
        images, usage, uses = await self._images.list(), await self._images.usage(), self._usage.in_use()
        shared = shared_sizes(usage, images)
        counts = {image.id: image_view.count(image, uses) for image in images}
        items = [
            # The count is what `docker system df` calls an active image by, whatever the version of the API.
            image_view.summary(image, call.version, containers=counts[image.id], shared=shared[image.id])
            | {"Containers": counts[image.id], "Size": image.size + packed_size(usage, image)}
            for image in images
        ]
        used = [image for image in images if counts[image.id]]
        return Kind("image", items, len(used), usage.total(), reclaimable(usage, images, used))

    async def _container_usage(self) -> Kind:
        now, items, active, idle = time.time(), [], 0, 0
        for container in await self._catalogue.list(all=True):
            # What removing it would give back: Docker leaves the log out, which is often the most of it.
            size = await self._catalogue.size(container.id) + await self._usage.kept(container.id)
            whole = size + await self._image_size(container)
            items.append(container_view.summary(container, now=now, sizes=(size, whole)))
            active += container.state.running
            idle += 0 if container.state.running else size
        return Kind("container", items, active, sum(item["SizeRw"] for item in items), idle)

    async def _image_size(self, container: Container) -> int:
        images = {str(image.id): image.size for image in await self._images.list()}
        return images.get(container.image_id, 0)

    async def _volume_usage(self) -> Kind:
        users = Counter(name for container in await self._catalogue.list(all=True) for name in _volumes(container))
        items, active, total, idle = [], 0, 0, 0
        for volume in await self._volumes.list():
            size, count = await self._volumes.usage(volume.name), users[volume.name]
            items.append(volume_view.volume(volume, (count, size)))
            # -1: mounted from elsewhere, no bytes of this node's.
            active, total, idle = active + bool(count), total + max(size, 0), idle + (0 if count else max(size, 0))
        return Kind("volume", items, active, total, idle)


def _volumes(container: Container) -> Sequence[str]:
    return sorted({mount.name for mount in container.mounts if mount.name})
