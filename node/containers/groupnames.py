"""Where a container's cgroup is: below the node's own group, or below the parent that it asks for. With the systemd
driver parents are slices, and a path reads `slice:seawall:id`."""

import json
from pathlib import Path

from node.containers.errors import InvalidSpec
from node.containers.model import Container
from node.linux.cgroups import CgroupError, units
from node.linux.cgroups.hierarchies import checked_path

SYSTEMD = "systemd"


def group_path(container: Container, parent: str, driver: str) -> str:
    """At its next start. `parent` is the node's own. Raises InvalidSpec where the container's cannot be."""
    asked = container.spec.cgroup_parent
    if asked:
        check_parent(asked, driver)
    if driver == SYSTEMD:
        return f"{asked or parent}:seawall:{container.id}"
    return f"{(asked or parent).strip('/')}/{container.id}"


def recorded(container: Container) -> str:
    """Where it was started, whichever driver the node had then; empty: never. It reads a file."""
    try:
        config = json.loads((Path(container.directory) / "config.json").read_bytes())
        return str(config["linux"]["cgroupsPath"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def check_parent(path: str, driver: str) -> None:
    """Raises InvalidSpec."""
    try:
        if driver == SYSTEMD:
            units.expanded(path)
        else:
            checked_path(path)
    except CgroupError as error:
        if driver == SYSTEMD:
            raise InvalidSpec(
                'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"') from error
        raise InvalidSpec(f"invalid cgroup parent: {path[:300]}") from error
