"""A node without a kernel: containers are coroutines that speak through a socket pair, images are values.

Programs: `echo WORDS`, `cat` (until end of input), `err TEXT` (to stderr), `exit N`, `sleep`.
"""

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from node.build.results import Kept
from node.build.values import Request
from node.containers.changing import Change
from node.containers.commit import CommitSpec
from node.containers.errors import CannotInvoke, NameInUse, NoSuchContainer, NoSuchExec, NotRunning
from node.containers.filters import NOTHING, Filters
from node.containers.model import (
    Container,
    ContainerState,
    Created,
    CreateSpec,
    Exec,
    ExecSpec,
    LogQuery,
    Processes,
    Status,
)
from node.containers.pruning import PruneFilter
from node.containers.usage import Look, Machine
from node.events import Event, EventBus
from node.files.workers import PathStat
from node.images.archive.load import Loaded
from node.images.archive.making import Recipe
from node.images.distribution import Distributed
from node.images.errors import ImageNotFound, NothingToPush, PlatformMissing, PullFailed
from node.images.image import HistoryEntry, Image, ImageUsage, Part, Pruned, PushResult, Removal
from node.images.progress import Progress
from node.linux.cgroups.stats import Cpu as CpuUse
from node.linux.cgroups.stats import Stats
from node.network import definition
from node.network.model import (
    EndpointSpec,
    Network,
    NetworkExists,
    NetworkForbidden,
    NetworkSpec,
    NoSuchNetwork,
    Pool,
)
from node.state.secrets import SecretRow, SecretRowExists
from ocispec import manifest as manifests
from ocispec.descriptor import Descriptor, Platform
from ocispec.digest import Digest
from ocispec.errors import FailedPrecondition, NotFound, SeawallError
from ocispec.image import ImageConfig
from ocispec.reference import Reference
from storage.remote.auth import Credentials
from storage.remote.errors import RemoteUnauthorized, RemoteUnavailable
from storage.remote.search import Found

BORN = "2026-11-24T08:00:00.000000001Z"


@dataclass(frozen=True)
class WaitResult:
    status_code: int
    error: str = ""


def frame(stream: int, data: bytes, *, tty: bool) -> bytes:
    return data if tty else bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


@dataclass
class Place:
    tty: bool
    opened: "asyncio.Future[socket.socket | None]"
    cancelled: bool = False

    async def open(self) -> socket.socket | None:
        return await asyncio.shield(self.opened)

    def cancel(self) -> None:
        self.cancelled = True
        self.opened.cancel()


@dataclass
class Running:
    container: Container
    places: list[Place] = field(default_factory=list)
    ends: list[socket.socket] = field(default_factory=list)
    output: list[bytes] = field(default_factory=list)
    waiters: "list[tuple[str, asyncio.Future[WaitResult]]]" = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None
    size: tuple[int, int] = (0, 0)
    signals: list[str] = field(default_factory=list)


async def program(words: Sequence[str], end: socket.socket | None, out: list[bytes], *, tty: bool) -> int:
    loop = asyncio.get_running_loop()

    async def say(stream: int, data: bytes) -> None:
        out.append(frame(stream, data, tty=tty))
        if end is not None:
            await loop.sock_sendall(end, out[-1])

    match words:
        case ["echo", *rest]:
            await say(1, " ".join(rest).encode() + b"\n")
        case ["err", text]:
            await say(2, text.encode() + b"\n")
        case ["cat"]:
            while end is not None and (data := await loop.sock_recv(end, 65536)):
                await say(1, data)
            await say(1, b"<eof>")
        case ["exit", code]:
            return int(code)
        case ["sleep", *_]:
            await asyncio.Event().wait()
        case ["flood", count]:
            for _ in range(int(count)):
                await say(1, b"x" * 65536)
    return 0


