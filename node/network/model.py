"""What a container asks of the network, and what it gets."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ocispec.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)

NO_STRINGS: Mapping[str, str] = {}

BUILTIN = ("bridge", "host", "none")

ANY, ANY6 = "0.0.0.0", "::"  # noqa: S104 -- Docker's meaning of -p without an address


class NoSuchNetwork(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"network {name} not found")


class NetworkExists(AlreadyExists):
    def __init__(self, name: str) -> None:
        super().__init__(f"network with name {name} already exists")


class AmbiguousNetwork(InvalidArgument):
    """A prefix that several ids have."""


class NetworkForbidden(PermissionDenied):
    """Docker answers 403: a built-in network, one in use, a subnet or address that another has."""


class AddressInUse(NetworkForbidden):
    """A container asked for an address that another holds."""


class InvalidNetwork(InvalidArgument):
    """What was asked of a network cannot be."""


class NetworkUnavailable(Unavailable):
    """The kernel refused a part of the network; the message says which."""


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
    host_port_end: int = 0
    """The first free one up to this is chosen; 0: no range."""


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """What a container asks of one network. Empty: as the network likes."""

    network: str
    """Name or id, as the user wrote it."""

    network_id: str = ""
    """Of the network it was on last; empty before the first start."""

    aliases: tuple[str, ...] = ()
    ipv4: str = ""
    ipv6: str = ""
    link_local: tuple[str, ...] = ()
    mac: str = ""
    links: tuple[str, ...] = ()
    """CONTAINER:ALIAS: names that this container alone knows."""

    driver_opts: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)
    gw_priority: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a container got on one network. Of host and none only the ids."""

    ip: str = ""
    prefix: int = 0
    gateway: str = ""
    mac: str = ""
    network_id: str = ""
    endpoint_id: str = ""
    network_name: str = ""
    driver: str = ""
    ip6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    interface: str = ""
    """In the container: eth0, eth1, …"""

    host_interface: str = ""
    """The other end; empty where there is none (macvlan)."""

    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    """Container name, aliases, short id, host name: all that this network's DNS answers for it."""

    gw_priority: int = 0

    @property
    def named(self) -> bool:
        """Whether names are answered there: on networks that users made."""
        return bool(self.ip or self.ip6) and self.network_name not in BUILTIN


@dataclass(frozen=True, slots=True)
class Resolving:
    """Whom a container's DNS asks for names that are not ours."""

    servers: tuple[str, ...] = ()
    """Of `--dns`, asked from the container's network; empty: whomever the host asks."""

    dotted_only: bool = False
    """The container has set ndots itself: names without a dot stay here."""


@dataclass(frozen=True, slots=True)
class Joining:
    """A container about to start. `mode` is none, host, container:<id>, or anything else: then `endpoints` counts, the
    one that NetworkMode names first."""

    container_id: str
    name: str
    hostname: str
    mode: str
    endpoints: tuple[EndpointSpec, ...] = ()
    published: tuple[PortBinding, ...] = ()
    other_netns: str | None = None
    """Of container:<id>: that one's namespace."""

    resolving: Resolving = field(default_factory=Resolving)
    netns: int | None = None
    """A namespace that is ready for it, with lo up (the caller's; a copy is kept); None: one is made."""

    sysctls: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)
    """Of that namespace."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One subnet of a network. Asked for, each may be empty; of a network that is, `subnet` and `gateway` are not."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    """The part that is given out unasked."""

    aux: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)
    """Addresses that are given to nobody, by name."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What `docker network create` can say."""

    name: str
    driver: str = "bridge"
    scope: str = "local"
    pools: tuple[Pool, ...] = ()
    ipam_driver: str = "default"
    ipam_options: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    config_only: bool = False
    config_from: str = ""
    options: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)
    labels: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)


@dataclass(frozen=True, slots=True)
class Network:
    """A network that is: bridge, host, none, or one of the user's. `spec.pools` are complete."""

    id: str
    created: str
    spec: NetworkSpec
    asked_subnet: bool = False
    """The user named its subnets, so a container may ask for an address."""

    made_parent: bool = False
    """The interface that it stands on was made for it."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def driver(self) -> str:
        return self.spec.driver

    @property
    def labels(self) -> Mapping[str, str]:
        return self.spec.labels

    @property
    def builtin(self) -> bool:
        return self.spec.name in BUILTIN

    @property
    def subnet(self) -> str:
        return next((pool.subnet for pool in self.spec.pools if ":" not in pool.subnet), "")

    @property
    def gateway(self) -> str:
        return next((pool.gateway for pool in self.spec.pools if ":" not in pool.subnet), "")


@dataclass(slots=True)
class Sandbox:
    """`netns_path` names the namespace through a descriptor of this process (None: the host's), so it is good until
    `close`. `fds` hold the published ports; whoever keeps copies of them keeps the ports."""

    netns_path: str | None
    fds: tuple[int, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    """The one with the default route first."""

    ports: tuple[PortBinding, ...] = ()
    own: list[int] = field(default_factory=list)

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the default route leads; None without an address."""
        return next((end for end in self.endpoints if end.ip or end.ip6), None)

    async def close(self) -> None:
        """Let go of this process's descriptors; the container's live on in it and its monitor."""
        for fd in self.own:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.own.clear()
