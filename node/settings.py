"""What a node is told before it starts: where its state lives, which socket it answers on, whom it trusts.

Read once, by the composition root; every other room gets the values it needs through its constructor.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ocispec.errors import InvalidArgument

USERNS_MODES = ("private", "host")
SNAPSHOTTERS = ("auto", "overlay", "vfs")
CGROUP_DRIVERS = ("auto", "cgroupfs", "systemd")
ISOLATIONS = ("seawall", "docker")
JOURNAL_SOCKET = "/run/systemd/journal/socket"
MAX_INTERFACE_NAME = 15
"""IFNAMSIZ less its NUL (netdevice(7))."""

MAX_SOCKET_PATH = 107
"""sun_path less its NUL (unix(7))."""


class InvalidSettings(InvalidArgument):
    """A flag or an environment variable holds what cannot be right; the message names it."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The log of a container that asks for nothing else: bounded, so that no container fills the disk."""

    max_size: int = 10_000_000
    """Bytes of one file before it is rotated."""

    max_files: int = 3
    driver: str = "json-file"
    """Of a container that names none."""

    options: Mapping[str, str] = field(default_factory=dict)
    """Of that driver, for containers that give it none of their own."""

    journal_socket: str = JOURNAL_SOCKET
    """Where journald takes messages."""


@dataclass(frozen=True, slots=True)
class CollectSettings:
    """When images go by themselves; as it stands here, never."""

    unused: timedelta | None = None
    disk: int = 0
    """Percent of the file system in use from which on the least recently used go; 0: never."""

    keep: tuple[str, ...] = ()
    """Patterns of names that stay."""


@dataclass(frozen=True, slots=True)
class ImageSources:
    """Where images come from beside the registry that their name says (`node.images.mirrors`)."""

    mirrors: tuple[str, ...] = ()
    """[HOST=]URL."""

    file: Path | None = None
    shared: Path | None = None
    """Folder of layers that the nodes of this machine share."""


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Where other machines reach the API: over TLS, with certificates on both sides."""

    host: str
    port: int
    authority: Path
    """Certificates that client certificates must come from (PEM)."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Who reaches the API and what they may there."""

    group: str = ""
    """May open the socket, beside root; name or number. Empty: the daemon's own group."""

    rules: Path | None = None
    """`node.access.rules`; None: who can open the socket may do everything."""

    remote: RemoteSettings | None = None


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """Where and how ports are published that say nothing about it."""

    addresses: tuple[str, ...] = ()
    """Of the host; empty: all, IPv4 and IPv6."""

    past_firewall: bool = False
    """Published ports are open whatever the host's own rules say, as with other engines."""


UPLINKS = ("auto", "pasta", "slirp4netns", "none")


@dataclass(frozen=True, slots=True)
class RootlessSettings:
    """Of a node that an ordinary user starts (node.rootless); root's pays no heed."""

    network: str = "auto"
    """One of UPLINKS: what carries packets between the node's network and the host's. auto: the first that is there.
    """


@dataclass(frozen=True, slots=True)
class IsolationSettings:
    """What holds for containers that say nothing about it (docs/isolation.md)."""

    baseline: str = "seawall"
    """A name of `node.containers.bundle.baseline`: seawall or docker."""

    pids_limit: int = 4096
    """Processes and threads of one container; 0: as many as the host can have."""