class FakeContainers:
    def __init__(self, bus: EventBus) -> None:
        self.bus = bus
        self.all: dict[str, Running] = {}
        self.specs: list[CreateSpec] = []
        self.changes: list[Change] = []
        self.looks = 0
        self.left: list[str] = []
        self.connected: list[tuple[str, EndpointSpec]] = []
        self.disconnected: list[tuple[str, str, bool]] = []

    def find(self, name: str) -> Running:
        for held in self.all.values():
            if held.container.name == name or held.container.id.startswith(name):
                return held
        raise NoSuchContainer(name)

    async def create(self, spec: CreateSpec) -> Created:
        self.specs.append(spec)
        if spec.image == "missing":
            raise ImageNotFound("missing:latest")
        name = spec.name or f"made_{len(self.all)}"
        for held in self.all.values():
            if held.container.name == name:
                raise NameInUse(name, held.container.id)
        container_id = secrets.token_hex(32)
        words = spec.cmd or ("sleep",)
        container = Container(
            container_id, name, BORN, spec.image, str(image().id), spec, words[0], words[1:], directory="/nowhere"
        )
        self.all[container_id] = Running(container)
        return Created(container_id, ("a warning",) if spec.resources.memory else ())

    async def get(self, name: str) -> Container:
        return self.find(name).container

    async def list(
        self, *, all: bool = False, limit: int = 0, filters: Filters = NOTHING  # noqa: A002
    ) -> Sequence[Container]:
        found = [held.container for held in reversed(self.all.values())]
        return [c for c in found if (all or c.state.running) and filters.matches(c)][: limit or None]

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        held = self.find(name)
        if held.task and not held.task.done():
            held.task.cancel()
            await asyncio.gather(held.task, return_exceptions=True)
        del self.all[held.container.id]
        for place in held.places:
            place.opened.set_result(None)
        self._settle(held, "removed")

    async def connect(self, name: str, asked: EndpointSpec) -> None:
        self.find(name)
        self.connected.append((name, asked))

    async def disconnect(self, name: str, network: str, *, force: bool = False) -> None:
        self.find(name)
        self.disconnected.append((name, network, force))

    async def rename(self, name: str, new: str) -> None:
        held = self.find(name)
        held.container = replace(held.container, name=new)

    async def kept(self, name: str) -> int:
        return 1000

    async def size(self, name: str) -> int:
        return 4096

    async def start(self, name: str) -> bool:
        held = self.find(name)
        if held.container.state.running:
            return False
        if held.container.path == "no-such-program":
            for place in held.places:
                place.opened.set_result(None)
            raise CannotInvoke('exec: "no-such-program": executable file not found in $PATH', 127)
        end: socket.socket | None = None
        for place in held.places:
            if not place.cancelled:
                end, theirs = socket.socketpair()
                end.setblocking(False)
                theirs.setblocking(False)
                place.opened.set_result(theirs)
        held.places.clear()
        self._state(held, status=Status.RUNNING, pid=4242, started_at=BORN)
        held.task = asyncio.ensure_future(self._run(held, end))
        self.bus.publish(Event("container", "start", held.container.id, {"name": held.container.name}))
        return True

    async def _run(self, held: Running, end: socket.socket | None) -> None:
        container, code = held.container, 137
        try:
            code = await program((container.path, *container.args), end, held.output, tty=container.spec.tty)
        except OSError:
            code = 141
        finally:
            self._state(held, status=Status.EXITED, pid=0, exit_code=code, finished_at=BORN)
            if end is not None:
                end.close()
            self._settle(held, "not-running", "next-exit")
            if container.spec.auto_remove and self.all.pop(container.id, None):
                self._settle(held, "removed")
            self.bus.publish(Event("container", "die", container.id, {"name": container.name, "exitCode": str(code)}))

    def _state(self, held: Running, **values: object) -> None:
        held.container = replace(held.container, state=replace(held.container.state, **values))

    def _settle(self, held: Running, *conditions: str) -> None:
        for condition, future in held.waiters:
            if condition in conditions and not future.done():
                future.set_result(WaitResult(held.container.state.exit_code))

    async def stop(self, name: str, *, timeout: int | None = None, signal: str = "") -> bool:
        held = self.find(name)
        held.signals.append(f"stop {timeout} {signal}".strip())
        if not held.container.state.running or held.task is None:
            return False
        held.task.cancel()
        await asyncio.gather(held.task, return_exceptions=True)
        return True

    async def restart(self, name: str, *, timeout: int | None = None, signal: str = "") -> None:
        await self.stop(name, timeout=timeout, signal=signal)
        await self.start(name)

    async def kill(self, name: str, signal: str = "KILL") -> None:
        held = self.find(name)
        if not held.container.state.running:
            raise NotRunning(held.container.id)
        held.signals.append(signal)
        await self.stop(name)

    async def pause(self, name: str) -> None:
        self._state(self.find(name), status=Status.PAUSED)

    async def unpause(self, name: str) -> None:
        self._state(self.find(name), status=Status.RUNNING)

    async def wait(self, name: str, condition: str = "not-running") -> "asyncio.Future[WaitResult]":
        held = self.find(name)
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if condition == "not-running" and not held.container.state.running:
            future.set_result(WaitResult(held.container.state.exit_code))
        held.waiters.append((condition, future))
        return future

    async def attach(self, name: str, *, stdin: bool, stdout: bool, stderr: bool) -> Place:
        held = self.find(name)
        place = Place(held.container.spec.tty, asyncio.get_running_loop().create_future())
        held.places.append(place)
        return place

    async def logs(self, name: str, query: LogQuery) -> AsyncIterator[bytes]:
        held = self.find(name)
        shown = 0
        while True:
            while shown < len(held.output):
                yield held.output[shown]
                shown += 1
            if not query.follow or not held.container.state.running:
                return
            await asyncio.sleep(0.01)

    def detached(self, name: str) -> None:
        self.left.append(self.find(name).container.id)

    async def resize(self, name: str, height: int, width: int) -> None:
        self.find(name).size = (height, width)

    async def top(self, name: str, ps_args: str) -> Processes:
        return Processes(("PID", "CMD"), (("4242", ps_args),))

    async def update(self, name: str, change: Change) -> Sequence[str]:
        held = self.find(name)
        self.changes.append(change)
        held.container = replace(held.container, spec=replace(held.container.spec, restart=change.restart or
                                                              held.container.spec.restart))
        return ["a warning"] if change.limits.memory else []

    async def usage(self, name: str) -> tuple[Container, Look | None]:
        container = self.find(name).container
        self.looks += 1
        stats = Stats(cpu=CpuUse(total=self.looks * 10**6))
        return container, Look(10**18 + self.looks, stats, Machine(10**9, 2, 10**9)) if container.state.running else None

    async def prune(self, filters: PruneFilter) -> tuple[Sequence[str], int]:
        gone = [held.container.id for held in self.all.values()
                if not held.container.state.running and filters.takes(held.container)]
        for container_id in gone:
            del self.all[container_id]
        return gone, 10 * len(gone)

    def counts(self) -> Mapping[str, int]:
        running = sum(held.container.state.running for held in self.all.values())
        return {"running": running, "paused": 0, "stopped": len(self.all) - running}

    def running(self) -> Sequence[str]:
        return [held.container.id for held in self.all.values() if held.container.state.running]

    def in_use(self) -> Mapping[str, Sequence[str]]:
        return {str(image().id): tuple(self.all)}

    def secrets_in_use(self):
        return {self.secret_used: ["box"]} if getattr(self, "secret_used", "") else {}

    def volumes_in_use(self) -> "Mapping[str, list[str]]":
        used: dict = {}
        for held in self.all.values():
            for mount in held.container.spec.mounts:
                if mount.kind == "volume":
                    used.setdefault(mount.source, []).append(held.container.id)
        return used


