"""What a container may do when nobody says anything: the two sets of defaults a node can have.

`seawall` holds back what hardly any image needs; `docker` is what Docker does, for images that need just that. A
container is made with one of them and keeps it: a node that is told another one later changes no container that is
there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from node.containers.errors import InvalidSpec
from node.linux import capabilities

EVERYTHING = frozenset({"ALL", "CAP_ALL"})


@dataclass(frozen=True, slots=True)
class Baseline:
    name: str
    capabilities: tuple[str, ...]
    no_new_privileges: bool
    older_calls: bool
    """The default seccomp profile lets 32-bit programs (i386, x32) in."""

    ambient: bool
    """Capabilities that are asked for by name reach a user who is not root, too."""

    limited_pids: bool
    """The node's number of processes holds for containers that ask for none."""

    own_users: bool
    """Each container has a user namespace of its own."""


SEAWALL = Baseline("seawall", capabilities.DEFAULT, True, False, True, True, True)
DOCKER = Baseline("docker", capabilities.DOCKER, False, True, False, False, False)
EARLIER = Baseline("", capabilities.DOCKER, True, True, False, False, False)
"""Of containers that were made before there was a choice."""

NAMES = (SEAWALL.name, DOCKER.name)
_KNOWN = {kind.name: kind for kind in (SEAWALL, DOCKER, EARLIER)}


def baseline(name: str) -> Baseline:
    """Raises InvalidSpec."""
    if name not in _KNOWN:
        raise InvalidSpec(f'invalid isolation: "{name[:50]}": it is one of {", ".join(NAMES)} or default')
    return _KNOWN[name]


def capability_set(
    kind: Baseline, add: Sequence[str], drop: Sequence[str], *, privileged: bool = False
) -> tuple[str, ...]:
    """Docker's rules: ALL in either list stands for every capability this kernel knows. Raises InvalidSpec."""
    added, dropped = _parse(add, "CapAdd"), _parse(drop, "CapDrop")
    if privileged:
        return _parse(["ALL"], "CapAdd")
    if any(name.upper() in EVERYTHING for name in add):
        return tuple(name for name in added if name not in dropped)
    kept = [name for name in kind.capabilities if name not in dropped]
    return (*kept, *(name for name in added if name not in kept))


def ambient_set(
    kind: Baseline, add: Sequence[str], held: Sequence[str], *, privileged: bool = False
) -> tuple[str, ...]:
    """What a user who is not root holds: what was asked for by name, and nothing of the defaults.

    The kernel takes every other capability from such a user at execve, and no_new_privs keeps programs from giving
    them back: without this, `--user 1000 --cap-add NET_BIND_SERVICE` would be words. A privileged container is one for
    its root, as with Docker.
    """
    if privileged or not kind.ambient:
        return ()
    asked = _parse(add, "CapAdd")
    return tuple(name for name in held if name in asked)


def _parse(names: Sequence[str], field: str) -> tuple[str, ...]:
    try:
        return capabilities.parse(names)
    except capabilities.UnknownCapability as error:
        known = {name.removeprefix("CAP_") for name in (*capabilities.ALL, "ALL")}
        wrong = next((bare for name in names if (bare := name.upper().removeprefix("CAP_")) not in known), "")
        text = f'unknown capability: "CAP_{wrong[:100]}"' if wrong else str(error)
        raise InvalidSpec(f"invalid {field}: {text}") from error