@dataclass(frozen=True, slots=True)
class UserSettings:
    """Which of the host's ids containers have (docs/userns.md)."""

    own: bool = True
    """Each container a range of its own, unless it asks for what only the host's can do."""

    ids: str = ""
    """FIRST:COUNT, …; empty: what /etc/subuid gives to `seawall`, else ids above 2³¹."""

    register: Path = Path("/run/seawall/ids")
    """The file on whose bytes the nodes of this machine hold locks of the ranges in use."""


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """Other OCI runtimes than ours (`node.containers.runtimes`)."""

    default: str = ""
    """Of a container that names none: a name, or a program's path. Empty: ours."""

    added: Mapping[str, str] = field(default_factory=dict)
    """Programs by name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One node. Two nodes with different homes run side by side: every name they give the kernel carries `tag`."""

    home: Path
    """Absolute and resolved; all durable state lives below it."""

    socket: Path
    insecure_registries: tuple[str, ...] = ()
    """HOST[:PORT] spoken to over plain HTTP or with an unverified certificate."""

    snapshotter: Literal["auto", "overlay", "vfs"] = "auto"
    bridge_name: str = ""
    bridge_subnet: str = ""
    """IPv4 CIDR; empty: the first free /16 of 172.16.0.0/12, remembered."""

    search_registry: str = ""
    """HOST[:PORT] asked by a search that names no registry; empty: such a search is refused."""

    init_path: str = ""
    """A static program that is process 1 under `--init`; empty: docker-init, tini-static or catatonit, if found."""

    log: LogSettings = field(default_factory=LogSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    collect: CollectSettings = field(default_factory=CollectSettings)
    sources: ImageSources = field(default_factory=ImageSources)
    restart_unhealthy: bool = False
    """Containers that become unhealthy are started again unless their label says no."""

    publish: PublishSettings = field(default_factory=PublishSettings)
    create_bind_sources: bool = True
    """`-v` makes a folder of the host that is missing, as Docker does; otherwise it is an error."""

    secrets_key: Path | None = None
    """What encrypts secrets; None: `secrets.key` in the home, made when the first secret is."""

    isolation: IsolationSettings = field(default_factory=IsolationSettings)
    rootless: RootlessSettings = field(default_factory=RootlessSettings)
    users: UserSettings = field(default_factory=UserSettings)

    cgroup_driver: str = "auto"
    """auto: systemd where it is process 1 and cgroups have version 2, else cgroupfs."""

    runtimes: RuntimeSettings = field(default_factory=RuntimeSettings)

    @classmethod
    def make(
        cls,
        home: str | Path,
        *,
        socket: str | Path | None = None,
        insecure_registries: tuple[str, ...] = (),
        snapshotter: str = "auto",
        bridge_name: str = "",
        bridge_subnet: str = "",
        search_registry: str = "",
        init_path: str = "",
        access: AccessSettings | None = None,
        log: LogSettings | None = None,
        collect: CollectSettings | None = None,
        sources: ImageSources | None = None,
        restart_unhealthy: bool = False,
        publish: PublishSettings | None = None,
        create_bind_sources: bool = True,
        secrets_key: str = "",
        runtimes: RuntimeSettings | None = None,
        isolation: IsolationSettings | None = None,
        cgroup_driver: str = "auto",
        rootless: RootlessSettings | None = None,
        users: UserSettings | None = None,
    ) -> "Settings":
        """The settings with what was left out filled in. Raises InvalidSettings."""
        root = Path(home).absolute().resolve()
        if snapshotter not in SNAPSHOTTERS:
            raise InvalidSettings(f"unknown snapshotter {snapshotter!r}: choose one of {', '.join(SNAPSHOTTERS)}")
        if cgroup_driver not in CGROUP_DRIVERS:
            names = ", ".join(CGROUP_DRIVERS)
            raise InvalidSettings(f"unknown cgroup driver {cgroup_driver[:50]!r}: choose one of {names}")
        bridge = bridge_name or f"sw{_tag(root)}"
        if len(bridge.encode()) > MAX_INTERFACE_NAME or "/" in bridge or bridge.strip() != bridge:
            raise InvalidSettings(f"{bridge!r} is not an interface name of at most {MAX_INTERFACE_NAME} bytes")
        path = Path(socket).absolute() if socket else root / "node.sock"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise InvalidSettings(f"the socket path {path} is longer than {MAX_SOCKET_PATH} bytes: give a shorter one")
        kind: Any = snapshotter
        return cls(
            root, path, insecure_registries, kind, bridge, bridge_subnet, search_registry,
            init_path=init_path,
            log=log or LogSettings(),
            access=access or AccessSettings(),
            collect=collect or CollectSettings(),
            sources=sources or ImageSources(),
            restart_unhealthy=restart_unhealthy,
            publish=publish or PublishSettings(),
            create_bind_sources=create_bind_sources,
            secrets_key=Path(secrets_key).absolute() if secrets_key else root / "secrets.key",
            runtimes=runtimes or RuntimeSettings(),
            isolation=isolation or IsolationSettings(),
            cgroup_driver=cgroup_driver,
            rootless=rootless or RootlessSettings(),
            users=users or UserSettings(),
        )  # fmt: skip

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], **flags: Any) -> "Settings":
        """Flags win over SEAWALL_NODE_* variables, which win over defaults. Raises InvalidSettings."""

        def pick(name: str, default: str = "") -> Any:
            return flags.get(name) or environment.get(f"SEAWALL_NODE_{name.upper()}", default)

        def words(name: str) -> tuple[str, ...]:
            return tuple(filter(None, flags.get(name) or pick(name).split(",")))

        registries = flags.get("insecure_registries") or pick("insecure_registries").split(",")
        seawall_home = environment.get("SEAWALL_HOME", ".seawall")
        return cls.make(
            pick("home") or Path(seawall_home) / "node",
            # The socket stands beside the node's own folder when nothing names either: <SEAWALL_HOME>/node.sock.
            socket=pick("socket") or (None if pick("home") else Path(seawall_home) / "node.sock"),
            insecure_registries=tuple(host for host in registries if host),
            snapshotter=pick("snapshotter", "auto"),
            bridge_name=pick("bridge"),
            bridge_subnet=pick("bridge_subnet"),
            search_registry=pick("search_registry"),
            init_path=pick("init_path"),
            access=parse_access({name: pick(name) for name in ("group", "access_rules", "listen", *_TLS)}),
            log=_log_settings(
                pick("log_driver", "json-file"),
                flags.get("log_opts") or pick("log_opts").split(","),
                pick("journal_socket"),
            ),
            collect=_collect_settings(pick("image_gc_unused"), pick("image_gc_disk"), words("image_gc_keep")),
            sources=ImageSources(words("registry_mirrors"),
                                 Path(pick("registries")).absolute() if pick("registries") else None,
                                 Path(pick("shared_layers")).absolute() if pick("shared_layers") else None),
            restart_unhealthy=flag(pick("restart_unhealthy")),
            publish=_publish_settings(words("publish_addresses"), past_firewall=flag(pick("publish_past_firewall"))),
            create_bind_sources=not flag(pick("no_create_bind_sources")),
            secrets_key=pick("secrets_key"),
            cgroup_driver=pick("cgroup_driver", "auto"),
            runtimes=_runtime_settings(pick("runtime"), words("runtimes")),
            isolation=_isolation_settings(pick("isolation", "seawall"), pick("default_pids_limit", "4096")),
            rootless=_rootless_settings(pick("rootless_network", "auto")),
            users=_user_settings(pick("userns", "private"), pick("userns_ids")),
        )

    @property
    def tag(self) -> str:
        """Eight hex digits that tell this home from others in names the whole kernel sees."""
        return _tag(self.home)

    @property
    def cgroup_parent(self) -> str:
        return f"seawall-{self.tag}"

    @property
    def nft_table(self) -> str:
        return f"seawall_{self.tag}"

    @property
    def ports_table(self) -> str:
        return f"seawall_{self.tag}_ports"

    @property
    def content(self) -> Path:
        return self.home / "content"

    @property
    def content_database(self) -> str:
        return f"sqlite+aiosqlite:///{self.home / 'content.db'}"

    @property
    def state_database(self) -> Path:
        return self.home / "state.db"

    @property
    def snapshots(self) -> Path:
        return self.home / "snapshots"

    @property
    def containers(self) -> Path:
        return self.home / "containers"

    @property
    def volumes(self) -> Path:
        return self.home / "volumes"

    @property
    def run(self) -> Path:
        return self.home / "run"


