"""The bundle that another runtime gets: our config.json with nothing in it that only we, or only newer ones, know."""

from __future__ import annotations

import json
import os
import stat

from node.linux import syscalls as sys
from node.runtime import mountplan, rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.identity import UserNamespace
    from node.runtime.job import Job

MOUNTS = "mounts"
VERSION = "1.0.2"
"""Older runtimes refuse a newer one; what we write that is newer they either know or have no use for."""

_OURS = frozenset(("idmap", "ridmap"))


def write(
    job: Job, folder: str, trees: dict[int, int], id_maps: dict[object, int], user: UserNamespace | None
) -> list[str]:
    """Write `<folder>/config.json`, and mount below the folder what the runtime is to bind from there: binds that are
    id-mapped, shared with the host, part of a folder or another container's. Gives the places of these mounts; they
    are of this process's mount namespace. Raises OSError."""
    with open(os.path.join(job.bundle, "config.json"), "rb") as file:
        document = json.load(file)
    document["ociVersion"] = VERSION
    document["root"]["path"] = job.config.root
    steps = mountplan.plan(job.config)
    places = []
    for number, (item, step) in enumerate(zip(document["mounts"], steps, strict=True)):
        if step.kind != "bind" or not (step.id_map or step.subdir or number in trees):
            continue
        owner = user.fd if user is not None and step.id_map == mountplan.CONTAINER else id_maps.get(step.id_map, -1)
        tree = rootfs.open_source(step, owner, trees.pop(number, None))
        places.append(_stand(tree, os.path.join(folder, MOUNTS), str(number)))
        os.close(tree)
        _point_at(item, places[-1])
    for fd in (*trees.values(), *id_maps.values()):
        os.close(fd)
    _simplify_devices(document["linux"].get("resources") or {})
    path = document["linux"]["cgroupsPath"]
    if not by_systemd(path):
        # Ours is relative to the hierarchies' roots, theirs to the group they run in unless it is absolute.
        document["linux"]["cgroupsPath"] = f"/{path.strip('/')}"
    _write(os.path.join(folder, "config.json"), document)
    return places


def _simplify_devices(resources: dict[str, object]) -> None:
    """Access to a single device that is taken back after mknod of any was granted: runc cannot say that on version 1.
    What remains is its mknod; to open it nothing grants."""
    rules = resources.get("devices")
    if isinstance(rules, list):
        resources["devices"] = [rule for rule in rules if rule.get("allow") or rule.get("major") in (None, -1)]


def by_systemd(path: str) -> bool:
    """Whether a cgroup's path is slice:prefix:name, for systemd to make."""
    return path.count(":") == 2


def _stand(tree: int, folder: str, name: str) -> str:
    """The tree, mounted on a folder or file made for it."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    top = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            try:
                os.rmdir(name, dir_fd=top)
            except FileNotFoundError:
                pass
            except NotADirectoryError:
                os.unlink(name, dir_fd=top)
            os.mkdir(name, 0o700, dir_fd=top)
        else:
            try:
                os.unlink(name, dir_fd=top)
            except FileNotFoundError:
                pass
            except IsADirectoryError:
                os.rmdir(name, dir_fd=top)
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=top))
        place = sys.openat2(top, name, os.O_PATH | os.O_NOFOLLOW)
        sys.move_mount(tree, place)
        os.close(place)
    finally:
        os.close(top)
    return os.path.join(folder, name)


def _point_at(item: dict[str, object], place: str) -> None:
    item["source"] = place
    options = item.get("options")
    assert isinstance(options, list)
    item["options"] = [option for option in options if option not in _OURS and not option.startswith(mountplan.SUBDIR)]
    item.pop("uidMappings", None)
    item.pop("gidMappings", None)


def _write(path: str, document: object) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(document, file)
