"""`seawalld`: puts the rooms of the node together and serves the Docker Engine API until it is told to stop.

Stopping leaves containers running: their monitors are processes of their own, and the next daemon takes them over.
"""

import asyncio
import fcntl
import logging
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import click
import uvloop

from node.access.door import Door
from node.api.app import Engine, build, serve
from node.api.system import Facts
from node.build.service import Builds
from node.containers import apparmor, logdrivers
from node.containers.commit import Committer
from node.containers.filework import ContainerFiles
from node.containers.hostlimits import HostLimits
from node.containers.idsource import open_identities
from node.containers.initprogram import find_init
from node.containers.launcher import Launcher
from node.containers.model import LogSpec
from node.containers.monitor import Monitor
from node.containers.news import News
from node.containers.opening import CgroupFreezer, Neighbours, Site, open_containers
from node.containers.runtimes import Runtimes
from node.errors import HomeBusy, MissingPrivilege
from node.events import EventBus
from node.files.workers import Workers
from node.images.archive.service import Archives
from node.images.keeping import Keeper, Policy, disk_use
from node.images.mirrors import joined, parse_mirror_flag, read_rules
from node.images.news import ImageNews
from node.images.opening import open_images
from node.images.shared import open_shared
from node.images.store import ImageSettings
from node.journal import open_journal
from node.linux import capabilities, cgroups
from node.network import definition
from node.network.opening import open_networks
from node.rootless import entry
from node.rootless.entry import Rootless
from node.secrets.store import Secrets
from node.settings import CGROUP_DRIVERS, ISOLATIONS, SNAPSHOTTERS, UPLINKS, USERNS_MODES, Settings
from node.snapshots.choose import open_snapshotter
from node.snapshots.overlay import OverlaySnapshotter
from node.state.containers import ContainerRows
from node.state.database import open_state
from node.state.images import ImageUseRows
from node.state.secrets import SecretRows
from node.state.settings import SettingRows
from node.userns.tenants import Tenants
from node.volumes.opening import open_volumes
from ocispec.errors import SeawallError
from storage.blobs.disk import DiskBlobs
from storage.gc.leases import Leases
from storage.gc.sweep import Collector
from storage.metadata.engine import open_database
from storage.remote.search import RegistrySearch
from storage.remote.transport import RemoteSettings
from storage.repository.store import ContentStore

NEEDED = ("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD", "CAP_CHOWN",
          "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETPCAP")  # fmt: skip
"""Without one of these no container can be made as asked."""


@asynccontextmanager
async def open_node(settings: Settings, rootless: Rootless | None = None) -> AsyncIterator[Engine]:
    """Everything the API speaks to, with what an earlier daemon left running taken over."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        groups = cgroups.detect(driver=settings.cgroup_driver)
        # The launcher first: it is forked while the process is small and single-threaded.
        launcher = await enter(Launcher(groups.driver))
        await asyncio.to_thread(apparmor.load_default)
        state = await enter(open_state(settings.state_database))
        content_database = await enter(open_database(settings.content_database))
        blobs = DiskBlobs(settings.content)
        await blobs.prepare()
        content = ContentStore(content_database, blobs)
        snapshots = await open_snapshotter(settings.snapshots, settings.snapshotter)
        image_settings = _image_settings(settings, rootless)
        collector = Collector(content_database, blobs, keep_untagged=True)
        folder = settings.sources.shared
        shared = await open_shared(folder, settings.home) if folder else None
        images = await enter(
            open_images(content, blobs, Leases(content_database), collector, snapshots, state, image_settings,
                        shared)
        )
        journal = await enter(open_journal(settings.run / "events.log"))
        events = EventBus(journal.append)
        volumes = await enter(open_volumes(settings.volumes, state, events))
        networks = await enter(open_networks(settings, state, events, rootless.host_sockets.bind if rootless else None))
        held_secrets = Secrets(SecretRows(state), settings.secrets_key or settings.home / "secrets.key", events)
        tenants = Tenants()
        identities = await enter(open_identities(settings.users, settings.home, launcher, tenants, volumes))
        near = Neighbours(
            ContainerRows(state),
            events,
            images,
            snapshots,
            networks,
            volumes,
            held_secrets,
            launcher,
            Monitor.connect,
            CgroupFreezer(groups),
            identities,
        )
        limits = HostLimits.of_this_host(groups.features())
        site = Site(settings.cgroup_parent + (".slice" if groups.driver == "systemd" else ""), settings.log,
                    groups.driver, limits, find_init(settings.init_path),
                    restart_unhealthy=settings.restart_unhealthy,
                    create_bind_sources=settings.create_bind_sources, isolation=settings.isolation,
                    runtimes=Runtimes.of(settings.runtimes))  # fmt: skip
        containers, execs = await enter(open_containers(settings.containers, site, near))
        workers = await enter(Workers(settings.run, image_settings.unpack))
        files = ContainerFiles(containers.live, snapshots, workers, News(events))
        policy = Policy(settings.collect.unused, settings.collect.disk, settings.collect.keep)
        keeper = Keeper(images, ImageUseRows(state), containers.in_use, ImageNews(events), policy,
                        disk_use(settings.home), shared)
        await enter(_beside(keeper.run()))
        archives = Archives(content, images, workers, settings.run / "archives", image_settings.platform)
        await archives.clear()
        commits = Committer(containers.live, containers, files, images, archives, News(events))
        builds = Builds(settings.home / "build", content, images, containers, snapshots, workers,
                        image_settings.platform)  # fmt: skip
        await builds.open()
        facts = Facts(
            id=await _node_id(SettingRows(state)),
            storage_driver="overlay2" if isinstance(snapshots, OverlaySnapshotter) else "vfs",
            cgroup_version=str(groups.version),
            root=settings.home,
            cgroup_driver=groups.driver,
            insecure_registries=(*settings.insecure_registries, *image_settings.registries.insecure()),
            limits=groups.features(),
            mirrors={rule.host: [str(mirror) for mirror in rule.mirrors] for rule in image_settings.registries.rules},
            log_driver=settings.log.driver,
            log_drivers=sorted(logdrivers.OPTIONS),
            network_drivers=(*definition.DRIVERS, "host", "null"),
            init=site.init,
            isolation=settings.isolation.baseline,
            runtimes=site.runtimes.described(),
            default_runtime=site.runtimes.default,
            rootless=rootless is not None,
            own_users=identities.by_default(settings.isolation.baseline)
            and not site.runtimes.foreign(site.runtimes.default),
        )
        search = RegistrySearch(image_settings.insecure, image_settings.remote)
        yield Engine(
            containers, execs, images, networks, volumes, search, events, facts, files, archives, commits, builds,
            held_secrets, settings.search_registry, journal, tenants,
        )


def _image_settings(settings: Settings, rootless: Rootless | None) -> ImageSettings:
    rules = [parse_mirror_flag(text) for text in settings.sources.mirrors]
    if settings.sources.file:
        rules += read_rules(settings.sources.file).rules
    # Registries are asked from the host's network, also those on its loopback.
    remote = RemoteSettings(sockets=rootless.host_sockets.new) if rootless else RemoteSettings()
    return ImageSettings(insecure_registries=settings.insecure_registries, registries=joined(rules), remote=remote)


@asynccontextmanager
async def _beside(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run it while the block runs."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _node_id(rows: SettingRows) -> str:
    """Made once, the same ever after: what `docker info` shows as the engine's id."""
    found = await rows.get("node-id")
    if found is None:
        found = str(uuid.uuid4())
        await rows.put("node-id", found)
    return found


