"""The daemon itself: ping, version, info."""

import asyncio
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from aiohttp import web

from node.api.answers import reply
from node.api.call import Call
from node.api.parts import ImageShelf, Usage
from node.api.types import system as view
from node.api.version import NEWEST, OLDEST
from node.containers.bundle.baseline import baseline
from node.events import EventBus
from node.linux import labels


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while the daemon runs."""

    id: str
    storage_driver: str
    cgroup_version: str
    """"1" or "2"."""

    root: Path
    cgroup_driver: str = "cgroupfs"
    insecure_registries: Sequence[str] = ()
    limits: Collection[str] = view.EVERY_LIMIT
    """Kinds of limits that the host has (node.linux.cgroups.store.Groups.features)."""

    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of each registry that has some."""

    log_driver: str = "json-file"
    log_drivers: Sequence[str] = ("json-file", "none")
    network_drivers: Sequence[str] = ("bridge", "host", "null")
    init: str = ""
    isolation: str = "seawall"
    runtimes: Mapping[str, str] = field(default_factory=lambda: {"seawall": "seawall-runtime"})
    """Paths by name."""

    default_runtime: str = "seawall"
    rootless: bool = False
    own_users: bool = False
    """Containers that say nothing have a user namespace of their own."""


class SystemRoutes:
    def __init__(self, facts: Facts, usage: Usage, images: ImageShelf, events: EventBus) -> None:
        self._facts = facts
        self._usage = usage
        self._images = images
        self._events = events

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

    async def info(self, call: Call) -> web.StreamResponse:
        host = os.uname()
        machine = view.Machine(
            name=host.nodename,
            kernel=host.release,
            architecture=host.machine,
            system=_system_name(),
            cpus=len(os.sched_getaffinity(0)),
            forwards=_forwards(),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            now=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        )
        node = view.Node(
            id=self._facts.id,
            version=seawall_version(),
            driver=self._facts.storage_driver,
            cgroup_version=self._facts.cgroup_version,
            cgroup_driver=self._facts.cgroup_driver,
            root=str(self._facts.root),
            insecure_registries=tuple(self._facts.insecure_registries),
            limits=frozenset(self._facts.limits),
            mirrors=self._facts.mirrors,
            log_driver=self._facts.log_driver,
            plugins={"Volume": ["local"], "Network": list(self._facts.network_drivers),
                     "Log": list(self._facts.log_drivers)},
            init=self._facts.init,
            isolation=self._facts.isolation,
            runtimes=self._facts.runtimes,
            default_runtime=self._facts.default_runtime,
            security=_security(self._facts),
        )
        work = view.Work(files=len(await asyncio.to_thread(os.listdir, "/proc/self/fd")),
                         tasks=len(asyncio.all_tasks()), listeners=self._events.listeners)
        backing = await asyncio.to_thread(_file_system, self._facts.root)
        document = view.info(node, machine, self._usage.counts(), images=len(await self._images.list()))
        return reply(document | view.work(work, backing=backing) | view.by_version(call.version))


def _security(facts: Facts) -> tuple[str, ...]:
    """What a container that says nothing gets, in Docker's words."""
    kind = baseline(facts.isolation)
    return (
        "name=seccomp,profile=builtin",
        "name=cgroupns",
        *(["name=userns"] if facts.own_users else []),
        *(["name=no-new-privileges"] if kind.no_new_privileges else []),
        *(["name=apparmor"] if labels.default_apparmor() else []),
        *(["name=rootless"] if facts.rootless else []),
    )


def seawall_version() -> str:
    try:
        return metadata.version("seawall")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def _forwards() -> bool:
    try:
        return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    except OSError:
        return False


def _file_system(root: Path) -> str:
    """The type of the file system that holds `root`: of all mounts above it the nearest."""
    best, kind = "", "unknown"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            place, separator = fields[4], fields.index("-")
            if len(place) >= len(best) and Path(place) in (root, *root.parents):
                best, kind = place, fields[separator + 1]
    return kind


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
