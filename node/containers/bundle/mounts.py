"""The `mounts` of config.json: what every container has, its own files, and what the user asked for.

Order matters: a mount hides what was mounted below its destination before, so user mounts come last and shallow first.
A user mount on a default's destination replaces the default.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from node.containers.bundle.ownids import OwnIds
from node.containers.errors import InvalidSpec
from node.containers.idmap import Extents, IdMap, exchange, parse_idmap
from node.containers.initprogram import TARGET as INIT_TARGET
from node.containers.model import Container, MountPoint
from node.linux.usernamespaces import INITIAL, LAST_GROUP

FILES = ("resolv.conf", "hostname", "hosts")
IMAGES, HELD_FILES = "images", "files"
"""Folders in a container's own."""

SHM = "/dev/shm"  # noqa: S108
TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
SUBDIR = "X-mount.subdir="
Owner = Callable[[str], tuple[int, int]]


def _nobody(_path: str) -> tuple[int, int]:
    return 0, 0


def mounts(
    container: Container, *, cgroup_private: bool, init: str = "", user: tuple[int, int] = (0, 0),
    owner: Owner = _nobody, shm_of: int = 0, own: OwnIds | None = None, cgroup_writable: bool = False,
    proc: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """`user`: uid and gid of the container's process; `owner` says those of a path on the host; `own`: its ids when
    they are not the host's; `proc`: further options of /proc."""
    spec = container.spec
    wanted = [
        mount
        for point, source in sorted(
            zip(container.mounts, _sources(container), strict=True), key=lambda pair: pair[0].target.count("/")
        )
        for mount in _shown(point, source, _id_map(point, user, owner), own)
    ]
    taken = {mount["destination"] for mount in wanted}
    cgroup = _cgroup(writable=spec.security.privileged or cgroup_writable)
    base = _defaults(spec.resources.shm_size, cgroup, proc, privileged=spec.security.privileged,
                     ipc=spec.namespaces.ipc)  # fmt: skip
    if spec.namespaces.pid == "host" and not INITIAL:
        # Of a pid namespace that is not ours the kernel gives us no new procfs; the one that is mounted shows the same.
        base[1] = _mount("/proc", "bind", ["rbind", "nosuid", "noexec", "nodev"], "/proc")
    if shm_of:
        # The other container's: the runtime takes it from inside that container's mounts (runtime/place.py).
        base = [mount for mount in base if mount["destination"] != SHM]
        base.append(_mount(SHM, "bind", ["bind", "nosuid", "noexec", "nodev"], f"/proc/{shm_of}/root{SHM}"))
    if not cgroup_private:
        base = [mount for mount in base if mount["type"] != "cgroup"] + [cgroup]
    files = [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": f"{container.directory}/{name}",
            "options": ["rbind", "rprivate", *(["idmap"] if own else [])],
        }
        for name in FILES
    ]
    if init:
        files.append(_mount(INIT_TARGET, "bind", ["bind", "ro", "nosuid", "nodev", "rprivate"], init))
    return [mount for mount in [*base, *files] if mount["destination"] not in taken] + wanted


