"""What the API needs of the rooms below, by group of routes; the composition root gives the real ones.

The verbs and their errors are documented where they are implemented: `node.containers.manager`, `node.images.store`,
`node.network.store`, `node.volumes.store`.
"""

import socket
from collections.abc import AsyncIterator, Callable, Collection, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from node.build.results import Kept
from node.build.values import Output
from node.build.values import Request as BuildRequest
from node.containers.changing import Change
from node.containers.commit import CommitSpec
from node.containers.filters import NOTHING, Filters
from node.containers.model import Container, Created, CreateSpec, Exec, ExecSpec, LogQuery, Processes
from node.containers.pruning import PruneFilter
from node.containers.usage import Look
from node.images.archive.load import Loaded
from node.images.archive.making import Recipe
from node.images.archive.save import Wanted
from node.images.distribution import Distributed
from node.images.image import HistoryEntry, Image, ImageUsage, Part, Pruned, PushResult, Removal
from node.images.progress import Progress
from node.network.model import EndpointSpec, Network, NetworkSpec
from ocispec.descriptor import Descriptor, Platform
from ocispec.digest import Digest
from ocispec.reference import Reference
from storage.remote.auth import Credentials
from storage.remote.search import Found


class Catalogue(Protocol):
    """Which containers there are."""

    async def create(self, spec: CreateSpec) -> Created: ...
    async def get(self, name: str) -> Container: ...
    async def list(self, *, all: bool = False, limit: int = 0, filters: Filters = NOTHING) -> Sequence[Container]: ...  # noqa: A002
    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None: ...
    async def rename(self, name: str, new: str) -> None: ...
    async def size(self, name: str) -> int: ...


class Lifecycle(Protocol):
    """Starting and ending them. False: it was so already (304)."""

    async def start(self, name: str) -> bool: ...
    async def stop(self, name: str, *, timeout: int | None = None, signal: str = "") -> bool: ...  # noqa: ASYNC109
    async def restart(self, name: str, *, timeout: int | None = None, signal: str = "") -> None: ...  # noqa: ASYNC109
    async def kill(self, name: str, signal: str = "KILL") -> None: ...
    async def pause(self, name: str) -> None: ...
    async def unpause(self, name: str) -> None: ...


class Attached(Protocol):
    """A place at a container's streams, taken before or while it runs."""

    tty: bool

    async def open(self) -> socket.socket | None:
        """Waits for the start; None when it will not come."""
        ...

    def cancel(self) -> None: ...


class Ended(Protocol):
    """How a container ended."""

    @property
    def status_code(self) -> int: ...
    @property
    def error(self) -> str: ...


class Waiting(Protocol):
    """A future: awaited for the end, cancelled when nobody waits any more."""

    def __await__(self) -> Generator[Any, None, Ended]: ...
    def cancel(self) -> bool: ...


class Observation(Protocol):
    """Watching and steering a running one."""

    async def wait(self, name: str, condition: str = "not-running") -> Waiting: ...
    async def attach(self, name: str, *, stdin: bool, stdout: bool, stderr: bool) -> Attached: ...
    def detached(self, name: str) -> None: ...
    def logs(self, name: str, query: LogQuery) -> AsyncIterator[bytes]: ...
    async def resize(self, name: str, height: int, width: int) -> None: ...
    async def top(self, name: str, ps_args: str) -> Processes: ...


class Upkeep(Protocol):
    """Changing containers that exist, and taking away those that have ended."""

    async def update(self, name: str, change: Change) -> Sequence[str]: ...
    async def prune(self, filters: PruneFilter) -> tuple[Sequence[str], int]: ...


class Measured(Protocol):
    """What one uses now; None when nothing runs."""

    async def usage(self, name: str) -> tuple[Container, Look | None]: ...


