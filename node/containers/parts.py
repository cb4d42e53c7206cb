"""What this room needs of its neighbours, as Protocols, so that its state machine can be tested without a kernel.

The composition root gives the real ones; `tests/node/containers/fakes.py` holds fakes.
"""

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from node.containers.launcher import LaunchRequest
from node.containers.model import MountPoint
from node.containers.monitor import ExitStatus, HeldExec
from node.images.image import Image
from node.linux.cgroups.stats import Stats
from node.network.model import Endpoint, EndpointSpec, Joining, Network, PortBinding, Sandbox
from node.snapshots.mounts import RootMount
from ocispec.descriptor import Platform
from ocispec.digest import Digest


class Process(Protocol):
    """The container's own process. Every method raises MonitorGone when the monitor has died."""

    @property
    def pid(self) -> int: ...
    async def start(self) -> None: ...
    async def signal(self, number: int) -> None: ...
    async def kill_all(self) -> None: ...
    async def wait(self) -> ExitStatus: ...
    async def close(self) -> None: ...


class Streams(Protocol):
    """The standard streams of the container's process or of an exec: raw bytes of a tty, Docker's frames without."""

    async def attach(self, *, stdin: bool, stdout: bool, stderr: bool, exec_id: str | None = None) -> socket.socket: ...
    async def resize(self, height: int, width: int, exec_id: str | None = None) -> None: ...


class RunsExecs(Protocol):
    """Further processes in a running container."""

    async def exec(
        self, exec_id: str, process: dict[str, Any], *, tty: bool, stdin: bool, about: str = ""
    ) -> int: ...
    async def exec_start(self, exec_id: str) -> int: ...
    async def exec_wait(self, exec_id: str) -> ExitStatus: ...
    async def exec_signal(self, exec_id: str, number: int) -> None: ...
    async def held_execs(self) -> Sequence[HeldExec]: ...


class MonitorHandle(Process, Streams, RunsExecs, Protocol):
    """A container's monitor (node.containers.monitor.Monitor)."""


class Launches(Protocol):
    """Brings monitors into being (node.containers.launcher.Launcher)."""

    async def create(self, request: LaunchRequest) -> MonitorHandle: ...


class FindsImages(Protocol):
    """The image a container is made of (node.images.store.Images)."""

    async def get(self, name_or_id: str, platform: Platform | None = None) -> Image: ...
    async def ensure_unpacked(self, image: Image) -> tuple[Digest, ...]: ...


class Connects(Protocol):
    """A container's place on a network (node.network.store.Networks)."""

    async def attach(self, joining: Joining) -> Sandbox: ...
    async def release(self, container_id: str) -> None: ...


class Volume(Protocol):
    """A folder that outlives containers (node.volumes.store.Volume)."""

    @property
    def name(self) -> str: ...


class KeepsVolumes(Protocol):
    """Folders that outlive containers (node.volumes.store.Volumes)."""

    async def create(
        self, name: str | None, labels: Mapping[str, str], driver_opts: Mapping[str, str], *, driver: str = "",
        claim: bool = False,
    ) -> Volume: ...  # fmt: skip
    def claim(self, name: str) -> None: ...
    def unclaim(self, name: str) -> None: ...
    async def remove(
        self, name: str, *, force: bool = False, users: Callable[[str], Collection[str]] = ...
    ) -> None: ...
    def path(self, name: str) -> Path: ...
    async def fill(self, root: RootMount, places: Sequence[MountPoint]) -> None: ...


class MountsVolumes(Protocol):
    """Volumes that are mounted from somewhere while a container that has one runs (node.volumes.store.Volumes)."""

    async def acquire(self, name: str, holder: str) -> None: ...
    async def hold(self, name: str, holder: str) -> None: ...
    async def release(self, name: str, holder: str) -> None: ...
    async def settle(self) -> None: ...


class Secret(Protocol):
    """A secret or config, without its data (node.secrets.store.Secret)."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


class ReadsSecrets(Protocol):
    """Secrets and configs, by kind and name or id (node.secrets.store.Secrets)."""

    async def find(self, kind: str, name: str) -> Secret: ...
    async def read(self, kind: str, name: str) -> bytes: ...


class VolumesOfContainers(KeepsVolumes, MountsVolumes, Protocol):
    """All that this room asks of volumes."""


class Freezes(Protocol):
    """The cgroups of containers, by container id (node.containers.freezer.CgroupFreezer)."""

    def locate(self, path_of: Callable[[str], str]) -> None: ...
    async def freeze(self, container_id: str) -> None: ...
    async def thaw(self, container_id: str) -> None: ...
    async def pids(self, container_id: str) -> Sequence[int]: ...
    async def clear(self, container_id: str) -> None: ...


class Measures(Protocol):
    """What they use and may use."""

    async def stats(self, container_id: str) -> Stats: ...
    async def update(self, container_id: str, limits: Mapping[str, object]) -> Sequence[str]: ...


class Groups(Freezes, Measures, Protocol):
    """All of it."""


class Readopts(Protocol):
    """Networks, after the daemon was away (node.network.store.Networks)."""

    async def readopt(
        self, joining: Joining, endpoints: Sequence[Endpoint], published: Sequence[PortBinding], pid: int
    ) -> None: ...
    async def settle(self) -> None: ...


class Republishes(Protocol):
    """Published ports of a container that goes on (node.network.store.Networks)."""

    async def republish(
        self, container_id: str, published: Sequence[PortBinding], pid: int
    ) -> Sequence[PortBinding]: ...


class ChangesNetworks(Protocol):
    """A running container's networks, more and fewer (node.network.store.Networks)."""

    def inspect(self, name_or_id: str) -> Network: ...
    def check(self, network_id: str, asked: EndpointSpec) -> None: ...
    async def connect(self, container_id: str, asked: EndpointSpec, pid: int) -> Sequence[Endpoint]: ...
    async def disconnect(self, container_id: str, network_id: str, pid: int) -> Sequence[Endpoint]: ...
    async def renamed(self, container_id: str, old: str, new: str, pid: int) -> None: ...


class NetworksOfContainers(Connects, Readopts, Republishes, ChangesNetworks, Protocol):
    """All that this room asks of networks."""
