"""The daemon itself: ping, version, info, disk usage."""

import os
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from aiohttp import web

from node.api.answers import reply
from node.api.call import Call
from node.api.parts import Catalogue, ImageShelf, Usage, Volumes
from node.api.types import containers as container_view
from node.api.types import images as image_view
from node.api.types import system as view
from node.api.types import volumes as volume_view
from node.api.version import NEWEST, OLDEST

UNKNOWN = -1
"""Docker's word for a size nobody has counted."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while the daemon runs."""

    id: str
    storage_driver: str
    cgroup_version: str
    """"1" or "2"."""

    root: Path
    insecure_registries: Sequence[str] = ()
    warnings: Sequence[str] = ()
    """What the host cannot do, for `docker info`."""


class SystemRoutes:
    def __init__(
        self, facts: Facts, catalogue: Catalogue, usage: Usage, images: ImageShelf, volumes: Volumes
    ) -> None:
        self._facts = facts
        self._catalogue = catalogue
        self._usage = usage
        self._images = images
        self._volumes = volumes

    async def ping(self, call: Call) -> web.StreamResponse:
        headers = {
            "Builder-Version": "1",
            "Swarm": "inactive",
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
        }
        body = b"" if call.request.method == "HEAD" else b"OK"
        return web.Response(body=body, headers=headers, content_type="text/plain", charset="utf-8")

    async def version(self, _call: Call) -> web.StreamResponse:
        host = os.uname()
        product = view.Product(seawall_version(), f"{NEWEST}", f"{OLDEST}", host.release, host.machine)
        return reply(view.version(product, python=platform.python_version()))

    async def info(self, _call: Call) -> web.StreamResponse:
        host = os.uname()
        machine = view.Machine(
            name=host.nodename,
            kernel=host.release,
            architecture=host.machine,
            system=_system_name(),
            cpus=len(os.sched_getaffinity(0)),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            now=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        )
        node = view.Node(
            id=self._facts.id,
            version=seawall_version(),
            driver=self._facts.storage_driver,
            cgroup_version=self._facts.cgroup_version,
            root=str(self._facts.root),
            insecure_registries=tuple(self._facts.insecure_registries),
            warnings=tuple(self._facts.warnings),
        )
        return reply(view.info(node, machine, self._usage.counts(), images=len(await self._images.list())))

    async def disk_usage(self, call: Call) -> web.StreamResponse:
        """Layers are counted once a image: what images share is not told apart yet, so LayersSize is an upper bound."""
        kinds = set(call.request.query.getall("type", ())) or {"container", "image", "volume", "build-cache"}
        images = await self._images.list()
        uses, now = self._usage.in_use(), time.time()
        document: dict[str, object] = {}
        if "image" in kinds:
            document["LayersSize"] = sum(image.size for image in images)
            document["Images"] = [
                image_view.summary(image, call.version, containers=len(uses.get(str(image.id), ())))
                for image in images
            ]
        if "container" in kinds:
            document["Containers"] = [
                container_view.summary(c, now=now, sizes=(size := await self._catalogue.size(c.id), size))
                for c in await self._catalogue.list(all=True)
            ]
        if "volume" in kinds:
            users = Counter(m.name for c in await self._catalogue.list(all=True) for m in c.mounts if m.name)
            document["Volumes"] = [
                volume_view.volume(volume) | {"UsageData": {"RefCount": users[volume.name], "Size": UNKNOWN}}
                for volume in await self._volumes.list()
            ]
        if "build-cache" in kinds:
            document["BuildCache"] = []
        return reply(document)


def seawall_version() -> str:
    try:
        return metadata.version("seawall")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
