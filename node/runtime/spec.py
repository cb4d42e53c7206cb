"""config.json (OCI runtime-spec 1.2) parsed into values; what this runtime does not do is refused, never ignored.

Properties that the specification does not know are ignored, as it demands (config.md, "Extensibility").
"""

from __future__ import annotations

import os

from node.runtime import hooks
from node.runtime.fields import (
    MAX_ID,
    InvalidConfig,
    absolute,
    flag,
    list_of,
    number,
    object_of,
    one_of,
    section,
    text,
    texts,
    whole,
)
from node.runtime.processspec import NOTHING, Process, process
from node.runtime.record import record

__all__ = ("Config", "Device", "Extents", "IdMap", "InvalidConfig", "Mount", "Process", "parse", "process", "read")

SHM = "/dev/shm"
MAX_EXTENTS = 340
"""user_namespaces(7)."""

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "cgroup", "user", "time")
PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")
PERSONALITIES = {"LINUX": 0, "LINUX32": 8}
CLOCKS = {"monotonic": 1, "boottime": 7}
_IPC_SYSCTLS = frozenset(("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
                          "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"))
_UTS_SYSCTLS = frozenset(("kernel.domainname",))
_OTHER_PLATFORMS = ("solaris", "windows", "vm", "zos", "freebsd")
_NOT_DONE = {
    "intelRdt": "this runtime makes no resctrl groups",
    "netDevices": "this runtime moves no network devices",
    "memoryPolicy": "this runtime sets no memory policy",
}
Extents = tuple[tuple[int, int, int], ...]
IdMap = tuple[Extents, Extents]
"""Of uids and of gids."""


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
class Config:
    version: str
    bundle: str
    root: str
    read_only: bool
    process: Process
    """Without args where there is none."""

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
    """Of the root, a key of mountplan.PROPAGATION or ""."""

    id_map: IdMap | None
    """Of the user namespace: (id inside, id outside, how many)."""

    time_offsets: tuple[tuple[int, int, int], ...]
    """(clock, seconds, nanoseconds)."""

    personality: int | None
    mount_label: str
    hooks: dict[str, tuple[hooks.Hook, ...]]
    annotations: dict[str, str]

    def shared_sources(self) -> tuple[tuple[int, str, bool], ...]:
        """(number, source, whether with what is below) of binds whose later mounts the host shall see too."""
        return tuple((number, mount.source, "rbind" in mount.options) for number, mount in enumerate(self.mounts)
                     if {"shared", "rshared"} & set(mount.options) and "remount" not in mount.options
                     and (mount.kind == "bind" or {"bind", "rbind"} & set(mount.options)))

    def foreign_sources(self) -> tuple[tuple[int, str], ...]:
        """(number, source) of /dev/shm, when it is that of another container: /proc/<pid>/root/dev/shm."""
        return tuple((number, mount.source) for number, mount in enumerate(self.mounts)
                     if mount.destination == SHM and _foreign(mount.source))


def read(path: str) -> Config:
    """Raises InvalidConfig and OSError."""
    import json  # seawall-runtime, which starts anew for each container, has its own way (jsontext)

    with open(path, "rb") as file:
        try:
            document = json.load(file)
        except (ValueError, RecursionError) as error:
            raise InvalidConfig(f"config.json is not JSON: {error}") from error
    return parse(document, os.path.dirname(os.path.abspath(path)))


def parse(document: object, bundle: str) -> Config:
    """`bundle`: the folder that relative paths start from. Raises InvalidConfig."""
    top = object_of(document, "config.json")
    linux = section(top, "linux", "")
    version = _version(text(top, "ociVersion", "config.json"))
    _refuse(top, linux)
    root = object_of(top.get("root"), "root")
    if not text(root, "path", "root"):
        raise InvalidConfig("root.path is missing")
    config = Config(
        version=version,
        bundle=bundle,
        root=os.path.join(bundle, text(root, "path", "root")),
        read_only=flag(root, "readonly", "root"),
        process=NOTHING if "process" not in top else process(top["process"]),
        hostname=text(top, "hostname", "config.json"),
        domainname=text(top, "domainname", "config.json"),
        mounts=tuple(_mount(item, bundle) for item in list_of(top, "mounts")),
        namespaces=_namespaces(linux),
        devices=tuple(_device(item) for item in list_of(linux, "devices")),
        cgroup=text(linux, "cgroupsPath", "linux"),
        resources=section(linux, "resources", "linux"),
        masked=_paths(linux, "maskedPaths"),
        readonly=_paths(linux, "readonlyPaths"),
        sysctl=_sysctls(linux),
        seccomp=section(linux, "seccomp", "linux") or None,
        propagation=text(linux, "rootfsPropagation", "linux"),
        id_map=_id_map(linux, "linux"),
        time_offsets=_time_offsets(linux),
        personality=_personality(linux),
        mount_label=text(linux, "mountLabel", "linux"),
        hooks=_hooks(top.get("hooks")),
        annotations=_annotations(top),
    )
    _check(config)
    return config


