"""config.json (OCI runtime-spec 1.2) parsed into values; what this runtime does not do is refused, never ignored."""

from __future__ import annotations

import json
import os

from node.linux import capabilities
from node.runtime.record import record

SHM = "/dev/shm"
MAX_ID = (1 << 32) - 1
MAX_EXTENTS = 340
"""user_namespaces(7)."""

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "cgroup", "user")
PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")
_IPC_SYSCTLS = frozenset(("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
                          "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"))
_UNSUPPORTED = ("hooks", "solaris", "windows", "vm", "zos")
_UNSUPPORTED_LINUX = ("intelRdt", "mountLabel", "timeOffsets", "personality",
                      "netDevices", "memoryPolicy")
_UNSUPPORTED_PROCESS = ("apparmorProfile", "selinuxLabel", "scheduler", "ioPriority", "execCPUAffinity", "commandLine")


Extents = tuple[tuple[int, int, int], ...]
IdMap = tuple[Extents, Extents]
"""Of uids and of gids."""


class InvalidConfig(ValueError):
    """config.json holds something wrong or something this runtime does not do; the message names the field."""


def _foreign(source: str) -> bool:
    pid = source.removeprefix("/proc/").removesuffix(f"/root{SHM}")
    return pid.isdigit() and source == f"/proc/{pid}/root{SHM}"


@record
class Mount:
    destination: str
    kind: str
    source: str
    options: tuple[str, ...]
    id_map: IdMap | None
    """uidMappings and gidMappings, each (id on disk, id as seen on the host, how many)."""


@record
class Device:
    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


@record
class Process:
    """A process to run: the container's own or an exec's. `capabilities` maps a set's name to capability names."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    terminal: bool
    console: tuple[int, int]
    """Rows and columns; zeros: unset."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int | None
    capabilities: dict[str, tuple[str, ...]] | None
    no_new_privileges: bool
    rlimits: tuple[tuple[str, int, int], ...]
    oom_score_adj: int | None


@record
class Config:
    root: str
    read_only: bool
    process: Process
    hostname: str
    domainname: str
    mounts: tuple[Mount, ...]
    namespaces: dict[str, str]
    """Kind → path to join, "" for a new one; a kind that is absent is the host's."""

    devices: tuple[Device, ...]
    cgroup: str
    resources: dict[str, object]
    masked: tuple[str, ...]
    readonly: tuple[str, ...]
    sysctl: dict[str, str]
    seccomp: dict[str, object] | None
    propagation: str
    id_map: IdMap | None
    """Of the user namespace: (id inside, id outside, how many)."""

    def shared_sources(self) -> tuple[tuple[str, bool], ...]:
        """(source, whether with what is below) of binds whose later mounts the host shall see too."""
        return tuple((mount.source, "rbind" in mount.options) for mount in self.mounts
                     if "shared" in mount.options or "rshared" in mount.options)

    def foreign_sources(self) -> tuple[str, ...]:
        """Of /dev/shm, when it is that of another container: /proc/<pid>/root/dev/shm."""
        return tuple(mount.source for mount in self.mounts if mount.destination == SHM and _foreign(mount.source))


def read(path: str) -> Config:
    """Raises InvalidConfig and OSError."""
    with open(path, "rb") as file:
        try:
            document = json.load(file)
        except ValueError as error:
            raise InvalidConfig(f"config.json is not JSON: {error}") from error
    return parse(document, os.path.dirname(os.path.abspath(path)))


