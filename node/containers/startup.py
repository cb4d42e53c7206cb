"""Bringing one container up: network, root, config.json, monitor, attached clients, process. All of it or nothing.

The caller holds the container's lock.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from node.containers import clock, files, links, logdrivers
from node.containers.bundle.config import Joins, Surroundings, config
from node.containers.bundle.ownids import OwnIds
from node.containers.bundle.rootfiles import LayeredRoot
from node.containers.connecting import connected
from node.containers.errors import CannotInvoke, CannotStart, NotRunning, WrongState
from node.containers.groupnames import group_path
from node.containers.hostlimits import HostLimits
from node.containers.identity import Given, Identities
from node.containers.launcher import LaunchRequest
from node.containers.live import Live
from node.containers.model import Container, Place, Port, PublishedPort, Status
from node.containers.monitor import StartFailed
from node.containers.mounting import Mounting
from node.containers.parts import Connects, Launches, MonitorHandle
from node.containers.privatemounts import PrivateMounts, in_memory
from node.containers.runtimes import Runtimes
from node.network.model import Endpoint, EndpointSpec, Joining, PortBinding, Sandbox
from node.settings import IsolationSettings, LogSettings
from node.snapshots.mounts import RootMount
from node.snapshots.store import RootSnapshots
from ocispec.errors import SeawallError

T = TypeVar("T")

JOIN = "container:"
NOT_FOUND, NOT_EXECUTABLE, NOT_STARTED = 127, 126, 128
EXIT_CODES = {"not-found": NOT_FOUND, "permission": NOT_EXECUTABLE, "is-directory": NOT_EXECUTABLE}


@dataclass(frozen=True, slots=True)
class Site:
    """Where this node's containers live and what is theirs by default."""

    cgroup_parent: str
    """A group, or a slice with the systemd driver."""

    log: LogSettings
    cgroup_driver: str = "cgroupfs"
    limits: HostLimits = field(default_factory=HostLimits)
    """What this host can do; by default everything."""

    init: str = ""
    """A static program for `--init`, bound over /sbin/docker-init; empty: there is none."""

    restart_unhealthy: bool = False
    """Containers that become unhealthy are started again unless their label says no."""

    runtimes: Runtimes = field(default_factory=lambda: Runtimes({}))
    create_bind_sources: bool = True
    """`-v` makes a folder of the host that is missing."""

    isolation: IsolationSettings = field(default_factory=IsolationSettings)