def _hooks(value: object) -> dict[str, tuple[hooks.Hook, ...]]:
    try:
        return hooks.parse(value)
    except hooks.InvalidHook as error:
        raise InvalidConfig(str(error)) from error


def _version(version: str) -> str:
    numbers = version.partition("+")[0].partition("-")[0].split(".")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers) or numbers[0] != "1":
        raise InvalidConfig(f"ociVersion {version[:100]!r} is not supported: this runtime knows 1.x.y")
    return version


def _refuse(top: dict[str, object], linux: dict[str, object]) -> None:
    for field in _OTHER_PLATFORMS:
        if top.get(field):
            raise InvalidConfig(f"{field} is another platform's: this runtime is Linux'")
    for field, reason in _NOT_DONE.items():
        if linux.get(field):
            raise InvalidConfig(f"linux.{field} is not supported: {reason}")


def _check(config: Config) -> None:
    """What contradicts itself, or would reach beyond the container's own namespaces."""
    if not config.cgroup:
        raise InvalidConfig("linux.cgroupsPath is missing")
    if (config.hostname or config.domainname) and "uts" not in config.namespaces:
        raise InvalidConfig("a hostname or domainname needs a uts namespace: it would change the host's")
    if max(len(config.hostname.encode()), len(config.domainname.encode())) > 64:
        raise InvalidConfig("a hostname or domainname has more than 64 bytes")
    _check_users(config)
    if config.time_offsets and config.namespaces.get("time") != "":
        raise InvalidConfig("linux.timeOffsets need a new time namespace")
    if config.propagation and config.propagation not in PROPAGATIONS:
        raise InvalidConfig(f"unknown linux.rootfsPropagation {config.propagation!r}")
    for key in config.sysctl:
        kind = sysctl_namespace(key)
        if not kind:
            raise InvalidConfig(f"sysctl {key} is not of a namespace: it would change the host")
        if kind not in config.namespaces:
            raise InvalidConfig(f"sysctl {key} would change the host: the container has no {kind} namespace")


def _check_users(config: Config) -> None:
    user = config.namespaces.get("user")
    if user is not None and config.namespaces.get("mount") != "":
        raise InvalidConfig("a user namespace needs a new mount namespace: in no other may its root mount anything")
    if user is None and config.id_map is not None:
        raise InvalidConfig("linux.uidMappings are given, but linux.namespaces has no user namespace")
    if user == "" and config.id_map is None:
        raise InvalidConfig("a new user namespace needs linux.uidMappings and linux.gidMappings")
    if user is None and any(mount.id_map is None and {"idmap", "ridmap"} & set(mount.options)
                            for mount in config.mounts):
        raise InvalidConfig("mounts[]: idmap needs uidMappings, for the container has no user namespace")


def sysctl_namespace(key: str) -> str:
    """The kind of namespace that holds a sysctl, "" where it is the host's."""
    if key.startswith("net."):
        return "network"
    if key in _IPC_SYSCTLS or key.startswith("fs.mqueue."):
        return "ipc"
    return "uts" if key in _UTS_SYSCTLS else ""


def sysctl_path(key: str) -> str:
    """Below /proc/sys. Raises InvalidConfig: one that leads out of the folder that `sysctl_namespace` judges it by
    (net.//.kernel.core_pattern) would be the host's."""
    path = key.translate({ord("."): "/", ord("/"): "."})
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise InvalidConfig(f"linux.sysctl: {key[:100]!r} is no name of a sysctl")
    return path


def _sysctls(linux: dict[str, object]) -> dict[str, str]:
    """Keys as sysctl(8) takes them: with a slash before any dot (net/ipv4/conf/eth0.1/…) dots belong to names."""
    found = {}
    for key, value in section(linux, "sysctl", "linux").items():
        if not isinstance(value, str):
            raise InvalidConfig(f"linux.sysctl: the value of {key[:100]!r} is not a string")
        if "\0" in key + value or not key:
            raise InvalidConfig("linux.sysctl holds an impossible name or value")
        if 0 <= key.find("/") < (key.find(".") if "." in key else len(key)):
            key = key.translate({ord("/"): ".", ord("."): "/"})
        sysctl_path(key)
        found[key] = value
    return found


def _annotations(top: dict[str, object]) -> dict[str, str]:
    found = {}
    for key, value in section(top, "annotations", "").items():
        if not key or not isinstance(value, str):
            raise InvalidConfig("annotations: keys are strings that are not empty, values are strings")
        found[key] = value
    return found