_TLS = ("tlscacert", "tlscert", "tlskey")


def parse_access(values: Mapping[str, str]) -> AccessSettings:
    """Of group, access_rules, listen, tlscacert, tlscert and tlskey. Raises InvalidSettings."""
    rules = Path(values["access_rules"]).absolute() if values["access_rules"] else None
    listen, files = values["listen"], [values[name] for name in _TLS]
    if not listen:
        if any(files):
            raise InvalidSettings("TLS files without --listen tcp://HOST:PORT: the unix socket needs none")
        return AccessSettings(values["group"], rules)
    if not all(files):
        missing = ", ".join(f"--{name}" for name in _TLS if not values[name])
        raise InvalidSettings(f"--listen needs {missing}: who may speak to this API is root on this machine, so others "
                              "must show a certificate")
    url = urlsplit(listen)
    try:
        port = url.port
    except ValueError:
        port = None
    if url.scheme != "tcp" or not url.hostname or not port or url.path or url.query:
        raise InvalidSettings(f"--listen {listen!r}: want tcp://HOST:PORT")
    authority, certificate, key = (Path(file).absolute() for file in files)
    return AccessSettings(values["group"], rules, RemoteSettings(url.hostname, port, authority, certificate, key))


def _isolation_settings(baseline: str, pids: str) -> IsolationSettings:
    """Raises InvalidSettings."""
    if baseline not in ISOLATIONS:
        raise InvalidSettings(f"unknown isolation {baseline[:50]!r}: choose one of {', '.join(ISOLATIONS)}")
    if not pids.isascii() or not pids.isdigit() or len(pids) > 9:
        raise InvalidSettings(f"--default-pids-limit {pids[:50]!r}: want a number; 0 is no limit")
    return IsolationSettings(baseline, int(pids))