class FakeExecs:
    def __init__(self, containers: FakeContainers) -> None:
        self.containers = containers
        self.all: dict[str, Exec] = {}
        self.left: list[str] = []

    async def create(self, name: str, spec: ExecSpec) -> str:
        held = self.containers.find(name)
        if not held.container.state.running:
            raise NotRunning(held.container.id)
        exec_id = secrets.token_hex(32)
        self.all[exec_id] = Exec(exec_id, held.container.id, spec)
        return exec_id

    def get(self, exec_id: str) -> Exec:
        if exec_id not in self.all:
            raise NoSuchExec(exec_id)
        return self.all[exec_id]

    async def start(
        self, exec_id: str, *, detach: bool, console_size: tuple[int, int]
    ) -> socket.socket | None:
        held = self.get(exec_id)
        if held.spec.cmd[0] == "no-such-program":
            self.all[exec_id] = replace(held, exit_code=127)
            raise CannotInvoke('exec: "no-such-program": executable file not found in $PATH', 127)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.task = asyncio.ensure_future(self._run(exec_id, ours))
        if detach:
            theirs.close()
            return None
        return theirs

    async def _run(self, exec_id: str, end: socket.socket) -> None:
        held = self.all[exec_id] = replace(self.all[exec_id], running=True)
        code = 141
        try:
            code = await program(held.spec.cmd, end, [], tty=held.spec.tty)
        finally:
            self.all[exec_id] = replace(held, running=False, exit_code=code)
            end.close()

    async def wait(self, exec_id: str) -> int:
        while (code := self.get(exec_id).exit_code) is None:
            await asyncio.sleep(0.005)
        return code

    def detached(self, exec_id: str) -> None:
        self.left.append(exec_id)

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        self.get(exec_id)


