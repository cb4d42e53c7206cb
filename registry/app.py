"""The composition root: settings become a running registry. Nothing here decides anything."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uvloop
from aiohttp import web

from ocispec.errors import SeawallError
from registry.api.admin.administration import Administration
from registry.api.admin.table import administration
from registry.api.operations import OperationEndpoints, Readers
from registry.api.paths import Endpoint
from registry.api.server import make_server
from registry.auth.identity import Identity, first_start, open_identity
from registry.auth.policy import Access
from registry.notifications.audit import AuditLog, Refusals
from registry.notifications.courier import LEASE, Pace
from registry.notifications.dispatch import Dispatcher, EventKeeper
from registry.notifications.endpoints import Endpoint as WebhookEndpoint
from registry.notifications.envelopes import Source
from registry.notifications.hooks import Hooks
from registry.proxy.fills import FillSettings
from registry.proxy.service import PullThrough, open_pull_through
from registry.proxy.upstreams import Upstreams
from registry.settings import InvalidSettings, Settings
from registry.telemetry.collection import CollectionMeter
from registry.telemetry.families import AUDIT_DROPPED, DELIVERIES, DELIVERY, RELOADS
from registry.telemetry.health import Health
from registry.telemetry.page import MetricsPage
from registry.telemetry.readings import Readings
from registry.telemetry.worker import Numbers, Telemetry, make_telemetry
from registry.tls import Certificates
from registry.upkeep import BackgroundScrub, Upkeep
from registry.workers import COULD_NOT_START, Sockets, raise_descriptors, resolve, settle_memory
from storage.blobs.disk import DiskBlobs
from storage.blobs.observed import observed
from storage.blobs.probe import StoreProbe
from storage.blobs.store import BlobStore
from storage.gc.housekeeping import Housekeeping
from storage.gc.leases import Leases
from storage.gc.report import GcReport
from storage.gc.sweep import Collector
from storage.metadata.engine import Database, open_database
from storage.observation import Observer
from storage.repository.intake import Intake
from storage.repository.store import ContentStore
from storage.rules.service import Rules
from storage.scrub import Scrubber
from storage.settings import ContentSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registry:
    """An open registry without its sockets."""

    content: ContentStore
    identity: Identity
    collector: Collector
    housekeeping: Housekeeping
    administration: Administration
    proxy: PullThrough
    intake: Intake
    leases: Leases
    scrubber: Scrubber
    database: Database
    telemetry: Telemetry
    health: Health
    refusals: Refusals

    @property
    def access(self) -> Access:
        return self.identity.access


@asynccontextmanager
async def open_registry(settings: Settings, *, migrate: bool = True,
                        telemetry: Telemetry | None = None) -> AsyncIterator[Registry]:
    """`telemetry` is None for a process that counts for itself alone. Raises what opening the database and the data
    folder can raise (`storage.metadata.engine`, `storage.blobs`)."""
    upstreams = Upstreams.of(settings.upstreams, settings.proxy)
    _make_folder(settings)
    telemetry = telemetry or make_telemetry(shared_numbers(1), 0, os.getpid(), settings.tracing)
    async with (
        _open_database(settings, migrate=migrate, observer=telemetry.observer) as database,
        open_identity(database, settings) as identity,
        open_blobs(settings) as store,
    ):
        blobs = observed(store, telemetry.observer)
        how = _content(settings)
        standing = upstreams.standing_rules(timedelta(seconds=settings.proxy.unused_after))
        content = ContentStore(database, blobs, how, rules=Rules(database, standing))
        collector = Collector(database, blobs, keep_untagged=settings.gc.keep_untagged, rules=content.rules)
        holder = f"{socket.gethostname()[:20]}-{uuid.uuid4()}"
        housekeeping = Housekeeping(database, collector, content.rules, holder)
        fills = FillSettings(settings.limits.blob_bytes, settings.proxy.downloads, settings.data)
        health = Health({"database": database.check, "store": StoreProbe(blobs).check})
        refusals = Refusals(database, settings.events.refusals_per_second, telemetry.part.counter(AUDIT_DROPPED))
        async with open_pull_through(upstreams, database, content, blobs, fills) as proxy, refusals.writing():
            admin = administration(content, identity, proxy, collector, housekeeping,
                                   timedelta(seconds=settings.gc.grace), AuditLog(database),
                                   Hooks(database, endpoints(settings)))
            yield Registry(content, identity, collector, housekeeping, admin, proxy,
                           Intake(database, blobs, how, content.rules), Leases(database), Scrubber(database, blobs),
                           database, telemetry, health, refusals)


def _open_database(settings: Settings, *, migrate: bool = True,
                   observer: Observer | None = None) -> AbstractAsyncContextManager[Database]:
    return open_database(settings.database_url, migrate=migrate, observer=observer,
                         patience=timedelta(seconds=settings.postgres.patience), options=settings.postgres.options())


def shared_numbers(workers: int) -> Numbers:
    """What the workers count in; to be made before they are forked."""
    return Numbers.of([endpoint.label for endpoint in Endpoint], workers)


@asynccontextmanager
async def open_blobs(settings: Settings) -> AsyncIterator[BlobStore]:
    """Raises StoreFull, StoreUnavailable."""
    if not settings.s3.bucket:
        disk = DiskBlobs(settings.data / "content")
        await disk.prepare()
        yield disk
        return
    # Late: boto3 costs a third of a second and 30 MB, and most registries use a folder.
    from storage.blobs.s3.store import S3Blobs

    bucket = S3Blobs(settings.s3.options())
    try:
        await bucket.prepare()
        yield bucket
    finally:
        bucket.close()


def _content(settings: Settings) -> ContentSettings:
    redirects = timedelta(seconds=settings.s3.redirect_expires) if settings.s3.redirect else None
    return ContentSettings(redirect_for=redirects, pull_events=settings.events.pulls)


def _make_folder(settings: Settings) -> None:
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        if not settings.database:
            _make_private(settings.data / "registry.db")
    except OSError as error:
        raise InvalidSettings(f"cannot make the data folder {settings.data}: {error.strerror}") from error


def _make_private(database: Path) -> None:
    """The database holds the key that tokens are signed with. SQLite gives its other files the mode of this one."""
    os.close(os.open(database, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    for suffix in ("", "-wal", "-shm"):
        file = Path(f"{database}{suffix}")
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def check_exposure(settings: Settings) -> None:
    """Raises InvalidSettings when strangers could reach a registry that lets everybody do everything, or could read
    passwords on their way to one that does not."""
    host, port = settings.address
    outside = [address for _, (address, _) in resolve(host, port) if not ipaddress.ip_address(address).is_loopback]
    if outside and settings.auth.mode == "none" and not settings.insecure_no_auth:
        raise InvalidSettings(
            f'refusing to listen on {outside[0]}: auth.mode is "none", so everybody who reaches it may read, push and '
            "delete everything. Ask for accounts (--auth accounts), listen on 127.0.0.1, or say that you mean it: "
            "--insecure-no-auth")
    if outside and not settings.tls.certificate and not settings.insecure_no_tls:
        raise InvalidSettings(
            f"refusing to listen on {outside[0]} without TLS: passwords and images could be read and changed on the "
            "way. Give tls.certificate and tls.key, listen on 127.0.0.1 behind a proxy that has TLS, or say that you "
            "mean it: --insecure-no-tls")


@asynccontextmanager
async def serving(settings: Settings, registry: Registry, sockets: Sockets) -> AsyncIterator[Certificates]:
    """Answers on `sockets` (listening already) during the block; then accepts no more and lets requests finish."""
    page = MetricsPage(registry.telemetry.numbers, Readings(registry.database))
    readers = Readers(settings.metrics_networks, settings.metrics.token)
    server = make_server(registry.content, registry.identity, registry.administration, settings, registry.proxy,
                         registry.telemetry, OperationEndpoints(registry.health, page, readers), registry.refusals)
    runner = web.ServerRunner(server, shutdown_timeout=settings.limits.shutdown_timeout)
    certificates = _certificates(settings, registry.telemetry)
    await runner.setup()
    try:
        for listening in sockets:
            await web.SockSite(runner, listening, ssl_context=certificates.context).start()
        yield certificates
    finally:
        await runner.cleanup()


def _certificates(settings: Settings, telemetry: Telemetry) -> Certificates:
    well, badly = (telemetry.part.counter(RELOADS, result) for result in ("ok", "failed"))
    return Certificates(settings.tls, lambda good: (well if good else badly).add())


def run_worker(settings: Settings, sockets: Sockets, numbers: Numbers, *, index: int, parent: int | None,
               ready: Callable[[], None]) -> int:
    """One process of the registry, from open to closed; gives its exit status. The one of `index` 0 does the upkeep.
    `parent`: a descriptor that reads end-of-file when the parent process is gone."""
    raise_descriptors()
    try:
        telemetry = make_telemetry(numbers, index, os.getpid(), settings.tracing)
        uvloop.run(_serve(settings, sockets, telemetry, first=index == 0, parent=parent, ready=ready))
        telemetry.tracing.close()
    except SeawallError as error:
        log.critical("%s", error.message)  # the message says it, a traceback would bury it
        return COULD_NOT_START
    return 0


async def _serve(settings: Settings, sockets: Sockets, telemetry: Telemetry, *, first: bool, parent: int | None,
                 ready: Callable[[], None]) -> None:
    stop, at_once = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        (at_once if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if parent is not None:
        loop.add_reader(parent, _orphaned, loop, parent, (stop, at_once))
    async with (
        open_registry(settings, migrate=False, telemetry=telemetry) as registry,
        registry.content.pulls.flushing(),
        serving(settings, registry, sockets) as certificates,
        asyncio.TaskGroup() as group,
    ):
        loop.add_signal_handler(signal.SIGHUP, certificates.reload)
        background = [group.create_task(certificates.watch()),
                      group.create_task(_dispatcher(settings, registry, sockets).run())]
        if first:
            upkeep = Upkeep(registry.housekeeping, registry.content.uploads, registry.proxy, settings,
                             CollectionMeter(telemetry.part))
            background.append(group.create_task(upkeep.run()))
            scrub = BackgroundScrub(registry.scrubber, registry.housekeeping.duty.beside("scrub"), settings.scrub)
            background.append(group.create_task(scrub.run()))
            background.append(group.create_task(EventKeeper(registry.database, _retention(settings)).run()))
        settle_memory()
        ready()
        await stop.wait()
        await _drain(registry.health, settings.limits.drain_time, at_once)
        for task in background:
            task.cancel()


def endpoints(settings: Settings) -> list[WebhookEndpoint]:
    """The webhooks of the settings. Raises InvalidEndpoint."""
    return [WebhookEndpoint.from_settings(hook) for hook in settings.webhooks]


def _dispatcher(settings: Settings, registry: Registry, sockets: Sockets) -> Dispatcher:
    source = Source(settings.events.url.rstrip("/"), "https" if settings.tls.certificate else "http",
                    str(uuid.uuid4()), f"{socket.gethostname()}:{sockets[0].getsockname()[1]}")
    timeout = timedelta(seconds=settings.events.webhook_timeout)
    pace = Pace(timeout=timeout, lease=max(LEASE, timeout * 3),
                dead_after=timedelta(seconds=settings.events.give_up_after))
    part = registry.telemetry.part
    attempts = {well: part.counter(DELIVERIES, "ok" if well else "failed") for well in (True, False)}
    seconds = part.histogram(DELIVERY)

    def told(well: bool, took: float) -> None:
        attempts[well].add()
        seconds.observe(took)

    return Dispatcher(registry.database, endpoints(settings), source, pace, told)


def _retention(settings: Settings) -> timedelta | None:
    return timedelta(seconds=settings.events.retention) if settings.events.retention else None


def _orphaned(loop: asyncio.AbstractEventLoop, parent: int, events: Sequence[asyncio.Event]) -> None:
    loop.remove_reader(parent)  # it would be readable for ever
    for event in events:
        event.set()


async def _drain(health: Health, seconds: float, at_once: asyncio.Event) -> None:
    """`/readyz` fails while everything is still answered, so that load balancers send no more; a second signal ends
    it."""
    health.draining = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await at_once.wait()


def migrate(settings: Settings) -> None:
    """Bring the database to this program's schema. Raises what `open_registry` raises."""

    async def once() -> None:
        async with open_registry(settings):
            pass

    asyncio.run(once())


def prepare(settings: Settings) -> str | None:
    """Migrate, and make at the first start with accounts an administrator's token, which nobody can show again. Raises
    what `open_registry` raises."""

    async def once() -> str | None:
        _make_folder(settings)
        async with _open_database(settings) as database:
            token = None if settings.auth.mode == "none" else await first_start(database, settings.auth)
        async with open_registry(settings, migrate=False) as registry:
            if settings.auth.mode == "none" and await registry.identity.accounts.list(1):
                log.warning('the database has users, and auth.mode is "none": everybody may do everything')
            return token

    return asyncio.run(once())


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
