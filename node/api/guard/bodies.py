"""Bodies from a user with the rights of a project: nothing in them may reach beyond it.

Who may make containers as they like is root on the machine, so what is allowed is a list; a field that is not on it,
old or new, is refused by name.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import Any

from node.access.rules import NotAllowed, Rights
from node.api.guard.owned import LABEL, Owned
from node.api.types.fields import Fields
from node.api.types.mounts import parse_mounts
from node.network.subnets import choosable
from node.settings import IsolationSettings

CONFIG = frozenset({
    "hostname", "domainname", "user", "attachstdin", "attachstdout", "attachstderr", "tty", "openstdin", "stdinonce",
    "env", "cmd", "entrypoint", "healthcheck", "image", "volumes", "workingdir", "labels", "stopsignal", "stoptimeout",
    "exposedports", "networkingconfig", "hostconfig", "macaddress", "onbuild", "shell", "argsescaped",
    "networkdisabled",
})  # fmt: skip
LIMITS = frozenset({
    "memory", "memoryswap", "memoryreservation", "memoryswappiness", "nanocpus", "cpushares", "cpuquota", "cpuperiod",
    "cpusetcpus", "cpusetmems", "pidslimit", "blkioweight", "restartpolicy",
})  # fmt: skip
HOST = LIMITS | {
    "ulimits", "shmsize", "portbindings", "publishallports", "autoremove", "dns", "dnsoptions", "dnssearch",
    "extrahosts", "tmpfs", "capdrop", "readonlyrootfs", "groupadd", "init", "consolesize", "containeridfile",
    "isolation", "sysctls",
    # Looked at one by one below.
    "networkmode", "pidmode", "ipcmode", "utsmode", "cgroupnsmode", "usernsmode", "securityopt", "binds", "mounts",
    "volumesfrom", "logconfig", "oomscoreadj", "volumedriver",
}  # fmt: skip
"""CapAdd, Devices, Privileged, Runtime and their like are not here."""

ENDPOINT = frozenset({
    "ipamconfig", "aliases", "macaddress", "gwpriority", "networkid", "endpointid", "gateway", "ipaddress",
    "ipprefixlen", "ipv6gateway", "globalipv6address", "globalipv6prefixlen", "dnsnames",
})  # fmt: skip
OWN = {"pidmode": ("",), "utsmode": ("",), "usernsmode": ("",), "cgroupnsmode": ("", "private"),
       "ipcmode": ("", "private", "shareable", "none"), "networkmode": ("", "default", "bridge", "none")}  # fmt: skip
OWN_LABELS = (LABEL, "seawall.restart-unhealthy", "seawall.depends-on")
MOST_PIDS = IsolationSettings().pids_limit
LOGS = ("", "json-file", "local", "none")
_NOTHING: tuple[object, ...] = (None, False, 0, "", [], {})


class Bodies:
    """All raise NotAllowed, naming the field, or NotFound for what is another's."""

    def __init__(self, owned: Owned, rights: Rights, *, own_users: bool = False) -> None:
        self._owned = owned
        self._rights = rights
        self._own_users = own_users

    async def container(self, body: Fields) -> Mapping[str, Any]:
        """The fields that name other things, by id: names change hands before the container starts."""
        host = body.object("HostConfig")
        _only(body, CONFIG)
        _only(host, HOST)
        for name in ("MaskedPaths", "ReadonlyPaths"):
            if host.has(name):
                raise _refused(host, name)
        pinned = await self._namespaces(host)
        if self._own_users:
            # Nothing else that is asked for, nor the image's user, turns into the host's ids: named, it is refused.
            pinned["UsernsMode"] = "private"
        self._settings(host)
        networking, ends = body.object("NetworkingConfig"), {}
        for network, settings in networking.object_map("EndpointsConfig").items():
            _only(settings, ENDPOINT)
            ends[network if network in OWN["networkmode"] else await self._owned.network(network)] = settings.all()
        volumes = [text.partition(":") for text in host.texts("VolumesFrom")]
        pinned["VolumesFrom"] = [f"{await self._owned.container(name)}{colon}{mode}" for name, colon, mode in volumes]
        await self._mounts(host)
        self.labels(body)
        return {"HostConfig": {**host.all(), **pinned},
                "NetworkingConfig": {**networking.all(), "EndpointsConfig": ends}}  # fmt: skip

    async def _namespaces(self, host: Fields) -> dict[str, Any]:
        pinned: dict[str, Any] = {}
        for name in ("PidMode", "UTSMode", "UsernsMode", "CgroupnsMode", "IpcMode", "NetworkMode"):
            mode = host.text(name)
            kind, joins, other = mode.partition(":")
            if mode in OWN[name.lower()]:
                continue
            if kind == "container" and joins:
                pinned[name] = f"container:{await self._owned.container(other)}"
            elif name == "NetworkMode" and mode != "host":
                pinned[name] = await self._owned.network(mode)
            else:
                raise NotAllowed(f"{host.name(name)}: {mode!r} is not allowed with the rights of a project")
        return pinned

    def _settings(self, host: Fields) -> None:
        for text in host.texts("SecurityOpt"):
            if text.partition("=")[0].partition(":")[0] != "no-new-privileges":
                raise _refused(host, "SecurityOpt")
        if host.text("Isolation").lower() not in ("", "default", "seawall"):
            raise _refused(host, "Isolation")
        _check_pids(host)
        log = host.object("LogConfig")
        if log.text("Type") not in LOGS:
            raise _refused(host, "LogConfig")
        for option in log.mapping("Config"):
            # Also those of the node's default driver: an address or a file of syslog's is the host's.
            if option.startswith("syslog-"):
                raise _refused(log, "Config")
        if host.number("OomScoreAdj") < 0:
            raise _refused(host, "OomScoreAdj")
        if host.text("VolumeDriver") not in ("", "local"):
            raise _refused(host, "VolumeDriver")

    async def _mounts(self, host: Fields) -> None:
        for mount in parse_mounts(host):
            if mount.driver_options:
                raise NotAllowed(f"{host.name('Mounts')}: options of a volume's driver are not allowed with the rights "
                                 "of a project")
            if mount.kind == "bind" and (mount.source.rstrip("/") or "/") not in self._rights.binds:
                # Exactly those, as they are spelled: below a folder that others write in, a link could lead anywhere,
                # and the kernel follows `link/..` from where the link leads.
                raise NotAllowed(f"the path {mount.source[:200]} may not be mounted with the rights of project "
                                 f"{self._owned.project}")
            if mount.kind == "volume" and mount.source:
                await self._owned.claim_volume(mount.source)
            if mount.kind not in ("bind", "volume", "tmpfs", "image"):
                raise _refused(host, "Mounts")

    async def network(self, body: Fields) -> None:
        _only(body, {"name", "checkduplicate", "driver", "internal", "attachable", "ipam", "enableipv4", "enableipv6",
                     "labels", "scope"})  # fmt: skip
        if body.text("Driver") not in ("", "bridge"):
            raise _refused(body, "Driver")
        for pool in body.object("IPAM").objects("Config"):
            if subnet := pool.text("Subnet"):
                await asyncio.to_thread(_check_subnet, subnet)
        self.labels(body)

    async def volume(self, body: Fields) -> None:
        _only(body, {"name", "driver", "labels"})
        if body.text("Driver") not in ("", "local"):
            raise _refused(body, "Driver")
        self.labels(body)
        if name := body.text("Name"):
            await self._owned.free_volume(name)

    async def connect(self, body: Fields) -> Mapping[str, Any]:
        _only(body, {"container", "endpointconfig", "force"})
        _only(body.object("EndpointConfig"), ENDPOINT)
        return {"Container": await self._owned.container(body.text("Container"))}

    async def exec(self, body: Fields) -> None:
        if body.flag("Privileged"):
            raise _refused(body, "Privileged")

    async def update(self, body: Fields) -> None:
        _only(body, LIMITS | {"labels", "portbindings"})
        _check_pids(body)
        self.labels(body)

    def labels(self, body: Fields) -> None:
        for name in body.keys("Labels"):
            # Labels of ours ask the node for things; one that is new must be thought of first.
            if name.startswith("seawall.") and name not in OWN_LABELS:
                raise NotAllowed(f"the label {name[:100]} is not allowed with the rights of a project")
        wanted = body.mapping("Labels").get(LABEL, self._owned.project)
        if wanted != self._owned.project:
            raise NotAllowed(f"the label {LABEL} says {wanted[:70]!r}, and yours is {self._owned.project!r}")


def _check_pids(body: Fields) -> None:
    """The number of processes is the host's: nobody takes them all with the rights of a project."""
    if not 0 <= body.number("PidsLimit") <= MOST_PIDS:
        raise NotAllowed(f"{body.name('PidsLimit')}: no more than {MOST_PIDS} are allowed with the rights of a project")


def _check_subnet(text: str) -> None:
    """One that the node could have chosen by itself: any other takes a part of the world away from the host and from
    all containers on it, and gives it to the project."""
    with contextlib.suppress(ValueError):
        subnet = ip_network(text, strict=False)
        if choosable(subnet):
            return
    raise NotAllowed(f"the subnet {text[:60]} is not allowed with the rights of a project: it overlaps what this host "
                     "reaches, or is not of the private ranges that networks are made of")


def _only(body: Fields, allowed: Iterable[str]) -> None:
    for key in body.given():
        if key.lower() not in allowed and body.raw(key) not in _NOTHING:
            raise _refused(body, key)


def _refused(body: Fields, key: str) -> NotAllowed:
    return NotAllowed(f"{body.name(key)} is not allowed with the rights of a project")
