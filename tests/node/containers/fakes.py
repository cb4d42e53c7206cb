"""Neighbours without a kernel. A process here is a number that ends when the test says so."""

import asyncio
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

from node.containers import clock
from node.containers.monitor import ExitStatus, HeldExec, MonitorGone, StartFailed
from node.images.errors import ImageNotFound
from node.linux.cgroups.stats import Stats
from node.network.model import Endpoint, Joining, Network, NetworkSpec, NoSuchNetwork, PortBinding
from node.snapshots.mounts import Difference, RootMount
from node.userns.ranges import IdRange
from ocispec.digest import Digest
from ocispec.errors import FailedPrecondition, NotFound
from ocispec.image import ImageConfig

CHAIN = (Digest.of(b"layer"),)


class FakeMonitor:
    def __init__(self, machine: "FakeLauncher", request) -> None:
        self.machine = machine
        self.request = request
        self.pid = 0
        self.started = False
        self.closed = False
        self.signals: list[int] = []
        self.ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self.attached: list[socket.socket] = []
        self.execs: dict[str, asyncio.Future[ExitStatus]] = {}
        self.about: dict[str, str] = {}
        self.ignores: set[int] = set()

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self.machine.start_failure is not None:
            raise self.machine.start_failure
        self.pid = self.machine.next_pid()
        self.started = True

    async def signal(self, number: int) -> None:
        if self.ended.done():
            raise MonitorGone("the monitor is gone")
        self.signals.append(number)
        if number in (9, 15) and number not in self.ignores:
            self.end(128 + number)

    async def kill_all(self) -> None:
        self.end(137)

    def end(self, code: int, *, oom: bool = False) -> None:
        if not self.ended.done():
            self.ended.set_result(ExitStatus(code, oom, clock.now(), ""))

    def vanish(self) -> None:
        self.ended.set_exception(MonitorGone("the monitor is gone"))

    async def wait(self) -> ExitStatus:
        return await asyncio.shield(self.ended)

    async def close(self) -> None:
        self.closed = True

    async def attach(self, *, stdin, stdout, stderr, exec_id=None) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.attached.append(theirs)
        return ours

    async def resize(self, height, width, exec_id=None) -> None:
        self.size = (height, width)

    async def exec(self, exec_id, process, *, tty, stdin, about="") -> int:
        self.about[exec_id] = about
        if self.machine.start_failure is not None:
            raise self.machine.start_failure
        self.execs[exec_id] = asyncio.get_running_loop().create_future()
        return 0

    async def exec_start(self, exec_id) -> int:
        return self.machine.next_pid()

    async def exec_wait(self, exec_id) -> ExitStatus:
        return await asyncio.shield(self.execs[exec_id])

    async def exec_signal(self, exec_id, number) -> None:
        if self.execs[exec_id].done():
            raise MonitorGone("the process has ended")
        if number == 9:
            self.end_exec(exec_id, 137)

    async def held_execs(self):
        return [
            HeldExec(name, self.about[name], 7000, ended.result().code if ended.done() else None)
            for name, ended in self.execs.items()
        ]

    def end_exec(self, exec_id, code) -> None:
        self.execs[exec_id].set_result(ExitStatus(code, False, clock.now(), ""))

    def hang_up(self) -> None:
        for theirs in self.attached:
            theirs.close()


class FakeLauncher:
    """Keeps monitors by folder, as the real ones are found again by their sockets."""

    def __init__(self) -> None:
        self.monitors: list[FakeMonitor] = []
        self.running: dict[Path, FakeMonitor] = {}
        self.failure: Exception | None = None
        self.start_failure: StartFailed | None = None
        self.delay = 0.0
        self._pid = 5000

    def next_pid(self) -> int:
        self._pid += 1
        return self._pid

    async def create(self, request) -> FakeMonitor:
        await asyncio.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        monitor = FakeMonitor(self, request)
        self.monitors.append(monitor)
        self.running[request.state_dir] = monitor
        return monitor

    async def connect(self, state_dir: Path) -> FakeMonitor:
        monitor = self.running.get(state_dir)
        if monitor is None or monitor.ended.done():
            raise MonitorGone("the monitor is gone")
        return monitor

    @property
    def last(self) -> FakeMonitor:
        return self.monitors[-1]