class Startup:
    def __init__(
        self,
        site: Site,
        snapshots: RootSnapshots,
        networks: Connects,
        launcher: Launches,
        find: Callable[[str], Live],
        mounting: Mounting,
        private: PrivateMounts,
        identities: Identities,
    ) -> None:
        self._site = site
        self._identities = identities
        self._snapshots = snapshots
        self._networks = networks
        self._launcher = launcher
        self._find = find
        self._mounting = mounting
        self._private = private

    async def bring_up(self, live: Live) -> None:
        """Afterwards the container runs and `live` says so. Raises CannotInvoke, CannotStart or what a part raises;
        then `live` says why, and network, ports, cgroup and monitor are released."""
        try:
            monitor, sandbox = await self._mounted(live)
        except Exception as error:
            failure = _failure(error)
            code = failure.exit_code if isinstance(failure, CannotInvoke) else NOT_STARTED
            live.change(exit_code=code, error=failure.message, pid=0)
            raise failure from error
        live.monitor = monitor
        live.container = replace(
            live.container, network=_place(sandbox), wanted=_named(connected(live.container), sandbox.endpoints)
        )
        live.change(
            status=Status.RUNNING, pid=monitor.pid, exit_code=0, error="", oom_killed=False, started_at=clock.now()
        )
        live.exited.clear()

    async def recognise(self, live: Live) -> None:
        """An earlier daemon started it."""
        await self._identities.recognise(live.id, live.state.pid)

    def ended(self, live: Live) -> None:
        self._identities.ended(live.id)

    async def _mounted(self, live: Live) -> tuple[MonitorHandle, Sandbox]:
        await self._mounting.begin(live.container)
        try:
            return await self._connect(live)
        except BaseException:
            await self._mounting.end(live.container)
            raise

    async def _connect(self, live: Live) -> tuple[MonitorHandle, Sandbox]:
        joins, other = self._shared(live.container)
        joined = [pid for pid in (joins.pid, joins.ipc, other) if pid]
        async with self._identities.given(live.container, joined) as given:
            monitor, sandbox = await self._place(live, joins, other, given)
            self._identities.runs(live.id, given)
        return monitor, sandbox

    async def _place(self, live: Live, joins: Joins, other: int, given: Given) -> tuple[MonitorHandle, Sandbox]:
        container = live.container
        # Both at once; neither is cancelled when the other fails, so that there is one place that gives back.
        attaching, mounting = await asyncio.gather(
            self._networks.attach(self._joining(container, other, given)),
            self._snapshots.mount(container.id),
            return_exceptions=True,
        )
        try:
            sandbox, root = _unless_failed(attaching), _unless_failed(mounting)
            await asyncio.to_thread(self._write, container, sandbox, root, joins, given.own)
            return await self._launch(live, sandbox, root, given), sandbox
        except BaseException:
            await self._networks.release(container.id)
            raise
        finally:
            if not isinstance(attaching, BaseException):
                await attaching.close()

    async def _launch(self, live: Live, sandbox: Sandbox, root: RootMount, given: Given) -> MonitorHandle:
        container, spec = live.container, live.container.spec
        directory = Path(container.directory)
        request = LaunchRequest(
            container_id=container.id,
            bundle=directory,
            rootfs=(root,),
            state_dir=directory,
            log=logdrivers.target(container, self._site.log),
            open_stdin=spec.open_stdin,
            stdin_once=spec.stdin_once,
            fds=(*sandbox.fds, *given.locks),
            images=await self._private.images(container),
            runtime=self._site.runtimes.program(spec.runtime),
        )
        files, contents = await self._private.contents(container)
        if files:
            with in_memory(contents) as held:
                monitor = await self._launcher.create(replace(request, files=files, fds=(*request.fds, held)))
        else:
            monitor = await self._launcher.create(request)
        try:
            await live.fill_places(monitor)
            await monitor.start()
        except BaseException:
            # A monitor whose process did not start has none to wait for; it goes, and its cgroup with it.
            await monitor.kill_all()
            await monitor.close()
            raise
        return monitor

    def _write(
        self, container: Container, sandbox: Sandbox, root: RootMount, joins: Joins, own: OwnIds | None
    ) -> None:
        """The bundle and the files that are bound over /etc."""
        linked = links.resolve(container, self._find)
        files.write(container, sandbox, self._joined(container), links.hosts(linked))
        if linked:
            env = (*links.environment(container, linked), *container.spec.env)
            container = replace(container, spec=replace(container.spec, env=env))
        layers = LayeredRoot.of_mount(root.type, root.source, root.options, root.cwd)
        place = group_path(container, self._site.cgroup_parent, self._site.cgroup_driver)
        around = Surroundings(place, sandbox.netns_path, joins, self._site.init, layers.read, _owner, own)
        (Path(container.directory) / "config.json").write_text(json.dumps(config(container, around)))

    def _joining(self, container: Container, other: int, given: Given) -> Joining:
        sysctls = container.spec.resources.sysctls if given.network is not None else {}
        return Joining(
            container.id,
            container.name,
            container.spec.hostname,
            _mode(container, self._find),
            connected(container),
            tuple(published(container)),
            f"/proc/{other}/ns/net" if other else None,
            files.resolving(container.spec.network),
            given.network,
            {name: value for name, value in sysctls.items() if name.startswith("net.")},
        )

    def _shared(self, container: Container) -> tuple[Joins, int]:
        """The first processes of the containers whose namespaces it joins, and that of the network's (0: none). Raises
        NoSuchContainer, NotRunning, WrongState."""
        asked, net_mode = container.spec.namespaces, container.spec.network.mode
        pid = self._running_pid(asked.pid) if asked.pid.startswith(JOIN) else 0
        ipc = self._ipc_donor(asked.ipc) if asked.ipc.startswith(JOIN) else 0
        net = self._running_pid(net_mode) if net_mode.startswith(JOIN) else 0
        return Joins(pid, ipc), net

    def _ipc_donor(self, mode: str) -> int:
        """Only a container that says so lets others in, as in Docker."""
        other = self._find(mode.removeprefix(JOIN))
        if other.container.spec.namespaces.ipc != "shareable":
            raise WrongState(
                f"cannot join IPC of container {other.id}: non-shareable IPC "
                "(hint: use IpcMode:shareable for the donor container)"
            )
        return self._running_pid(mode)

    def _joined(self, container: Container) -> Path | None:
        mode = container.spec.network.mode
        return Path(self._find(mode.removeprefix(JOIN)).container.directory) if mode.startswith(JOIN) else None

    def _running_pid(self, mode: str) -> int:
        other = self._find(mode.removeprefix(JOIN))
        if not other.state.running or not other.state.pid:
            raise NotRunning(other.id)
        return other.state.pid


def _owner(path: str) -> tuple[int, int]:
    """Raises CannotStart."""
    try:
        about = Path(path).stat()
    except OSError as error:
        raise CannotStart(f"the owner of {path}, for an id-mapped mount: {error.strerror}") from error
    return about.st_uid, about.st_gid


def _unless_failed(result: T | BaseException) -> T:
    if isinstance(result, BaseException):
        raise result
    return result


def _failure(error: Exception) -> SeawallError:
    if isinstance(error, StartFailed):
        message = f"failed to create task for container: unable to start container process: {error.message}"
        code = EXIT_CODES.get(error.kind)
        return CannotStart(message) if code is None else CannotInvoke(message, code)
    return error if isinstance(error, SeawallError) else CannotStart(f"failed to start container: {error}")


def _mode(container: Container, find: Callable[[str], Live]) -> str:
    mode = container.spec.network.mode
    if mode.startswith(JOIN):
        return JOIN + find(mode.removeprefix(JOIN)).id
    return "bridge" if mode == "default" else mode


def published(container: Container) -> list[PortBinding]:
    network = container.spec.network
    wanted = [PortBinding(b.port.protocol, b.port.number, b.host_ip, b.host_port, b.host_port_end)
              for b in network.bindings]
    if network.publish_all:
        bound = {binding.port for binding in network.bindings}
        wanted += [PortBinding(p.protocol, p.number, "", 0) for p in container.spec.exposed_ports if p not in bound]
    return wanted


def _named(asked: Sequence[EndpointSpec], ends: Sequence[Endpoint]) -> tuple[EndpointSpec, ...]:
    """With the ids of the networks that were meant."""
    ids = {end.network_name: end.network_id for end in ends} | {end.network_id: end.network_id for end in ends}
    return tuple(replace(one, network_id=ids.get(one.network, one.network_id)) for one in asked)


def _place(sandbox: Sandbox) -> Place:
    return Place(sandbox.endpoints, resolved(sandbox.ports))


def resolved(ports: Iterable[PortBinding]) -> tuple[PublishedPort, ...]:
    """As the network answers for them."""
    return tuple(PublishedPort(Port(port.container_port, port.proto), port.host_ip, port.host_port) for port in ports)
