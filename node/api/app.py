"""The API put together and served on its socket."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from node.access.remote import Remote
from node.access.rules import Access
from node.api.archives import ArchiveRoutes
from node.api.build import BuildRoutes
from node.api.containers import ContainerRoutes
from node.api.dispatch import Dispatcher, common_headers
from node.api.events import EventRoutes, OlderEvents
from node.api.execs import ExecRoutes
from node.api.guard.guard import Guard
from node.api.guard.things import NodeThings
from node.api.imagefiles import ImageFileRoutes
from node.api.images import ImageRoutes
from node.api.networks import NetworkRoutes
from node.api.observe import ObserveRoutes
from node.api.parts import (
    BuildsImages,
    Commits,
    Containers,
    Execs,
    FilesOfContainers,
    ImageArchives,
    Images,
    Networks,
    Searches,
    Secrets,
    Volumes,
)
from node.api.routes import Groups, routes
from node.api.secrets import SecretRoutes
from node.api.stats import StatsRoutes
from node.api.streams import EngineConnection
from node.api.system import Facts, SystemRoutes
from node.api.tls import TlsProtocol
from node.api.transfer import TransferRoutes
from node.api.usage import UsageRoutes
from node.api.volumes import VolumeRoutes
from node.api.websocket import WebsocketRoutes
from node.events import EventBus
from node.images.news import ImageNews
from node.network.hostports import Bind
from node.userns.tenants import Tenants
from ocispec.errors import FailedPrecondition

MAX_BODY = 4 * 1024 * 1024
"""Of a JSON request; what is larger is a mistake or an attack."""

MAX_LINE = 64 * 1024
"""Of a request line and of a header: filters and credentials are long."""

SHUTDOWN_SECONDS = 10.0


class SocketBusy(FailedPrecondition):
    """A daemon answers on this socket already."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What the API speaks for."""

    containers: Containers
    execs: Execs
    images: Images
    networks: Networks
    volumes: Volumes
    searches: Searches
    events: EventBus
    facts: Facts
    files: FilesOfContainers
    archives: ImageArchives
    commits: Commits
    builds: BuildsImages
    secrets: Secrets
    search_registry: str = ""
    journal: OlderEvents | None = None
    tenants: Tenants = field(default_factory=Tenants)
    """Of the host's ids: who asks from within a container."""


def build(engine: Engine, access: Access | None = None) -> web.Application:
    """All requests go to one dispatcher: Docker's paths carry a version, and its 404 and 501 say what they are about,
    which aiohttp's router knows nothing of."""
    things = NodeThings(engine.containers, engine.execs, engine.networks, engine.volumes)
    guard = Guard(access or Access(None), things, own_users=engine.facts.own_users)
    dispatcher = Dispatcher(routes(groups(engine)), guard, engine.tenants.inside)
    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_route("*", r"/{path:[\s\S]*}", dispatcher.handle)  # a dot does not match a line feed
    app.on_response_prepare.append(_add_headers)
    return app


def groups(engine: Engine) -> Groups:
    driver, containers, images = engine.facts.storage_driver, engine.containers, engine.images
    imagefiles = ImageFileRoutes(engine.archives, engine.commits, engine.events)
    return Groups(
        system=SystemRoutes(engine.facts, containers, images, engine.events),
        usage=UsageRoutes(containers, containers, images, engine.volumes, engine.builds),
        events=EventRoutes(engine.events, engine.journal),
        containers=ContainerRoutes(containers, containers, containers, images, driver=driver),
        observe=ObserveRoutes(containers, containers),
        websocket=WebsocketRoutes(containers, containers),
        stats=StatsRoutes(containers),
        execs=ExecRoutes(engine.execs),
        images=ImageRoutes(images, images, containers, ImageNews(engine.events), driver=driver),
        transfer=TransferRoutes(
            images, engine.searches, engine.events, imagefiles.take_in, search_registry=engine.search_registry
        ),
        networks=NetworkRoutes(engine.networks, containers, containers, engine.events),
        volumes=VolumeRoutes(engine.volumes, containers),
        archives=ArchiveRoutes(engine.files),
        imagefiles=imagefiles,
        build=BuildRoutes(engine.builds, engine.events),
        secrets=SecretRoutes("secret", engine.secrets, containers),
        configs=SecretRoutes("config", engine.secrets, containers),
    )


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(common_headers())


@asynccontextmanager
async def serve(
    app: web.Application, path: Path, *, gid: int | None = None, remote: Remote | None = None, bind: Bind | None = None
) -> AsyncIterator[None]:
    """Answer on the unix socket, which `gid` may open, and to other machines, inside the block. On leaving, attached
    clients are hung up on, other requests have SHUTDOWN_SECONDS to finish. `bind` makes the sockets that other machines
    reach, where the host's network is not ours. Raises SocketBusy."""
    listener = await asyncio.to_thread(_listen, path, gid)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    server, connections = runner.server, set[EngineConnection]()
    assert server is not None
    loop = asyncio.get_running_loop()

    def connect() -> EngineConnection:
        return EngineConnection(
            server, loop=loop, access_log=None, tcp_keepalive=False, max_line_size=MAX_LINE, max_field_size=MAX_LINE,
            connections=connections,
        )  # fmt: skip

    servers: list[asyncio.Server] = [await loop.create_unix_server(connect, sock=listener)]
    try:
        if remote is not None:
            servers += await _listen_to_others(remote, connect, bind)
        yield
    finally:
        for listening in servers:
            listening.close()
        for connection in tuple(connections):
            connection.hang_up()
        await runner.cleanup()
        with suppress(OSError):
            await asyncio.to_thread(path.unlink)


async def _listen_to_others(
    remote: Remote, connect: Callable[[], EngineConnection], bind: Bind | None
) -> list[asyncio.Server]:
    """Raises SocketBusy."""
    loop = asyncio.get_running_loop()

    def tls() -> TlsProtocol:
        return TlsProtocol(remote.context(), connect)

    try:
        if bind is None:
            return [await loop.create_server(tls, remote.host, remote.port)]
        found = await loop.getaddrinfo(remote.host, remote.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [await loop.create_server(tls, sock=bind(family, kind, proto, str(address[0]), remote.port))
                for family, kind, proto, _, address in found]
    except OSError as error:
        raise SocketBusy(f"cannot listen on {remote.host}:{remote.port}: {error.strerror or error}") from error


def _listen(path: Path, gid: int | None = None) -> socket.socket:
    """A stale socket file (its daemon was killed) is taken over, a live one is not. Root and its group may connect:
    who can talk to this socket owns the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            _bind(listener, path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _refuse_live(path)
            path.unlink()
            _bind(listener, path)
        if gid is not None:
            os.chown(path, -1, gid)
        listener.listen(512)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, path: Path) -> None:
    # The mode is right from the first moment: between bind and chmod anybody could connect otherwise.
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)


def _refuse_live(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
    raise SocketBusy(f"a daemon answers on {path} already")
