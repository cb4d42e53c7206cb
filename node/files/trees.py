"""Trees as values: where a worker finds what it works on."""

from dataclasses import dataclass

from node.snapshots.mounts import Difference, RootMount

__all__ = ("Bound", "Difference", "Running", "Stopped", "Tree")


@dataclass(frozen=True, slots=True)
class Running:
    """The mount namespace of a container's first process. `pidfd` stays the caller's."""

    pidfd: int


@dataclass(frozen=True, slots=True)
class Bound:
    """A volume or bind in a stopped container: `source` is an absolute host path, `target` one of the container."""

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    subpath: str = ""
    """Only this folder of the source, which is looked up inside it."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A root that nobody runs in, and what belongs into it, outer ones first. Only where the root is `writable` are
    missing places for mounts made."""

    root: RootMount
    mounts: tuple[Bound, ...] = ()
    writable: bool = False


Tree = Running | Stopped
