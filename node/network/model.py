"""What a container asks of the network, and what it gets."""

import contextlib
import os
from dataclasses import dataclass, field

from ocispec.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted

ANY = "0.0.0.0"  # noqa: S104 -- Docker's meaning of -p without an address


class NoSuchNetwork(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"network {name} not found")


class PortInUse(FailedPrecondition):
    """Another container or another program of the host has the port."""


class NoFreeAddress(ResourceExhausted):
    """Every address of the subnet is taken."""


class InvalidSubnet(InvalidArgument):
    """The subnet that the settings name cannot be used."""


@dataclass(frozen=True, slots=True)
class PortBinding:
    """`host_ip` empty: every address of the host. `host_port` 0: a free one is chosen."""

    proto: str
    container_port: int
    host_ip: str = ""
    host_port: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    ip: str
    prefix: int
    gateway: str
    mac: str
    network_id: str
    endpoint_id: str


@dataclass(frozen=True, slots=True)
class Network:
    """One of the built-in networks: bridge, host or none. `subnet` and `gateway` are empty where it has none."""

    id: str
    name: str
    driver: str
    subnet: str = ""
    gateway: str = ""


@dataclass(slots=True)
class Sandbox:
    """`netns_path` names the namespace through a descriptor of this process (None: the host's), so it is good until
    `close`. `fds` hold the published ports; whoever keeps copies of them keeps the ports."""

    netns_path: str | None
    fds: tuple[int, ...] = ()
    endpoint: Endpoint | None = None
    ports: tuple[PortBinding, ...] = ()
    own: list[int] = field(default_factory=list)

    async def close(self) -> None:
        """Let go of this process's descriptors; the container's live on in it and its monitor."""
        for fd in self.own:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.own.clear()