def image(*tags: str) -> Image:
    document = {
        "architecture": "amd64", "os": "linux", "created": "2026-11-20T10:00:00Z",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"made-by": "test"}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{'b' * 64}"]},
        "history": [{"created": "2026-11-20T10:00:00Z", "created_by": "COPY / /"}],
    }  # fmt: skip
    raw = json.dumps(document).encode()
    config = ImageConfig.parse(raw)
    manifest = manifests.parse(
        json.dumps({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(Digest.of(raw)),
                "size": len(raw),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{'b' * 64}", "size": 1234,
            }],
        }).encode(),
        "application/vnd.oci.image.manifest.v1+json",
    )  # fmt: skip
    digest = Digest.of(manifest.raw)
    repository = Reference.parse(tags[0] if tags else "nowhere").repository
    digests = tuple({f"{Reference.parse(tag).familiar_name}@{digest}" for tag in tags})
    return Image(Digest.of(raw), config, digest, manifest, repository, tags, digests, 1234567, config.chain_ids())


AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


class FakeImages:
    def __init__(self) -> None:
        self.held: list[Image] = [image("busybox:latest")]
        self.credentials: list[Credentials | None] = []
        self.pull_may_end = asyncio.Event()
        self.pull_may_end.set()
        self.pulls_cancelled = 0

    async def pull(
        self, reference: Reference, *, platform: Platform | None, auth: Credentials | None, progress: Progress
    ) -> Image:
        self.credentials.append(auth)
        name = reference.familiar()
        if "unreachable" in name:
            raise RemoteUnavailable(f'Get "http://{reference.domain}/v2/": connect: connection refused')
        progress.status(f"Pulling from {reference.path}", str(reference.tag))
        progress.layer("abcdef012345", "Pulling fs layer")
        try:
            await self.pull_may_end.wait()
        except asyncio.CancelledError:
            self.pulls_cancelled += 1
            raise
        progress.layer("abcdef012345", "Downloading", 512, 1024)
        if "broken" in name:
            raise RemoteUnavailable("the connection broke")
        progress.layer("abcdef012345", "Pull complete")
        progress.status(f"Digest: sha256:{'c' * 64}")
        progress.status(f"Status: Downloaded newer image for {name}")
        self.held.append(image(name))
        return self.held[-1]

    async def pull_all(
        self, reference: Reference, *, platform: Platform | None, auth: Credentials | None, progress: Progress
    ) -> Sequence[Image]:
        return [await self.pull(Reference.parse(f"{reference}:{tag}"), platform=platform, auth=auth, progress=progress)
                for tag in ("1", "2")]

    async def distribution(self, reference: Reference, *, auth: Credentials | None) -> Distributed:
        self.credentials.append(auth)
        if "nothere" in reference.path.value:
            raise PullFailed(f"manifest for {reference.familiar()} not found: manifest unknown")
        return Distributed(Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(b"i"), 7), (AMD64, ARM64))

    async def push(
        self, reference: Reference, *, platform: Platform | None, auth: Credentials | None, progress: Progress
    ) -> PushResult:
        held = [Reference.parse(tag) for image in self.held for tag in image.repo_tags]
        found = [one for one in held if one.repository == reference.repository and reference.tag in (None, one.tag)]
        if not found:
            raise NothingToPush(f"An image does not exist locally with the tag: {reference.familiar_name}")
        progress.status(f"The push refers to repository [{reference.domain}/{reference.path}]")
        for one in found:
            progress.layer("abcdef012345", "Pushed")
            progress.status(f"{one.tag}: digest: sha256:{'c' * 64} size: 527")
            progress.aux({"Tag": str(one.tag), "Digest": f"sha256:{'c' * 64}", "Size": 527})
        return PushResult(str(reference.tag), Digest.parse(f"sha256:{'c' * 64}"), 527)

    async def check_login(self, host: str, credentials: Credentials) -> None:
        if credentials.password != "right":
            raise RemoteUnauthorized("unauthorized: incorrect username or password")

    async def get(self, name_or_id: str, platform: Platform | None = None) -> Image:
        for held in self.held:
            short = str(held.id).removeprefix("sha256:")
            names = {*held.repo_tags, *(tag.removesuffix(":latest") for tag in held.repo_tags), str(held.id)}
            if name_or_id in names or short.startswith(name_or_id.removeprefix("sha256:")):
                if platform and not held.platform.satisfies(platform):
                    raise PlatformMissing(name_or_id, platform)
                return held
        raise ImageNotFound(name_or_id)

    async def list(self) -> Sequence[Image]:
        return self.held

    async def parts(self, name_or_id: str) -> Sequence[Part]:
        held = await self.get(name_or_id)
        index = Descriptor("application/vnd.oci.image.manifest.v1+json", held.manifest_digest, 100, platform=AMD64)
        other = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"arm"), 100, platform=ARM64)
        about = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"sbom"), 100)
        return [Part(index, available=True, content=2000, image=held), Part(other, available=False),
                Part(about, available=False, attests=held.manifest_digest)]

    async def target(self, name_or_id: str) -> Descriptor:
        held = await self.get(name_or_id)
        return Descriptor(held.manifest.media_type, held.manifest_digest, len(held.manifest.raw))

    async def usage(self) -> ImageUsage:
        layers = {chain_id: held.size for held in self.held for chain_id in held.chain}
        blobs = {held.id: {blob.digest: blob.size for blob in held.manifest.blobs} for held in self.held}
        return ImageUsage(layers, 0, 5000, blobs)

    async def remove_platforms(
        self, name_or_id: str, platforms: Sequence[Platform], in_use: Mapping[str, Sequence[str]]
    ) -> Sequence[Removal]:
        return [Removal("Deleted", str((await self.get(name_or_id, one)).manifest_digest)) for one in platforms]

    async def prune(self, wanted: Callable[[Image], bool], in_use: Mapping[str, Sequence[str]]) -> Pruned:
        going = [held for held in self.held if wanted(held) and not in_use.get(str(held.id))]
        self.held = [held for held in self.held if held not in going]
        lines = [Removal("Untagged", name) for held in going for name in held.repo_tags]
        return Pruned((*lines, *(Removal("Deleted", str(held.id)) for held in going)), sum(one.size for one in going))

    async def history(self, name_or_id: str, platform: Platform | None = None) -> Sequence[HistoryEntry]:
        held = await self.get(name_or_id, platform)
        return [HistoryEntry(str(held.id), held.created, "COPY / /", "", 1234567, held.repo_tags)]

    async def tag(self, source: str, target: Reference) -> None:
        held = await self.get(source)
        self.held.remove(held)
        self.held.append(replace(held, repo_tags=(*held.repo_tags, target.with_default_tag().familiar())))

    async def remove(
        self,
        name_or_id: str,
        *,
        force: bool,
        prune: bool,
        in_use: Mapping[str, Sequence[str]],
        running: Sequence[str],
    ) -> Sequence[Removal]:
        held = await self.get(name_or_id)
        self.held.remove(held)
        return [Removal("Untagged", held.repo_tags[0]), Removal("Deleted", str(held.id))]