def _rootless_settings(network: str) -> RootlessSettings:
    """Raises InvalidSettings."""
    if network not in UPLINKS:
        raise InvalidSettings(f"--rootless-network {network!r}: choose one of {', '.join(UPLINKS)}")
    return RootlessSettings(network)


def _user_settings(mode: str, ids: str) -> UserSettings:
    """Raises InvalidSettings."""
    if mode not in USERNS_MODES:
        raise InvalidSettings(f"--userns {mode[:50]!r}: choose one of {', '.join(USERNS_MODES)}")
    return UserSettings(mode == "private", ids)


def _publish_settings(addresses: tuple[str, ...], *, past_firewall: bool) -> PublishSettings:
    """Raises InvalidSettings."""
    try:
        return PublishSettings(tuple(str(ip_address(text.strip("[]"))) for text in addresses), past_firewall)
    except ValueError as error:
        raise InvalidSettings(f"--publish-address: {error}") from error


def _runtime_settings(default: str, words: Iterable[str]) -> RuntimeSettings:
    """`words`: NAME=PATH. Raises InvalidSettings."""
    added = {}
    for word in words:
        name, _, path = word.partition("=")
        if not _RUNTIME_NAME.fullmatch(name) or not path.startswith("/"):
            raise InvalidSettings(f"--add-runtime {word[:100]!r}: want NAME=/PATH/OF/PROGRAM")
        if name == "seawall":
            raise InvalidSettings("--add-runtime seawall: that name is this node's own runtime's")
        added[name] = path
    return RuntimeSettings(default, added)


_RUNTIME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def _collect_settings(unused: str, disk: str, keep: tuple[str, ...]) -> CollectSettings:
    """`unused` is like 720h or 30d, `disk` like 85%. Raises InvalidSettings."""
    period = None
    if unused:
        number, unit = unused[:-1], unused[-1]
        if unit not in _UNITS or not number.isascii() or not number.isdigit() or not 0 < int(number) < 10**6:
            raise InvalidSettings(f"--image-gc-unused {unused!r}: want a time like 12h or 30d")
        period = timedelta(**{_UNITS[unit]: int(number)})
    percent = disk.removesuffix("%") or "0"
    if not percent.isascii() or not percent.isdigit() or not 0 <= int(percent) <= 99:
        raise InvalidSettings(f"--image-gc-disk {disk!r}: want a share of the disk like 85%")
    return CollectSettings(period, int(percent), keep)


_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _log_settings(driver: str, words: Iterable[str], journal_socket: str) -> LogSettings:
    """`words`: NAME=VALUE. Whether the driver knows them is its own affair. Raises InvalidSettings."""
    options = {}
    for word in filter(None, words):
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InvalidSettings(f"a log option is NAME=VALUE, not {word[:50]!r}")
        options[name] = value
    return LogSettings(driver=driver, options=options, journal_socket=journal_socket or JOURNAL_SOCKET)
def flag(value: bool | str) -> bool:
    """Raises InvalidSettings."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower()
    if word not in ("", "0", "1", "no", "yes", "false", "true", "off", "on"):
        raise InvalidSettings(f"{value!r} is neither true nor false")
    return word in ("1", "yes", "true", "on")


def _tag(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:8]
