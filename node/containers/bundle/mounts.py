"""The `mounts` of config.json: what every container has, its own files, and what the user asked for.

Order matters: a mount hides what was mounted below its destination before, so user mounts come last and shallow first.
A user mount on a default's destination replaces the default.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from node.containers.errors import InvalidSpec
from node.containers.initprogram import TARGET as INIT_TARGET
from node.containers.model import Container, MountPoint

FILES = ("resolv.conf", "hostname", "hosts")
SHM = "/dev/shm"  # noqa: S108
TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")


def mounts(container: Container, *, cgroup_private: bool, init: str = "", shm_of: int = 0) -> list[dict[str, Any]]:
    spec = container.spec
    wanted = [_user_mount(point) for point in sorted(container.mounts, key=lambda m: m.target.count("/"))]
    taken = {mount["destination"] for mount in wanted}
    base = _defaults(spec.resources.shm_size, privileged=spec.security.privileged, ipc=spec.namespaces.ipc)
    if shm_of:
        # The other container's: the runtime takes it from inside that container's mounts (runtime/place.py).
        base = [mount for mount in base if mount["destination"] != SHM]
        base.append(_mount(SHM, "bind", ["bind", "nosuid", "noexec", "nodev"], f"/proc/{shm_of}/root{SHM}"))
    if not cgroup_private:
        base = [mount for mount in base if mount["type"] != "cgroup"] + [_cgroup(spec.security.privileged)]
    files = [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": f"{container.directory}/{name}",
            "options": ["rbind", "rprivate"],
        }
        for name in FILES
    ]
    if init:
        files.append(_mount(INIT_TARGET, "bind", ["bind", "ro", "nosuid", "nodev", "rprivate"], init))
    return [mount for mount in [*base, *files] if mount["destination"] not in taken] + wanted


def _defaults(shm_size: int, *, privileged: bool, ipc: str) -> list[dict[str, Any]]:
    sys_mode = "rw" if privileged else "ro"
    shared = ["rbind", "nosuid", "noexec", "nodev"]
    host_ipc = ipc == "host"
    shm = ["nosuid", "noexec", "nodev", "mode=1777", f"size={shm_size or 64 * 1024 * 1024}"]
    result = [
        _mount("/proc", "proc", ["nosuid", "noexec", "nodev"]),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        _mount("/sys", "sysfs", ["nosuid", "noexec", "nodev", sys_mode]),
        _cgroup(privileged),
    ]
    if host_ipc:
        result.append(_mount("/dev/mqueue", "bind", shared, "/dev/mqueue"))
        result.append(_mount("/dev/shm", "bind", shared, "/dev/shm"))  # noqa: S108
    else:
        result.append(_mount("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]))
        if ipc != "none":
            result.append(_mount("/dev/shm", "tmpfs", shm, "shm"))  # noqa: S108
    return result


def _cgroup(privileged: bool) -> dict[str, Any]:
    return _mount("/sys/fs/cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "rw" if privileged else "ro"])


def _mount(destination: str, kind: str, options: Sequence[str], source: str = "") -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}


def _user_mount(point: MountPoint) -> dict[str, Any]:
    if point.kind == "tmpfs":
        return _mount(point.target, "tmpfs", [*point.options, *(["ro"] if point.read_only else [])])
    options = ["rbind" if point.recursive else "bind", point.propagation or "rprivate"]
    if point.read_only:
        # rro: read-only for what is mounted below as well (mount_setattr AT_RECURSIVE); a plain ro is not.
        options.append("rro" if point.recursive else "ro")
    return _mount(point.target, "bind", options, point.source)


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
    {"exec", "noexec", "suid", "nosuid", "dev", "nodev", "ro", "rw", "sync", "async", "dirsync", "remount", "mand",
     "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
     "defaults", "size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "mpol"}
)  # fmt: skip