class FakeNetworks:
    """Networks without a kernel; what they are is decided as the real ones do."""

    def __init__(self) -> None:
        bridge = NetworkSpec("bridge", pools=(Pool("172.20.0.0/16", "172.20.0.1"),))
        self.held = [
            Network("1" * 64, "2026-01-01T00:00:00Z", bridge),
            Network("2" * 64, "2026-01-01T00:00:00Z", NetworkSpec("host", "host")),
            Network("3" * 64, "2026-01-01T00:00:00Z", NetworkSpec("none", "null")),
        ]
        self.busy: set[str] = set()

    def list(self) -> Sequence[Network]:
        return list(self.held)

    def inspect(self, name_or_id: str) -> Network:
        for held in self.held:
            if name_or_id in (held.name, held.id):
                return held
        raise NoSuchNetwork(name_or_id)

    async def create(self, spec: NetworkSpec) -> Network:
        definition.check(spec)
        if any(held.name == spec.name for held in self.held):
            raise NetworkExists(spec.name)
        whole = definition.complete(definition.with_configuration(spec, self.held), self.held)
        self.held.append(Network(f"{len(self.held):064x}", "2026-01-02T00:00:00Z", whole))
        return self.held[-1]

    async def remove(self, name_or_id: str) -> None:
        found = self.inspect(name_or_id)
        if found.builtin or found.id in self.busy:
            raise NetworkForbidden(f"{found.name} cannot be removed")
        self.held.remove(found)

    def used(self) -> set[str]:
        return self.busy