def _paths(linux: dict[str, object], field: str) -> tuple[str, ...]:
    paths = texts(linux, field)
    for path in paths:
        if not path.startswith("/"):
            raise InvalidConfig(f"linux.{field}: {path!r} is not absolute")
    return paths


def _mount(value: object, bundle: str) -> Mount:
    item = object_of(value, "mounts[]")
    destination = text(item, "destination", "mounts[]")
    if not destination:
        raise InvalidConfig("mounts[].destination is missing")
    # Relative ones are relative to the root (config.md, "Mounts": an older habit).
    destination = destination if destination.startswith("/") else f"/{destination}"
    if os.path.normpath(destination).strip("/") == "":
        raise InvalidConfig("mounts[].destination is the root itself")
    kind, source = text(item, "type", "mounts[]"), text(item, "source", "mounts[]")
    options = texts(item, "options")
    if source and not source.startswith("/") and (kind == "bind" or {"bind", "rbind"} & set(options)):
        source = os.path.join(bundle, source)
    return Mount(destination, kind, source, options, _id_map(item, "mounts[]"))


def _id_map(item: dict[str, object], where: str) -> IdMap | None:
    uids, gids = _extents(item, "uidMappings", where), _extents(item, "gidMappings", where)
    if bool(uids) != bool(gids):
        raise InvalidConfig(f"{where}: uidMappings and gidMappings go together")
    return (uids, gids) if uids else None


def _extents(item: dict[str, object], field: str, where: str) -> Extents:
    extents = [object_of(value, f"{where}.{field}[]") for value in list_of(item, field)]
    found = tuple((number(extent, "containerID"), number(extent, "hostID"), number(extent, "size"))
                  for extent in extents)
    for inside, outside, count in found:
        if count < 1 or inside < 0 or outside < 0 or max(inside, outside) + count > MAX_ID:
            raise InvalidConfig(f"{where}.{field}: {count} ids from {inside} and from {outside} are no ids")
    if len(found) > MAX_EXTENTS:
        raise InvalidConfig(f"{where}.{field} has more than {MAX_EXTENTS} extents, the kernel's limit")
    for side in (0, 1):
        ordered = sorted((extent[side], extent[2]) for extent in found)
        end = 0
        for first, count in ordered:
            if first < end:
                raise InvalidConfig(f"{where}.{field}: id {first} is mapped twice")
            end = first + count
    return found


def _namespaces(linux: dict[str, object]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in list_of(linux, "namespaces"):
        item = object_of(value, "linux.namespaces[]")
        kind = text(item, "type", "linux.namespaces[]")
        if kind not in NAMESPACES:
            raise InvalidConfig(f"linux.namespaces: unknown type {kind[:100]!r}")
        if kind in found:
            raise InvalidConfig(f"linux.namespaces names {kind} twice")
        path = text(item, "path", "linux.namespaces[]")
        if path and not path.startswith("/"):
            raise InvalidConfig(f"linux.namespaces: the path of {kind} is not absolute: {path!r}")
        found[kind] = path
    return found


def _time_offsets(linux: dict[str, object]) -> tuple[tuple[int, int, int], ...]:
    found = []
    for clock, value in section(linux, "timeOffsets", "linux").items():
        identity = one_of(clock, CLOCKS, "linux.timeOffsets")
        offset = object_of(value, f"linux.timeOffsets.{clock}")
        found.append((identity, number(offset, "secs"), number(offset, "nanosecs", 0, 0, 999_999_999)))
    return tuple(found)


def _personality(linux: dict[str, object]) -> int | None:
    if linux.get("personality") is None:
        return None
    item = section(linux, "personality", "linux")
    if list_of(item, "flags"):
        raise InvalidConfig("linux.personality.flags: none are defined")
    return one_of(text(item, "domain", "linux.personality"), PERSONALITIES, "linux.personality.domain")


def _device(value: object) -> Device:
    item = object_of(value, "linux.devices[]")
    kind = text(item, "type", "linux.devices[]")
    if kind not in ("c", "u", "b", "p"):
        raise InvalidConfig(f"linux.devices: unknown type {kind[:100]!r}")
    if kind != "p":
        for field in ("major", "minor"):
            whole(item.get(field), f"linux.devices[].{field}")
    path = os.path.normpath(absolute(item, "path", "linux.devices[]"))
    if path.strip("/") == "":
        raise InvalidConfig("linux.devices[].path is the root itself")
    return Device(path, kind, number(item, "major", 0, 0, (1 << 12) - 1), number(item, "minor", 0, 0, (1 << 20) - 1),
                  number(item, "fileMode", 0o666, 0, 0o7777), number(item, "uid", 0, 0, MAX_ID - 1),
                  number(item, "gid", 0, 0, MAX_ID - 1))
