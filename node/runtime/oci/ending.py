"""The end of a container: its processes, its group, its hooks, its folder. Also of one whose making failed."""

from __future__ import annotations

import os
import select

from node.linux.cgroups import CgroupError
from node.runtime import jsontext
from node.runtime.oci import store
from node.runtime.oci.failure import Failure, Journal, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from node.linux.cgroups.store import Cgroups
    from node.runtime.oci.store import Container, Made, Store
else:
    import _signal

PARENT_GROUP = "seawall-runtime"
_PATIENCE = 10_000
"""Milliseconds that a killed process gets to end."""


def state(made: Made, status: str) -> dict[str, object]:
    """The state of runtime.md, which hooks get too."""
    return {"ociVersion": made.version, "id": made.id, "pid": 0 if status == "stopped" else made.pid, "status": status,
            "bundle": made.bundle, "rootfs": made.rootfs, "created": made.created, "owner": made.owner,
            "annotations": made.annotations}


def destroy(shelf: Store, container: Container, made: Made | None, groups: Cgroups, journal: Journal) -> None:
    """Kill what still runs, take everything away. What does not go is a warning, and the next delete's work."""
    path = made.cgroup if made is not None else _group_of(container)
    if made is not None and store.began(made.pid) == made.began:
        end_process(made)
    if path:
        remove_group(groups, path)
    if made is not None:
        run_hooks("poststop", container, made, "stopped", journal)
    shelf.remove(container)


def end_process(made: Made) -> None:
    """SIGKILL to its first process, and wait until it is gone."""
    try:
        fd = store.open_process(made)
    except Failure:
        return
    try:
        _signal.pidfd_send_signal(fd, 9)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(_PATIENCE):
            raise Failure("the container's process does not die")
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def remove_group(groups: Cgroups, path: str) -> None:
    group = groups.open(path)
    try:
        group.kill()
        group.delete()
        if path.startswith(f"{PARENT_GROUP}/"):
            groups.prune(PARENT_GROUP)
    except CgroupError as error:
        raise Failure(reason(error)) from error


def run_hooks(kind: str, container: Container, made: Made, status: str, journal: Journal) -> None:
    """Those after the fact: poststart and poststop. A failure is told and changes nothing (runtime.md, lifecycle)."""
    config = jsontext.loads(container.load(store.CONFIG))
    if not isinstance(config, dict) or not config.get("hooks"):
        return
    from node.runtime import hooks

    data = jsontext.dumps(state(made, status)).encode()
    for number, hook in enumerate(hooks.parse(config["hooks"]).get(kind, ())):
        try:
            hooks.run(hook, data, f"error running {kind} hook #{number}")
        except hooks.HookFailed as error:
            journal.warning(str(error))


def _group_of(container: Container) -> str:
    """Of a container whose create was killed."""
    try:
        config = jsontext.loads(container.load(store.CONFIG))
    except (FileNotFoundError, ValueError):
        return ""
    linux = config.get("linux", {}) if isinstance(config, dict) else {}
    return group_path(linux.get("cgroupsPath", "") if isinstance(linux, dict) else "", container.id)


def group_path(written: object, name: str, driver: str = "cgroupfs") -> str:
    """What the bundle wrote, else a group of our own."""
    if isinstance(written, str) and written.strip("/"):
        return written
    return f":{PARENT_GROUP}:{name}" if driver == "systemd" else f"{PARENT_GROUP}/{name}"