@dataclass(frozen=True)
class FakeVolume:
    name: str
    mountpoint: str
    created: str = BORN
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


class FakeVolumes:
    def __init__(self) -> None:
        self.held: dict[str, FakeVolume] = {}

    async def create(
        self, name: str | None, *, labels: Mapping[str, str], driver_opts: Mapping[str, str], driver: str
    ) -> FakeVolume:
        if driver not in ("", "local"):
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        labels = labels if name else {"com.docker.volume.anonymous": "", **labels}
        name = name or secrets.token_hex(32)
        made = FakeVolume(name, f"/volumes/{name}/_data", labels=labels, options=driver_opts)
        return self.held.setdefault(name, made)

    async def usage(self, name: str) -> int:
        return 42

    async def inspect(self, name: str) -> FakeVolume:
        if name not in self.held:
            raise NotFound(f"get {name}: no such volume")
        return self.held[name]

    async def list(self) -> Sequence[FakeVolume]:
        return list(self.held.values())

    async def remove(self, name: str, *, force: bool, users: Callable[[str], Collection[str]]) -> None:
        if users(name):
            raise FailedPrecondition(f"remove {name}: volume is in use - [{', '.join(users(name))}]")
        del self.held[(await self.inspect(name)).name]

    async def prune(
        self, wanted: Callable[[FakeVolume], bool], users: Callable[[str], Collection[str]]
    ) -> tuple[Sequence[str], int]:
        gone = [name for name, volume in self.held.items() if wanted(volume) and not users(name)]
        for name in gone:
            del self.held[name]
        return gone, 42 * len(gone)


class FakeSecretRows:
    """node.state.secrets.SecretRows without a database."""

    def __init__(self) -> None:
        self.held: dict[str, SecretRow] = {}

    async def all(self, kind: str) -> list[SecretRow]:
        return sorted((row for row in self.held.values() if row.kind == kind), key=lambda row: row.name)

    async def add(self, row: SecretRow) -> None:
        if any((other.kind, other.name) == (row.kind, row.name) for other in self.held.values()):
            raise SecretRowExists(row.name)
        self.held[row.id] = row

    async def relabel(self, row: SecretRow) -> None:
        self.held[row.id] = row

    async def delete(self, secret_id: str) -> None:
        del self.held[secret_id]


