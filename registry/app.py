"""The composition root: settings become a running registry. Nothing here decides anything."""

import asyncio
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import uvloop
from aiohttp import web

from ocispec.errors import SeawallError
from registry.api.admin.administration import Administration
from registry.api.admin.table import administration
from registry.api.server import make_server
from registry.auth.policy import Access, NoAccounts, OpenPolicy
from registry.proxy.fills import FillSettings
from registry.proxy.service import PullThrough, open_pull_through
from registry.proxy.upstreams import Upstreams
from registry.settings import InvalidSettings, Settings
from registry.upkeep import Upkeep
from registry.workers import COULD_NOT_START, Sockets, resolve
from storage.blobs.disk import DiskBlobs
from storage.gc.leases import Leases
from storage.gc.report import GcReport
from storage.gc.sweep import Collector
from storage.metadata.engine import open_database
from storage.repository.intake import Intake
from storage.repository.store import ContentStore
from storage.scrub import Scrubber
from storage.settings import ContentSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registry:
    """An open registry without its sockets."""

    content: ContentStore
    access: Access
    collector: Collector
    administration: Administration
    proxy: PullThrough
    intake: Intake
    leases: Leases
    scrubber: Scrubber


@asynccontextmanager
async def open_registry(settings: Settings, *, migrate: bool = True) -> AsyncIterator[Registry]:
    """Raises what opening the database and the data folder can raise (`storage.metadata.engine`, `storage.blobs`)."""
    upstreams = Upstreams.of(settings.upstreams, settings.proxy)
    _make_folder(settings)
    blobs = DiskBlobs(settings.data / "content")
    async with open_database(settings.database_url, migrate=migrate) as database:
        await blobs.prepare()
        how = ContentSettings()
        content = ContentStore(database, blobs, how)
        collector = Collector(database, blobs, keep_untagged=settings.gc.keep_untagged)
        fills = FillSettings(settings.limits.blob_bytes, settings.proxy.downloads, settings.data)
        async with open_pull_through(upstreams, database, content, blobs, fills) as proxy:
            yield Registry(content, Access(NoAccounts(), OpenPolicy()), collector, administration(content), proxy,
                           Intake(database, blobs, how, content.rules), Leases(database), Scrubber(database, blobs))


def _make_folder(settings: Settings) -> None:
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSettings(f"cannot make the data folder {settings.data}: {error.strerror}") from error


def check_exposure(settings: Settings) -> None:
    """Raises InvalidSettings when strangers could reach a registry that lets everybody do everything."""
    host, port = settings.address
    outside = [address for _, (address, _) in resolve(host, port) if not ipaddress.ip_address(address).is_loopback]
    if outside and not settings.insecure_no_auth:
        raise InvalidSettings(
            f"refusing to listen on {outside[0]}: this registry has no accounts yet, so everybody who reaches it may "
            "read, push and delete everything. Listen on 127.0.0.1, or say that you mean it: --insecure-no-auth")


@asynccontextmanager
async def serving(settings: Settings, registry: Registry, sockets: Sockets) -> AsyncIterator[None]:
    """Answers on `sockets` (listening already) during the block; then accepts no more and lets requests finish."""
    server = make_server(registry.content, registry.access, registry.administration, settings, registry.proxy)
    runner = web.ServerRunner(server, shutdown_timeout=settings.limits.shutdown_timeout)
    await runner.setup()
    try:
        for listening in sockets:
            await web.SockSite(runner, listening, ssl_context=tls_context(settings)).start()
        yield
    finally:
        await runner.cleanup()


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Raises InvalidSettings."""
    if not settings.tls.certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls.certificate, settings.tls.key)
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"cannot use the TLS certificate: {error}") from error
    return context


def run_worker(settings: Settings, sockets: Sockets, *, first: bool, parent: int | None,
               ready: Callable[[], None]) -> int:
    """One process of the registry, from open to closed; gives its exit status. `first`: it does the upkeep. `parent`:
    a descriptor that reads end-of-file when the parent process is gone."""
    try:
        uvloop.run(_serve(settings, sockets, first=first, parent=parent, ready=ready))
    except SeawallError as error:
        log.critical("%s", error.message)  # the message says it, a traceback would bury it
        return COULD_NOT_START
    return 0


async def _serve(settings: Settings, sockets: Sockets, *, first: bool, parent: int | None,
                 ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if parent is not None:
        loop.add_reader(parent, stop.set)
    async with (
        open_registry(settings, migrate=False) as registry,
        registry.content.pulls.flushing(),
        serving(settings, registry, sockets),
    ):
        upkeep = Upkeep(registry.collector, registry.content.uploads, registry.proxy, settings)
        running = asyncio.create_task(upkeep.run() if first else asyncio.sleep(0))
        ready()
        await stop.wait()
        running.cancel()
        await asyncio.wait([running])


def migrate(settings: Settings) -> None:
    """Bring the database to this program's schema. Raises what `open_registry` raises."""

    async def once() -> None:
        async with open_registry(settings):
            pass

    asyncio.run(once())


def collect(settings: Settings, *, dry_run: bool) -> GcReport:
    """One garbage collection, also beside a running registry. Raises what `open_registry` raises."""

    async def once() -> GcReport:
        async with open_registry(settings, migrate=False) as registry:
            if not dry_run:
                await registry.content.uploads.expire(timedelta(seconds=settings.uploads.expire_after))
            return await registry.collector.run(dry_run=dry_run, grace=timedelta(seconds=settings.gc.grace))

    return asyncio.run(once())


def where(sockets: Sockets) -> str:
    """HOST:PORT as a client writes it."""
    host, port = sockets[0].getsockname()[:2]
    return f"[{host}]:{port}" if sockets[0].family == socket.AF_INET6 else f"{host}:{port}"
