"""What a container's mounts come to: volumes made, host folders checked, and who wins where two want one place.

Docker's order: what the user wrote (binds, --mount, --tmpfs) over --volumes-from over anonymous volumes of the image.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from node.containers.bundle.mounts import tmpfs_options, tmpfs_points
from node.containers.errors import InvalidSpec
from node.containers.model import Container, CreateSpec, MountPoint
from node.containers.mountspec import MountSpec
from node.containers.parts import KeepsVolumes
from node.snapshots.store import RootSnapshots
from ocispec.errors import FailedPrecondition


class MountPoints:
    def __init__(
        self, volumes: KeepsVolumes, snapshots: RootSnapshots, find: Callable[[str], Container]
    ) -> None:
        self._volumes = volumes
        self._snapshots = snapshots
        self._find = find

    async def settle(self, spec: CreateSpec) -> tuple[MountPoint, ...]:
        """Raises InvalidSpec, NoSuchContainer (volumes-from). Anonymous volumes made before a failure are removed.

        The volumes are claimed until `settled`: nobody removes one before the container that wants it is known."""
        _check_distinct(spec)
        made: list[MountPoint] = []
        try:
            points = [await self._asked(mount, made) for mount in spec.mounts] + tmpfs_points(spec.tmpfs)
            taken = {point.target for point in points}
            for point in self._inherited(spec.volumes_from):
                if point.target not in taken:
                    if point.name:
                        self._volumes.claim(point.name)
                        made.append(point)
                    points.append(point)
                    taken.add(point.target)
            for target in spec.volumes:
                if target not in taken:
                    points.append(await self._anonymous(target, made))
        except BaseException:
            self.settled(made)
            await self.discard(made)
            raise
        return tuple(points)

    def settled(self, points: Sequence[MountPoint]) -> None:
        """The container is known, or it never will be."""
        for point in points:
            if point.name:
                self._volumes.unclaim(point.name)

    async def discard(self, points: Sequence[MountPoint]) -> None:
        """Remove the anonymous volumes among them. The caller leaves out what another container uses."""
        for point in points:
            if point.anonymous:
                # Claimed: a container that is being made takes it over.
                with contextlib.suppress(FailedPrecondition):
                    await self._volumes.remove(point.name, force=True)

    async def fill(self, container: Container) -> None:
        """Empty volumes take over what the image holds in their place. The container's root exists, nothing runs."""
        points = [point for point in container.mounts if point.copy_up]
        if points:
            root = await self._snapshots.mount(container.id)
            await self._volumes.fill(root, points)

    async def _asked(self, mount: MountSpec, made: list[MountPoint]) -> MountPoint:
        if mount.kind == "tmpfs":
            options = [f"size={mount.tmpfs_size}"] if mount.tmpfs_size else []
            options += [f"mode={mount.tmpfs_mode:o}"] if mount.tmpfs_mode else []
            return MountPoint("tmpfs", mount.target, read_only=mount.read_only, options=tmpfs_options(options))
        if mount.kind == "bind":
            await asyncio.to_thread(_check_source, mount)
            return MountPoint(
                "bind",
                mount.target,
                mount.source,
                read_only=mount.read_only,
                mode=mount.mode,
                propagation=mount.propagation or "rprivate",
                recursive=mount.recursive,
                create_source=mount.create_source,
            )
        return await self._volume(mount, made)

    async def _volume(self, mount: MountSpec, made: list[MountPoint]) -> MountPoint:
        volume = await self._volumes.create(
            mount.source or None, mount.labels, mount.driver_options, driver=mount.driver, claim=True
        )
        point = MountPoint(
            "volume",
            mount.target,
            str(self._volumes.path(volume.name)),
            volume.name,
            mount.read_only,
            mount.mode or "z",
            mount.propagation,
            anonymous=not mount.source,
            copy_up=not mount.no_copy,
        )
        made.append(point)
        return point

    async def _anonymous(self, target: str, made: list[MountPoint]) -> MountPoint:
        return await self._volume(MountSpec("volume", target), made)

    def _inherited(self, sources: Sequence[str]) -> list[MountPoint]:
        points = []
        for source in sources:
            name, _, mode = source.partition(":")
            if mode not in ("", "ro", "rw"):
                raise InvalidSpec(f"invalid mode in --volumes-from: {source}")
            held = [point for point in self._find(name).mounts if point.kind != "tmpfs"]
            points += [_inherit(point, read_only=mode == "ro") for point in held]
        return points


def _inherit(point: MountPoint, *, read_only: bool) -> MountPoint:
    return MountPoint(
        point.kind,
        point.target,
        point.source,
        point.name,
        point.read_only or read_only,
        point.mode,
        point.propagation,
        recursive=point.recursive,
    )


def _check_distinct(spec: CreateSpec) -> None:
    seen: set[str] = set()
    for target in (*(mount.target for mount in spec.mounts), *spec.tmpfs):
        if target in seen:
            raise InvalidSpec(f"Duplicate mount point: {target}")
        seen.add(target)


def _check_source(mount: MountSpec) -> None:
    if not mount.create_source and not Path(mount.source).exists():
        raise InvalidSpec(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
