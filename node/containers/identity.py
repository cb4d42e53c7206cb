"""The host's ids of a container: chosen when it is made, given to each of its runs, known for as long as it runs."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from node.containers import usermode
from node.containers.bundle.baseline import baseline
from node.containers.bundle.ownids import OwnIds
from node.containers.errors import CannotStart, InvalidSpec
from node.containers.model import Container, CreateSpec, MountPoint
from node.linux import idmapped
from node.userns.ranges import IdRange
from node.userns.spaces import Spaces
from node.userns.tenants import Tenants, range_of

JOIN = "container:"
OriginOf = Callable[[str], Awaitable[tuple[str, str]]]


class TellsOrigins(Protocol):
    """Volumes (node.volumes.store.Volumes)."""

    async def origin(self, name: str) -> tuple[str, str]: ...


@dataclass(frozen=True, slots=True)
class Given:
    """To one run. `network`: a network namespace that its user namespace owns, if it has none of another's; `locks`:
    descriptors that hold the ids for as long as somebody has them open."""

    own: OwnIds | None = None
    network: int | None = None
    locks: tuple[int, ...] = ()


class Identities:
    """`spaces` is None where no container can have ids of its own: `why_not` says why."""

    def __init__(self, spaces: Spaces | None, tenants: Tenants, volumes: TellsOrigins, *, why_not: str = "",
                 default: bool = True) -> None:
        self._spaces = spaces
        self._tenants = tenants
        self._volumes = volumes
        self._why_not = why_not
        self._default = default

    def by_default(self, isolation: str) -> bool:
        """Whether a container that says nothing has ids of its own."""
        return self._default and self._spaces is not None and baseline(isolation).own_users

    # -- when a container is made

    async def choose(
        self, spec: CreateSpec, points: Sequence[MountPoint], *, foreign: str = ""
    ) -> tuple[str, tuple[str, ...]]:
        """What its record says from now on, `host` or how its ids are chosen, and what the user should know. Raises
        InvalidSpec."""
        by_default = self.by_default(spec.security.isolation)
        mode = usermode.choose(spec, default=by_default, foreign=foreign)
        if mode.own and self._spaces is None:
            raise InvalidSpec(f"--userns {spec.namespaces.user}: {self._why_not}")
        if not mode.own:
            # As Docker, whose inspect shows nothing where nothing was asked for.
            return usermode.HOST if by_default else spec.namespaces.user, (mode.told,) if mode.told else ()
        if reason := await self._unmapped(points):
            if spec.namespaces.user:
                raise InvalidSpec(f"conflicting options: --userns {spec.namespaces.user}: {reason}")
            return usermode.HOST, (f"The container has the host's user namespace: {reason}",)
        return mode.word, ()

    async def _unmapped(self, points: Sequence[MountPoint]) -> str:
        """Why files in a mount would belong to nobody there; empty: none would."""
        assert self._spaces is not None
        probe = await self._spaces.probe()
        for point in points:
            if point.kind == "volume":
                kind, device = await self._volumes.origin(point.name)
                source = {"": point.source, "bind": device}.get(kind, "")
                if kind not in ("", "bind") and not await asyncio.to_thread(_kind_maps, kind, probe):
                    return f"the file system of volume {point.name}, {kind}, has no id-mapped mounts"
            else:
                source = point.source if point.kind == "bind" else ""
            if source and not await asyncio.to_thread(_source_maps, source, point, probe):
                return f"the file system of {source} has no id-mapped mounts"
        return ""

    # -- when it starts

    @asynccontextmanager
    async def given(self, container: Container, joined: Sequence[int]) -> AsyncIterator[Given]:
        """`joined`: first processes of containers whose namespaces it enters. Descriptors are good within the block.
        Raises CannotStart, NoFreeIds."""
        mode = usermode.parse(container.spec.namespaces.user)
        if mode is None or not mode.own:
            yield Given()
            return
        if self._spaces is None:
            raise CannotStart(f"the container has a user namespace, which this node cannot give: {self._why_not}")
        probe = await self._spaces.probe()
        with ExitStack() as undo:
            if joined:
                yield await self._of_others(joined, probe, undo)
                return
            space = await self._spaces.take(mode.size)
            undo.callback(space.close)
            path = f"/proc/{os.getpid()}/fd/{space.user}"
            yield Given(_own(path, space.ids, probe), space.network, (space.held.lock,))

    async def _of_others(self, joined: Sequence[int], probe: int, undo: ExitStack) -> Given:
        """Who enters another's namespaces lives in its user namespace too: it owns them."""
        assert self._spaces is not None
        homes = await asyncio.to_thread(_homes, joined)
        if len(homes) > 1:
            raise CannotStart("it joins namespaces of containers that have different user namespaces: --userns=host "
                              "for all of them lets it")
        ids = next(iter(homes.values()))
        if ids is None:
            return Given()
        held = await asyncio.to_thread(self._spaces.share, ids)
        undo.callback(held.close)
        return Given(_own(f"/proc/{joined[0]}/ns/user", ids, probe), None, (held.lock,))

    # -- while it runs

    def runs(self, name: str, given: Given) -> None:
        if given.own is not None:
            self._tenants.move_in(name, given.own.ids)

    async def recognise(self, name: str, pid: int) -> None:
        """It was started by an earlier daemon."""
        try:
            ids = await asyncio.to_thread(range_of, pid)
        except OSError:
            return  # it ends just now
        if ids is not None:
            self._tenants.move_in(name, ids)

    def ended(self, name: str) -> None:
        self._tenants.move_out(name)