def parse(document: object, bundle: str) -> Config:
    """Raises InvalidConfig."""
    top = _object(document, "config.json")
    linux = _object(top.get("linux", {}), "linux")
    version = _text(top, "ociVersion", "config.json")
    if not version.startswith("1."):
        raise InvalidConfig(f"ociVersion {version!r} is not supported: this runtime knows 1.x")
    _refuse(top, _UNSUPPORTED, "")
    _refuse(linux, _UNSUPPORTED_LINUX, "linux.")
    root = _object(top.get("root"), "root")
    config = Config(
        root=os.path.join(bundle, _text(root, "path", "root")),
        read_only=bool(root.get("readonly", False)),
        process=process(top.get("process")),
        hostname=_text(top, "hostname", "config.json"),
        domainname=_text(top, "domainname", "config.json"),
        mounts=tuple(_mount(item) for item in _list(top, "mounts")),
        namespaces=_namespaces(linux),
        devices=tuple(_device(item) for item in _list(linux, "devices")),
        cgroup=_text(linux, "cgroupsPath", "linux"),
        resources=_object(linux.get("resources", {}), "linux.resources"),
        masked=_texts(linux, "maskedPaths"),
        readonly=_texts(linux, "readonlyPaths"),
        sysctl={str(key): str(value) for key, value in _object(linux.get("sysctl", {}), "linux.sysctl").items()},
        seccomp=_object(linux["seccomp"], "linux.seccomp") if linux.get("seccomp") else None,
        propagation=_text(linux, "rootfsPropagation", "linux"),
        id_map=_id_map(linux, "linux"),
    )
    _check(config)
    return config


def _refuse(item: dict[str, object], fields: tuple[str, ...], where: str) -> None:
    for field in fields:
        if item.get(field):
            raise InvalidConfig(f"{where}{field} is not supported yet")


def _check(config: Config) -> None:
    """What would reach beyond the container's own namespaces."""
    if not config.cgroup:
        raise InvalidConfig("linux.cgroupsPath is missing")
    if (config.hostname or config.domainname) and config.namespaces.get("uts") != "":
        raise InvalidConfig("a hostname or domainname needs a new uts namespace")
    user = config.namespaces.get("user")
    if user is None and config.id_map is not None:
        raise InvalidConfig("linux.uidMappings are given, but linux.namespaces has no user namespace")
    if user == "" and config.id_map is None:
        raise InvalidConfig("a new user namespace needs linux.uidMappings and linux.gidMappings")
    if user is None and any(mount.id_map is None and {"idmap", "ridmap"} & set(mount.options)
                            for mount in config.mounts):
        raise InvalidConfig("mounts[]: idmap needs uidMappings, for the container has no user namespace")
    if config.propagation and config.propagation not in PROPAGATIONS:
        raise InvalidConfig(f"unknown linux.rootfsPropagation {config.propagation!r}")
    for key in config.sysctl:
        if key.startswith("net."):
            kind = "network"
        elif key in _IPC_SYSCTLS or key.startswith("fs.mqueue."):
            kind = "ipc"
        else:
            raise InvalidConfig(f"sysctl {key} is not of a namespace: it would change the host")
        if kind not in config.namespaces:
            raise InvalidConfig(f"sysctl {key} would change the host: the container has no {kind} namespace")


def process(value: object) -> Process:
    """The `process` object. Raises InvalidConfig."""
    item = _object(value, "process")
    _refuse(item, _UNSUPPORTED_PROCESS, "process.")
    args = _texts(item, "args")
    if not args:
        raise InvalidConfig("process.args is empty: there is no command to run")
    cwd = _text(item, "cwd", "process")
    env = _texts(item, "env")
    for entry in env:
        if not entry.partition("=")[0] or "=" not in entry:
            raise InvalidConfig(f"process.env: {entry!r} is not NAME=VALUE")
    if not cwd.startswith("/"):
        raise InvalidConfig(f"process.cwd is not absolute: {cwd!r}")
    user = _object(item.get("user", {}), "process.user")
    console = _object(item.get("consoleSize", {}), "process.consoleSize")
    capabilities = item.get("capabilities")
    return Process(
        args=args, env=env, cwd=cwd, terminal=bool(item.get("terminal", False)),
        console=(_number(console, "height", 0), _number(console, "width", 0)),
        uid=_number(user, "uid", 0), gid=_number(user, "gid", 0),
        groups=tuple(_whole(group, "process.user.additionalGids") for group in _list(user, "additionalGids")),
        umask=_number(user, "umask", 0) if "umask" in user else None,
        capabilities=None if capabilities is None else _capabilities(capabilities),
        no_new_privileges=bool(item.get("noNewPrivileges", False)),
        rlimits=tuple(_rlimit(limit) for limit in _list(item, "rlimits")),
        oom_score_adj=_number(item, "oomScoreAdj", 0) if item.get("oomScoreAdj") is not None else None,
    )