class Usage(Protocol):
    """Numbers of containers."""

    async def kept(self, name: str) -> int: ...

    def counts(self) -> Mapping[str, int]:
        """Keys running, paused, stopped."""
        ...

    def running(self) -> Sequence[str]: ...
    def in_use(self) -> Mapping[str, list[str]]:
        """Image id (sha256:…) to the ids of containers made from it."""
        ...

    def secrets_in_use(self) -> Mapping[str, list[str]]:
        """Id of a secret or config to the names of containers that have it."""
        ...

    def volumes_in_use(self) -> Mapping[str, list[str]]:
        """Volume name to the ids of containers that have it, running or not."""
        ...


class Connecting(Protocol):
    """Which containers are on them (node.containers.manager.Containers)."""

    async def connect(self, name: str, asked: EndpointSpec) -> None: ...
    async def disconnect(self, name: str, network: str, *, force: bool = False) -> None: ...


class Containers(Catalogue, Lifecycle, Observation, Upkeep, Measured, Usage, Connecting, Protocol):
    """All of it (node.containers.manager.Containers)."""


class PathFacts(Protocol):
    """What is at a path of a container (node.files.workers.PathStat)."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def mode(self) -> int:
        """Go's fs.FileMode."""
        ...

    @property
    def mtime_ns(self) -> int: ...
    @property
    def target(self) -> str: ...


class Bytes(Protocol):
    """A stream that is made while it is read; `done` raises what went wrong after its last chunk."""

    def chunks(self) -> AsyncIterator[bytes]: ...
    async def done(self) -> object: ...


class FilesOfContainers(Protocol):
    """Copying out of and into containers (node.containers.filework.ContainerFiles)."""

    async def stat(self, name: str, path: str) -> PathFacts: ...
    def read(self, name: str, path: str) -> AbstractAsyncContextManager[tuple[PathFacts, Bytes]]: ...
    async def write(
        self, name: str, path: str, body: AsyncIterator[bytes], *, keep_kinds: bool, as_user: bool
    ) -> None: ...
    def export(self, name: str) -> AbstractAsyncContextManager[Bytes]: ...
    async def changes(self, name: str) -> Sequence[tuple[int, str]]: ...


class ImageArchives(Protocol):
    """Images as archives (node.images.archive.service.Archives)."""

    async def choose(self, names: Sequence[str], platform: Platform | None = None) -> Sequence[Wanted]: ...
    def save(self, wanted: Sequence[Wanted]) -> AsyncIterator[bytes]: ...
    async def load(
        self, body: AsyncIterator[bytes], progress: Progress, platform: Platform | None = None
    ) -> Sequence[Loaded]: ...
    async def from_tar(
        self, body: AsyncIterator[bytes], recipe: Recipe, target: Reference | None, platform: Platform | None = None
    ) -> Digest: ...


class BuildsImages(Protocol):
    """Building images of Dockerfiles (node.build.service.Builds)."""

    def context(self, body: AsyncIterator[bytes]) -> AbstractAsyncContextManager[Path]: ...
    async def dockerfile(self, context: Path, name: str) -> bytes: ...
    async def build(self, request: BuildRequest, output: Output) -> Digest: ...
    async def kept(self) -> Sequence[Kept]: ...
    async def prune(
        self, *, before: datetime | None = None, keep: int = 0, keys: Collection[str] = ()
    ) -> tuple[Sequence[str], int]: ...


class Commits(Protocol):
    """Images made of containers (node.containers.commit.Committer)."""

    async def commit(self, spec: CommitSpec) -> Digest: ...


class Execs(Protocol):
    """Further processes in running containers (node.containers.execs.Execs)."""

    async def create(self, name: str, spec: ExecSpec) -> str: ...
    def get(self, exec_id: str) -> Exec: ...
    async def start(
        self, exec_id: str, *, detach: bool, console_size: tuple[int, int]
    ) -> socket.socket | None: ...
    def detached(self, exec_id: str) -> None: ...
    async def resize(self, exec_id: str, height: int, width: int) -> None: ...
    async def wait(self, exec_id: str) -> int: ...