@dataclass(frozen=True, slots=True)
class FakeImage:
    id: Digest
    config: ImageConfig

    @property
    def platform(self):
        return self.config.platform


class FakeImages:
    def __init__(self) -> None:
        self.config = {"Cmd": ["sh"], "Env": ["PATH=/bin"]}

    async def get(self, name, platform=None):
        if name == "missing":
            raise ImageNotFound("missing:latest")
        raw = b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}'
        return FakeImage(Digest.of(name.encode()), replace(ImageConfig.parse(raw), config=self.config))

    async def ensure_unpacked(self, image):
        return CHAIN


class FakeSnapshots:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.held: set[str] = set()
        self.failure: Exception | None = None
        self.mount_failure: Exception | None = None

    async def create(self, container_id, chain) -> None:
        if self.failure is not None:
            raise self.failure
        self.held.add(container_id)

    async def mount(self, container_id):
        if self.mount_failure is not None:
            raise self.mount_failure
        return RootMount("bind", str(self.root), ("rbind",))

    async def view(self, container_id):
        return RootMount("bind", str(self.root), ("ro", "rbind"))

    async def difference(self, container_id):
        return Difference(self.root, None, whole=True)

    async def remove(self, container_id) -> None:
        self.held.discard(container_id)

    async def usage(self, container_id) -> int:
        return 42


class PortTaken(FailedPrecondition):
    pass


class FakeNetworks:
    def __init__(self) -> None:
        self.republished: list[tuple] = []
        self.publish_failure: Exception | None = None
        self.attached: dict[str, str] = {}
        self.readopted: list[str] = []
        self.ports: dict[int, str] = {}
        self.more: dict[str, list[Endpoint]] = {}
        self.names: dict[str, str] = {}
        self.closed = 0
        self.joined: list[Joining] = []

    async def attach(self, joining):
        self.joined.append(joining)
        container_id, published = joining.container_id, joining.published
        await asyncio.sleep(0)
        assert container_id not in self.attached, "attached twice without a release"
        taken = [binding.host_port for binding in published if binding.host_port in self.ports]
        if taken:
            raise PortTaken(f"Bind for 0.0.0.0:{taken[0]} failed: port is already allocated")
        self.attached[container_id] = mode = "bridge" if joining.mode == "default" else joining.mode
        resolved = tuple(
            PortBinding(b.proto, b.container_port, b.host_ip or "0.0.0.0", b.host_port or 49153) for b in published
        )
        self.ports |= {binding.host_port: container_id for binding in resolved}
        end = Endpoint("172.17.0.2", 16, "172.17.0.1", "02:42:ac:11:00:02", "n" * 64, "e" * 64, "bridge", "bridge")
        return FakeSandbox("/proc/1/fd/3", (), (end,) if mode == "bridge" else (), resolved, self)

    async def release(self, container_id) -> None:
        self.attached.pop(container_id, None)
        self.ports = {port: owner for port, owner in self.ports.items() if owner != container_id}

    async def republish(self, container_id, published, pid):
        if self.publish_failure is not None:
            raise self.publish_failure
        self.republished.append((container_id, tuple(published), pid))
        return [replace(port, host_ip=port.host_ip or "0.0.0.0", host_port=port.host_port or 49153)
                for port in published]

    async def readopt(self, joining, endpoints, published, pid) -> None:
        self.readopted.append(joining.container_id)
        self.attached[joining.container_id] = "bridge" if endpoints else "none"

    def inspect(self, name_or_id):
        names = {"bridge": "n" * 64, "front": "f" * 64, "host": "h" * 64, "none": "0" * 64}
        for name, network_id in names.items():
            if name_or_id in (name, network_id):
                return Network(network_id, "", NetworkSpec(name, {"host": "host", "none": "null"}.get(name, "bridge")))
        raise NoSuchNetwork(name_or_id)

    def check(self, network_id, asked) -> None:
        pass

    async def connect(self, container_id, asked, pid):
        network = self.inspect(asked.network)
        self.more.setdefault(container_id, []).append(
            Endpoint("10.1.0.2", 16, "10.1.0.1", "02:42:0a:01:00:02", network.id, "e" * 64, network.name, "bridge")
        )
        return self.more[container_id]

    async def disconnect(self, container_id, network_id, pid):
        self.more[container_id] = [end for end in self.more.get(container_id, []) if end.network_id != network_id]
        return self.more[container_id]

    async def renamed(self, container_id, old, new, pid) -> None:
        self.names[container_id] = new

    async def settle(self) -> None:
        self.settled = True