def _capabilities(value: object) -> dict[str, tuple[str, ...]]:
    sets = _object(value, "process.capabilities")
    found = {kind: _texts(sets, kind) for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    for names in found.values():
        for name in names:
            if name not in capabilities.ALL:
                raise InvalidConfig(f"process.capabilities: unknown capability {name!r}")
    return found


def _rlimit(value: object) -> tuple[str, int, int]:
    limit = _object(value, "process.rlimits[]")
    return _text(limit, "type", "process.rlimits[]"), _number(limit, "soft", 0), _number(limit, "hard", 0)


def _mount(value: object) -> Mount:
    item = _object(value, "mounts[]")
    destination = _text(item, "destination", "mounts[]")
    if not destination.startswith("/"):
        raise InvalidConfig(f"mounts[].destination is not absolute: {destination!r}")
    if os.path.normpath(destination).strip("/") == "":
        raise InvalidConfig("mounts[].destination is the root itself")
    return Mount(destination, _text(item, "type", "mounts[]"), _text(item, "source", "mounts[]"),
                 _texts(item, "options"), _id_map(item, "mounts[]"))


def _id_map(item: dict[str, object], where: str) -> IdMap | None:
    uids, gids = _extents(item, "uidMappings", where), _extents(item, "gidMappings", where)
    if bool(uids) != bool(gids):
        raise InvalidConfig(f"{where}: uidMappings and gidMappings go together")
    return (uids, gids) if uids else None


def _extents(item: dict[str, object], field: str, where: str) -> Extents:
    extents = [_object(value, f"{where}.{field}[]") for value in _list(item, field)]
    found = tuple((_number(extent, "containerID", 0), _number(extent, "hostID", 0), _number(extent, "size", 0))
                  for extent in extents)
    for inside, outside, count in found:
        if count < 1 or inside < 0 or outside < 0 or max(inside, outside) + count > MAX_ID:
            raise InvalidConfig(f"{where}.{field}: {count} ids from {inside} and from {outside} are no ids")
    if len(found) > MAX_EXTENTS:
        raise InvalidConfig(f"{where}.{field} has more than {MAX_EXTENTS} extents, the kernel's limit")
    return found


def _namespaces(linux: dict[str, object]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in _list(linux, "namespaces"):
        item = _object(value, "linux.namespaces[]")
        kind = _text(item, "type", "linux.namespaces[]")
        if kind not in NAMESPACES:
            raise InvalidConfig(f"linux.namespaces: a {kind} namespace is not supported yet")
        if kind in found:
            raise InvalidConfig(f"linux.namespaces names {kind} twice")
        found[kind] = _text(item, "path", "linux.namespaces[]")
    if found.get("mount") != "":
        raise InvalidConfig("linux.namespaces needs a new mount namespace")
    return found


def _device(value: object) -> Device:
    item = _object(value, "linux.devices[]")
    kind = _text(item, "type", "linux.devices[]")
    if kind not in ("c", "u", "b", "p"):
        raise InvalidConfig(f"linux.devices: unknown type {kind!r}")
    return Device(_text(item, "path", "linux.devices[]"), kind, _number(item, "major", 0), _number(item, "minor", 0),
                  _number(item, "fileMode", 0o666), _number(item, "uid", 0), _number(item, "gid", 0))


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidConfig(f"{where} is not an object")
    return value


def _list(item: dict[str, object], field: str) -> list[object]:
    value = item.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidConfig(f"{field} is not a list")
    return value


def _text(item: dict[str, object], field: str, where: str) -> str:
    value = item.get(field, "")
    if not isinstance(value, str) or "\0" in value:
        raise InvalidConfig(f"{where}.{field} is not a string")
    return value


def _texts(item: dict[str, object], field: str) -> tuple[str, ...]:
    values = _list(item, field)
    if not all(isinstance(value, str) and "\0" not in value for value in values):
        raise InvalidConfig(f"{field} is not a list of strings")
    return tuple(str(value) for value in values)


def _whole(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < -(1 << 63) or value > (1 << 64) - 1:
        raise InvalidConfig(f"{where} is not a whole number")
    return value


def _number(item: dict[str, object], field: str, default: int) -> int:
    value = item.get(field)
    return default if value is None else _whole(value, field)