def _own(path: str, ids: IdRange, probe: int) -> OwnIds:
    return OwnIds(path, ids, lambda source, recursive: _parts(source, probe, recursive=recursive))


def _parts(source: str, probe: int, *, recursive: bool) -> Sequence[idmapped.Part]:
    """Empty: all can be mapped. Raises CannotStart. Blocks."""
    try:
        if idmapped.can_map(source, probe, recursive=recursive):
            return ()
        found = idmapped.parts(source, probe)
    except OSError:
        return ()  # the runtime says what is wrong with it
    found = found if recursive else found[:1]
    for part in found:
        if not part.mapped and not part.pseudo:
            raise CannotStart(f"the file system of {part.point}, {part.kind}, has no id-mapped mounts: a container "
                              "with it needs --userns=host")
    return found


def _source_maps(source: str, point: MountPoint, probe: int) -> bool:
    """What shows the kernel and not files is nobody's in the container, who may read what everybody may. A source that
    is to be written there is meant for the host's root."""
    there = Path(source)
    while not there.exists():
        there = there.parent  # it will be made
    if idmapped.can_map(str(there), probe, recursive=point.recursive):
        return True
    top, *below = idmapped.parts(str(there), probe)
    if not top.mapped and not (top.pseudo and point.read_only):
        return False
    return not point.recursive or all(part.mapped or part.pseudo for part in below)


def _kind_maps(kind: str, probe: int) -> bool:
    """Of a volume that is mounted when a container starts."""
    try:
        return kind in WITH_DEVICES or idmapped.can_map_new(kind, probe)
    except OSError:
        return False


WITH_DEVICES = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "vfat", "xfs"})
"""File systems on devices that have had id-mapped mounts for as long as overlayfs could stand on them."""


def _homes(pids: Iterable[int]) -> dict[tuple[int, int], IdRange | None]:
    """The user namespaces of processes: whose ids they have. None: the host's. Raises CannotStart. Blocks."""
    found: dict[tuple[int, int], IdRange | None] = {}
    try:
        for pid in pids:
            about = Path(f"/proc/{pid}/ns/user").stat()
            found[about.st_dev, about.st_ino] = range_of(pid)
    except OSError as error:
        raise CannotStart(f"the container whose namespaces it joins has ended: {error.strerror}") from error
    return found


def settled(spec: CreateSpec, mode: str) -> CreateSpec:
    return replace(spec, namespaces=replace(spec.namespaces, user=mode))