class FakeSearches:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []

    async def search(self, host: str, term: str, *, limit: int, auth: Credentials | None) -> Sequence[Found]:
        self.asked.append((host, term, limit))
        return [Found("team/web", "a web server", 3), Found("team/worker")]


def stopped(container: Container) -> Container:
    return replace(container, state=ContainerState(Status.EXITED, exit_code=3, started_at=BORN, finished_at=BORN))


class FakeFiles:
    """FilesOfContainers: one small file at /etc/motd of every container, and what was put."""

    def __init__(self, containers: FakeContainers) -> None:
        self._containers = containers
        self.put: list[tuple[str, bytes, bool, bool]] = []
        self.failure: SeawallError | None = None

    async def stat(self, name, path):
        await self._containers.get(name)
        if path != "/etc/motd":
            raise NotFound(f"Could not find the file {path} in container {name}")
        return PathStat("motd", 5, 0o644, 1_000_000_000, "")

    @asynccontextmanager
    async def read(self, name, path):
        yield await self.stat(name, path), FakeBytes(self.failure)

    async def write(self, name, path, body, *, keep_kinds=False, as_user=False):
        await self._containers.get(name)
        self.put.append((path, b"".join([chunk async for chunk in body]), keep_kinds, as_user))

    @asynccontextmanager
    async def export(self, name):
        await self._containers.get(name)
        yield FakeBytes(self.failure)

    async def changes(self, name):
        await self._containers.get(name)
        return [(1, "/new"), (2, "/gone")]


class FakeBytes:
    def __init__(self, failure: SeawallError | None) -> None:
        self._failure = failure

    async def chunks(self):
        yield b"tar"

    async def done(self):
        if self._failure is not None:
            raise self._failure


class FakeArchives:
    """ImageArchives: images as bytes that say what they are."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, Recipe, Reference | None]] = []
        self.failure: SeawallError | None = None

    async def choose(self, names, platform=None):
        if "none" in names:
            raise ImageNotFound("none:latest")
        return tuple(names)

    async def save(self, wanted):
        yield f"archive of {' '.join(wanted)}".encode()

    async def load(self, body, progress, platform=None):
        data = b"".join([chunk async for chunk in body])
        if self.failure is not None:
            raise self.failure
        return [Loaded(Digest.of(data), ("busybox:1",)), Loaded(Digest.of(b"x"), ())]

    async def from_tar(self, body, recipe, target, platform=None):
        self.taken.append((b"".join([chunk async for chunk in body]), recipe, target))
        return Digest.of(b"imported")


class FakeBuilds:
    """`failure` is raised instead of an image; a context is its bytes in a file `Dockerfile`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked: list[Request] = []
        self.pruned: list[tuple[object, ...]] = []
        self.failure: SeawallError | None = None

    @asynccontextmanager
    async def context(self, body):
        (self._folder / "Dockerfile").write_bytes(b"".join([chunk async for chunk in body]))
        yield self._folder

    async def hidden(self, context, dockerfile):
        return ()

    async def dockerfile(self, context, name):
        return (context / name).read_bytes()

    async def build(self, request, output):
        self.asked.append(request)
        output.stream("Step 1/1 : FROM scratch\n")
        if self.failure is not None:
            raise self.failure
        return Digest.of(request.dockerfile)

    async def kept(self):
        return [Kept("ab" * 32, "RUN x", 1000, datetime(2026, 1, 1, tzinfo=UTC))]

    async def prune(self, *, before=None, keep=0, keys=()):
        self.pruned.append((before, keep, *keys))
        return ["ab" * 32], 1000


class FakeCommits:
    def __init__(self) -> None:
        self.asked: list[CommitSpec] = []

    async def commit(self, spec):
        self.asked.append(spec)
        return Digest.of(b"committed")