class ImageExchange(Protocol):
    """Between this node and registries."""

    async def pull(
        self, reference: Reference, *, platform: Platform | None, auth: Credentials | None, progress: Progress
    ) -> Image: ...
    async def push(
        self, reference: Reference, *, platform: Platform | None, auth: Credentials | None, progress: Progress
    ) -> PushResult: ...
    async def pull_all(
        self, reference: Reference, *, platform: Platform | None, auth: Credentials | None, progress: Progress
    ) -> Sequence[Image]: ...
    async def distribution(self, reference: Reference, *, auth: Credentials | None) -> Distributed: ...
    async def check_login(self, host: str, credentials: Credentials) -> None: ...


class ImageShelf(Protocol):
    """What is held."""

    async def get(self, name_or_id: str, platform: Platform | None = None) -> Image: ...
    async def list(self) -> Sequence[Image]: ...
    async def parts(self, name_or_id: str) -> Sequence[Part]: ...
    async def target(self, name_or_id: str) -> Descriptor: ...
    async def history(self, name_or_id: str, platform: Platform | None = None) -> Sequence[HistoryEntry]: ...
    async def usage(self) -> ImageUsage: ...


class ImageChanges(Protocol):
    """Names given and taken."""

    async def tag(self, source: str, target: Reference) -> None: ...
    async def remove_platforms(
        self, name_or_id: str, platforms: Sequence[Platform], in_use: Mapping[str, Sequence[str]]
    ) -> Sequence[Removal]: ...
    async def prune(self, wanted: Callable[[Image], bool], in_use: Mapping[str, Sequence[str]]) -> Pruned: ...
    async def remove(
        self,
        name_or_id: str,
        *,
        force: bool,
        prune: bool,
        in_use: Mapping[str, Sequence[str]],
        running: Collection[str],
    ) -> Sequence[Removal]: ...


class Images(ImageExchange, ImageShelf, ImageChanges, Protocol):
    """All of it (node.images.store.Images)."""


class Searches(Protocol):
    """Asking a registry what it holds (storage.remote.search)."""

    async def search(self, host: str, term: str, *, limit: int, auth: Credentials | None) -> Sequence[Found]: ...


class Networks(Protocol):
    """Which networks there are (node.network.store.Networks)."""

    def list(self) -> Sequence[Network]: ...
    def inspect(self, name_or_id: str) -> Network: ...
    async def create(self, spec: NetworkSpec) -> Network: ...
    async def remove(self, name_or_id: str) -> None: ...
    def used(self) -> set[str]: ...


class Volume(Protocol):
    """A named volume (node.volumes.store.Volume)."""

    @property
    def name(self) -> str: ...
    @property
    def mountpoint(self) -> str: ...
    @property
    def created(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def options(self) -> Mapping[str, str]: ...


class Volumes(Protocol):
    """Which volumes there are (node.volumes.store.Volumes)."""

    async def create(
        self, name: str | None, *, labels: Mapping[str, str], driver_opts: Mapping[str, str], driver: str
    ) -> Volume: ...
    async def inspect(self, name: str) -> Volume: ...
    async def usage(self, name: str) -> int: ...
    async def list(self) -> Sequence[Volume]: ...
    async def remove(self, name: str, *, force: bool, users: Callable[[str], Collection[str]]) -> None: ...
    async def prune(
        self, wanted: Callable[[Any], bool], users: Callable[[str], Collection[str]]
    ) -> tuple[Sequence[str], int]: ...


class Secret(Protocol):
    """A secret or config, without its data (node.secrets.store.Secret)."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def created(self) -> str: ...
    @property
    def updated(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


class Secrets(Protocol):
    """Secrets and configs, by kind (node.secrets.store.Secrets)."""

    async def create(self, kind: str, name: str, data: bytes, labels: Mapping[str, str]) -> Secret: ...
    async def find(self, kind: str, name: str) -> Secret: ...
    async def list(self, kind: str) -> Sequence[Secret]: ...
    async def read(self, kind: str, name: str) -> bytes: ...
    async def relabel(self, kind: str, name: str, version: int, labels: Mapping[str, str]) -> None: ...
    async def remove(self, kind: str, name: str, users: Callable[[str], Collection[str]]) -> None: ...