async def run(settings: Settings, rootless: Rootless | None = None) -> None:
    """Until SIGTERM or SIGINT. At SIGHUP the rules of access and the TLS files are read again."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    door = Door(settings.access)
    loop.add_signal_handler(signal.SIGHUP, door.reload)
    async with (
        open_node(settings, rootless) as engine,
        serve(build(engine, door.access), settings.socket, gid=door.gid, remote=door.remote,
              bind=rootless.host_sockets.bind if rootless else None),
    ):
        click.echo(f"seawalld listens on {settings.socket}")
        if settings.access.remote:
            click.echo(f"seawalld listens on tcp://{settings.access.remote.host}:{settings.access.remote.port} (TLS)")
        sys.stdout.flush()
        with entry.watched(rootless, stop.set):
            await stop.wait()


def make_folders(settings: Settings) -> None:
    """Raises MissingPrivilege."""
    for folder in (settings.home, settings.content, settings.snapshots, settings.containers, settings.volumes,
                   settings.run):  # fmt: skip
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except PermissionError as error:
            raise MissingPrivilege(f"the folder {folder} cannot be made: give another --home") from error


@contextmanager
def held(settings: Settings) -> Iterator[None]:
    """The home, made if need be and ours alone while the block runs. Raises HomeBusy, MissingPrivilege.

    The lock is the kernel's: it goes with the process, however that ends, and no stale file can hold anybody up.
    """
    make_folders(settings)
    descriptor = os.open(settings.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise HomeBusy(
                f"another seawalld (process {owner}) uses {settings.home}: give this one another --home"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def check_privileges() -> None:
    """Raises MissingPrivilege, which names what is missing."""
    if os.geteuid() != 0:
        raise MissingPrivilege(
            "seawalld must run as root: it makes namespaces, mounts, cgroups and a network bridge. Try: sudo seawalld"
        )
    held_now = capabilities.current()["effective"]
    missing = [name for name in NEEDED if name not in held_now]
    if missing:
        raise MissingPrivilege(f"seawalld lacks the capabilities {', '.join(missing)}: run it outside a container, "
                               "or give the container these")  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--home", metavar="DIR", help="Where all state lives. [default: $SEAWALL_HOME/node]")
@click.option("--socket", metavar="PATH", help="The API's unix socket. [default: $SEAWALL_HOME/node.sock]")
@click.option("--bridge", metavar="NAME", help="The bridge's interface name. [default: made from the home]")
@click.option("--bridge-subnet", metavar="CIDR", help="IPv4 subnet of the bridge. [default: the first free /16]")
@click.option("--publish-address", "publish_addresses", metavar="ADDRESS", multiple=True,
              help="Of the host, for ports published without one; may be repeated. [default: 0.0.0.0, ::]")  # fmt: skip
@click.option("--publish-past-firewall", is_flag=True, default=None,
              help="Open published ports whatever the host's own firewall says, as other engines do.")
@click.option("--insecure-registry", "insecure_registries", metavar="HOST[:PORT]", multiple=True,
              help="Registry spoken to over HTTP, or HTTPS that cannot be verified; may be repeated.")  # fmt: skip
@click.option("--init-path", metavar="FILE", help="Program of --init. [default: docker-init or the like, if found]")
@click.option("--snapshotter", type=click.Choice(SNAPSHOTTERS), help="How layers are stacked. [default: auto]")
@click.option("--search-registry", metavar="HOST[:PORT]", help="Registry asked by a search that names none.")
@click.option("--registry-mirror", "registry_mirrors", metavar="[HOST=]URL", multiple=True,
              help="Asked before the registry HOST (docker.io when not said); may be repeated.")  # fmt: skip
@click.option("--registries", metavar="FILE", help="Mirrors and insecure registries (docs/images.md).")
@click.option("--shared-layers", metavar="DIR", help="Share unpacked layers with other nodes of this machine.")
@click.option("--image-gc-unused", metavar="TIME", help="Remove images that nothing used for so long, like 30d.")
@click.option("--image-gc-disk", metavar="PERCENT", help="From so full a disk on, remove those unused for longest.")
@click.option("--image-gc-keep", metavar="PATTERN", multiple=True, help="Names that stay; may be repeated.")
@click.option("--group", metavar="NAME", help="Group that may open the socket. [default: the daemon's]")
@click.option("--access-rules", metavar="FILE", help="Who may do what (docs/access.md). [default: who connects, all]")
@click.option("--listen", metavar="tcp://HOST:PORT", help="Answer other machines too; needs the three files below.")
@click.option("--tlscacert", metavar="FILE", help="Authority that client certificates must come from (PEM).")
@click.option("--tlscert", metavar="FILE", help="Certificate of this node (PEM).")
@click.option("--tlskey", metavar="FILE", help="Its key (PEM).")
@click.option("--log-driver", metavar="NAME", help="Of containers that name none. [default: json-file]")
@click.option("--log-opt", "log_opts", metavar="NAME=VALUE", multiple=True,
              help="An option of that driver; may be repeated.")  # fmt: skip
@click.option("--restart-unhealthy", is_flag=True, default=None,
              help="Start containers again that become unhealthy, unless their label seawall.restart-unhealthy=false.")
@click.option("--no-create-bind-sources", is_flag=True, default=None,
              help="A missing source of -v is an error, not a new folder of root's.")  # fmt: skip
@click.option("--userns", type=click.Choice(USERNS_MODES),
              help="Ids of containers: ranges of their own or the host's. [default: private]")  # fmt: skip
@click.option("--userns-ids", metavar="FIRST:COUNT",
              help="Where ranges are taken from. [default: seawall's in /etc/subuid, or high ids]")  # fmt: skip
@click.option("--isolation", type=click.Choice(ISOLATIONS),
              help="Whose defaults hold for containers (docs/isolation.md). [default: seawall]")  # fmt: skip
@click.option("--default-pids-limit", metavar="NUMBER",
              help="Processes of a container that asks for no limit; 0: no limit. [default: 4096]")  # fmt: skip
@click.option("--cgroup-driver", type=click.Choice(CGROUP_DRIVERS),
              help="Who makes cgroups: the node (cgroupfs) or systemd. [default: auto]")  # fmt: skip
@click.option("--runtime", metavar="NAME|PATH",
              help="OCI runtime of containers that name none. [default: our own]")  # fmt: skip
@click.option("--add-runtime", "runtimes", metavar="NAME=PATH", multiple=True,
              help="Another OCI runtime that containers may name; may be repeated.")  # fmt: skip
@click.option("--secrets-key", metavar="FILE", help="Key of secrets at rest. [default: secrets.key in the home]")
@click.option("--rootless-network", type=click.Choice(UPLINKS),
              help="What carries packets of an ordinary user's node. [default: auto]")  # fmt: skip
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning",
              show_default=True)  # fmt: skip
@click.version_option(package_name="seawall")
def main(log_level: str, **flags: str | bool | tuple[str, ...] | None) -> None:
    """The Seawall node: runs containers and answers the Docker Engine API on a unix socket."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings.from_environment(entry.defaults(os.environ), **flags)
        logdrivers.check(LogSpec(settings.log.driver, settings.log.options))
        make_folders(settings)
        entry.enter(settings.run, settings.rootless.network, lambda text: click.echo(f"seawalld: {text}", err=True))
        check_privileges()
        rootless = entry.entered(os.environ, settings.run)
        # Others must be able to read what a container's users read through a bind: its /etc/hosts, a new volume, a
        # bound folder made for it. What is only ours lies in folders of mode 0700 (`held`).
        os.umask(0o022)
        with held(settings):
            uvloop.run(run(settings, rootless))
    except SeawallError as error:
        click.echo(f"seawalld: {error.message}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
