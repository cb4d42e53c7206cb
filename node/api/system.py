"""The daemon itself: ping, version, info."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from aiohttp import web

from node.api.answers import reply
from node.api.call import Call
from node.api.parts import ImageShelf, Usage
from node.api.types import system as view
from node.api.version import NEWEST, OLDEST


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
    def __init__(self, facts: Facts, usage: Usage, images: ImageShelf) -> None:
        self._facts = facts
        self._usage = usage
        self._images = images

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