@dataclass(frozen=True)
class FakeSandbox:
    netns_path: str | None
    fds: tuple[int, ...]
    endpoints: tuple[Endpoint, ...]
    ports: tuple[PortBinding, ...]
    networks: FakeNetworks

    @property
    def endpoint(self) -> Endpoint | None:
        return next(iter(self.endpoints), None)

    async def close(self) -> None:
        self.networks.closed += 1


@dataclass(frozen=True)
class FakeHeld:
    ids: IdRange
    lock: int
    spaces: "FakeSpaces"

    def close(self) -> None:
        self.spaces.open.remove(self.ids.first)


@dataclass(frozen=True)
class FakeSpace:
    held: FakeHeld
    user: int = 70
    network: int = 71

    @property
    def ids(self) -> IdRange:
        return self.held.ids

    def close(self) -> None:
        self.held.close()


class FakeSpaces:
    """Ranges without a kernel (node.userns.spaces.Spaces)."""

    def __init__(self) -> None:
        self.open: list[int] = []
        self._next = 100_000

    async def take(self, size=65536):
        ids, self._next = IdRange(self._next, size), self._next + size
        return FakeSpace(self._hold(ids))

    def share(self, ids):
        return self._hold(ids)

    async def probe(self) -> int:
        return -1

    def _hold(self, ids):
        self.open.append(ids.first)
        return FakeHeld(ids, 72, self)


@dataclass
class FakeVolume:
    name: str


@dataclass
class FakeVolumes:
    root: Path
    held: dict[str, FakeVolume] = field(default_factory=dict)
    filled: list[str] = field(default_factory=list)

    claims: list[str] = field(default_factory=list)
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)
    holders: set[tuple[str, str]] = field(default_factory=set)

    async def create(self, name, labels, driver_opts, *, driver="", claim=False):
        chosen = name or f"{len(self.held):064x}"
        if claim:
            self.claim(chosen)
        return self.held.setdefault(chosen, FakeVolume(chosen))

    def claim(self, name) -> None:
        self.claims.append(name)

    def unclaim(self, name) -> None:
        self.claims.remove(name)

    def path(self, name):
        return self.root / name

    async def origin(self, name):
        return self.origins.get(name, ("", ""))

    async def remove(self, name, *, force=False, users=lambda _name: ()) -> None:
        if name in self.claims:
            raise FailedPrecondition(f"remove {name}: volume is in use")
        self.held.pop(name, None)

    async def fill(self, root, places) -> None:
        self.filled += [place.target for place in places]

    async def acquire(self, name, holder) -> None:
        self.holders.add((name, holder))

    async def hold(self, name, holder) -> None:
        self.holders.add((name, holder))

    async def release(self, name, holder) -> None:
        self.holders.discard((name, holder))

    async def settle(self) -> None:
        self.settled = True


@dataclass(frozen=True)
class FakeSecret:
    id: str
    name: str


class FakeSecrets:
    def __init__(self) -> None:
        self.held = {("secret", "password"): b"hunter2", ("config", "motd"): b"hello"}

    async def find(self, kind, name):
        await self.read(kind, name)
        return FakeSecret(name, name)

    async def read(self, kind, name):
        if (kind, name) not in self.held:
            raise NotFound(f"{kind} {name} not found")
        return self.held[kind, name]


class FakeFreezer:
    """Cgroups without a kernel (node.containers.parts.Groups)."""

    def __init__(self) -> None:
        self.frozen: set[str] = set()
        self.cleared: list[str] = []
        self.limits: dict[str, list[dict]] = {}
        self.place = lambda container_id: container_id

    def locate(self, path_of) -> None:
        self.place = path_of

    async def stats(self, container_id):
        return Stats()

    async def update(self, container_id, limits):
        self.limits.setdefault(container_id, []).append(dict(limits))
        return []

    async def freeze(self, container_id) -> None:
        self.frozen.add(container_id)

    async def thaw(self, container_id) -> None:
        self.frozen.discard(container_id)

    async def pids(self, container_id):
        return []

    async def clear(self, container_id) -> None:
        self.frozen.discard(container_id)
        self.cleared.append(container_id)