def _defaults(
    shm_size: int, cgroup: dict[str, Any], proc: Sequence[str], *, privileged: bool, ipc: str
) -> list[dict[str, Any]]:
    sys_mode = "rw" if privileged else "ro"
    tty = ["gid=5"] if LAST_GROUP >= 5 else []  # where that group is
    shared = ["rbind", "nosuid", "noexec", "nodev"]
    host_ipc = ipc == "host"
    shm = ["nosuid", "noexec", "nodev", "mode=1777", f"size={shm_size or 64 * 1024 * 1024}"]
    result = [
        # First: it is made ahead of the others, and any other place would have to be mounted anew (runtime/rootfs.py).
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/proc", "proc", ["nosuid", "noexec", "nodev", *proc]),
        _mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty]),
        _mount("/sys", "sysfs", ["nosuid", "noexec", "nodev", sys_mode]),
        cgroup,
    ]
    # A new one shows the queues of the IPC namespace we are in, be it the host's, which may have none mounted.
    result.append(_mount("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]))
    if host_ipc:
        result.append(_mount("/dev/shm", "bind", shared, "/dev/shm"))  # noqa: S108
    elif ipc != "none":
        result.append(_mount("/dev/shm", "tmpfs", shm, "shm"))  # noqa: S108
    return result


def _cgroup(*, writable: bool) -> dict[str, Any]:
    return _mount("/sys/fs/cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "rw" if writable else "ro"])


def _mount(destination: str, kind: str, options: Sequence[str], source: str = "") -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}


def _shown(point: MountPoint, source: str, id_map: IdMap | None, own: OwnIds | None) -> list[dict[str, Any]]:
    """Images, secrets and configs have been given the container's ids by its monitor."""
    if own is None or point.kind not in ("bind", "volume"):
        return [_user_mount(point, source, id_map)]
    if id_map is not None:
        return [_user_mount(point, source, own.outside(id_map))]
    return own.bind(_user_mount(point, source, None), recursive=point.recursive)


def _user_mount(point: MountPoint, source: str, id_map: IdMap | None) -> dict[str, Any]:
    if point.kind == "tmpfs":
        return _mount(point.target, "tmpfs", [*point.options, *(["ro"] if point.read_only else [])])
    options = ["rbind" if point.recursive else "bind", point.propagation or "rprivate"]
    if point.read_only:
        # rro: read-only for what is mounted below as well (mount_setattr AT_RECURSIVE); a plain ro is not.
        options.append("rro" if point.recursive and point.read_only_below else "ro")
    if point.kind in ("secret", "config"):
        options += ["nosuid", "nodev", "noexec"]
    if point.subpath:
        options.append(f"{SUBDIR}{point.subpath}")
    if id_map is None:
        return _mount(point.target, "bind", options, source)
    options.append("ridmap" if point.recursive else "idmap")
    return _mount(point.target, "bind", options, source) | {
        "uidMappings": _extents(id_map.uids), "gidMappings": _extents(id_map.gids),
    }  # fmt: skip


def _extents(extents: Extents) -> list[dict[str, int]]:
    return [{"containerID": disk, "hostID": seen, "size": count} for disk, seen, count in extents]


def _sources(container: Container) -> list[str]:
    """Where each mount comes from. Images and files have been put below the container's folder by its monitor, where
    the host does not see them."""
    sources, images, held = [], 0, 0
    for point in container.mounts:
        if point.kind == "image":
            sources.append(f"{container.directory}/{IMAGES}/{images}")
            images += 1
        elif point.kind in ("secret", "config"):
            sources.append(f"{container.directory}/{HELD_FILES}/{held}")
            held += 1
        else:
            sources.append(point.source)
    return sources


def _id_map(point: MountPoint, user: tuple[int, int], owner: Owner) -> IdMap | None:
    if not point.idmap:
        return None
    return parse_idmap(point.idmap) or exchange(owner(point.source), user)


def tmpfs_points(tmpfs: Mapping[str, str]) -> list[MountPoint]:
    """Of `--tmpfs PATH[:OPTIONS]`. Raises InvalidSpec."""
    return [
        MountPoint("tmpfs", target, mode=options, options=tmpfs_options(options.split(",")))
        for target, options in tmpfs.items()
    ]


def tmpfs_options(options: Sequence[str]) -> tuple[str, ...]:
    """Docker's defaults where the user did not say the contrary. Raises InvalidSpec for what tmpfs does not know."""
    given = tuple(option for option in options if option)
    for option in given:
        name = option.partition("=")[0]
        if name not in TMPFS_KNOWN:
            raise InvalidSpec(f'invalid tmpfs option ["{option}"]')
    opposite = {"noexec": "exec", "nosuid": "suid", "nodev": "dev"}
    return tuple(option for option in TMPFS_DEFAULTS if opposite[option] not in given and option not in given) + given


TMPFS_KNOWN = frozenset(
    {"exec", "noexec", "suid", "nosuid", "dev", "nodev", "ro", "rw", "sync", "async", "dirsync", "mand",
     "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
     "defaults", "size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "mpol"}
)  # fmt: skip
