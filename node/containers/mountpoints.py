"""What a container's mounts come to: volumes made, host folders checked, and who wins where two want one place.

Docker's order: what the user wrote (binds, --mount, --tmpfs) over --volumes-from over anonymous volumes of the image.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence

from node.containers.bundle.mounts import tmpfs_options, tmpfs_points
from node.containers.errors import InvalidSpec
from node.containers.model import Container, CreateSpec, MountPoint
from node.containers.mountspec import MountSpec
from node.containers.parts import FindsImages, KeepsVolumes, ReadsSecrets
from node.containers.privatemounts import FILE_KINDS
from node.snapshots.store import RootSnapshots
from ocispec.errors import FailedPrecondition


class MountPoints:
    def __init__(
        self,
        volumes: KeepsVolumes,
        snapshots: RootSnapshots,
        images: FindsImages,
        secrets: ReadsSecrets,
        find: Callable[[str], Container],
        *,
        create_sources: bool,
    ) -> None:
        self._volumes = volumes
        self._images = images
        self._secrets = secrets
        self._create_sources = create_sources
        self._snapshots = snapshots
        self._find = find

    async def settle(self, spec: CreateSpec) -> tuple[MountPoint, ...]:
        """Raises InvalidSpec, NoSuchContainer (volumes-from). Anonymous volumes made before a failure are removed.

        The volumes are claimed until `settled`: nobody removes one before the container that wants it is known."""
        _check_distinct(spec)
        made: list[MountPoint] = []
        driver = spec.volume_driver
        try:
            points = [await self._asked(mount, made, driver) for mount in spec.mounts] + tmpfs_points(spec.tmpfs)
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
                    points.append(await self._anonymous(target, made, driver))
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

    async def _asked(self, mount: MountSpec, made: list[MountPoint], driver: str) -> MountPoint:
        if mount.kind in FILE_KINDS:
            held = await self._secrets.find(mount.kind, mount.source)
            return MountPoint(mount.kind, mount.target, held.name, read_only=True, reference=held.id,
                              propagation="rprivate", owner=mount.owner, file_mode=mount.file_mode)  # fmt: skip
        if mount.kind == "image":
            image = await self._images.get(mount.source)
            return MountPoint("image", mount.target, mount.source, read_only=mount.read_only, subpath=mount.subpath,
                              propagation="rprivate", reference=str(image.id))  # fmt: skip
        if mount.kind == "tmpfs":
            options = [f"size={mount.tmpfs_size}"] if mount.tmpfs_size else []
            options += [f"mode={mount.tmpfs_mode:o}"] if mount.tmpfs_mode else []
            options += mount.tmpfs_options
            return MountPoint("tmpfs", mount.target, read_only=mount.read_only, options=tmpfs_options(options))
        if mount.kind == "bind":
            if not (mount.create_source and self._create_sources):
                await asyncio.to_thread(_check_source, mount)
            return MountPoint(
                "bind",
                mount.target,
                mount.source,
                read_only=mount.read_only,
                mode=mount.mode,
                propagation=mount.propagation or "rprivate",
                recursive=mount.recursive,
                create_source=mount.create_source and self._create_sources,
                read_only_below=mount.read_only_below != "no",
                subpath=mount.subpath,
                idmap=mount.idmap,
            )
        return await self._volume(mount, made, driver if mount.from_bind else "")

    async def _volume(self, mount: MountSpec, made: list[MountPoint], driver: str) -> MountPoint:
        volume = await self._volumes.create(
            mount.source or None, mount.labels, mount.driver_options, driver=mount.driver or driver, claim=True
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
            copy_up=not (mount.no_copy or mount.subpath),
            recursive=mount.recursive,
            subpath=mount.subpath,
            idmap=mount.idmap,
        )
        made.append(point)
        return point

    async def _anonymous(self, target: str, made: list[MountPoint], driver: str) -> MountPoint:
        return await self._volume(MountSpec("volume", target), made, driver)

    def _inherited(self, sources: Sequence[str]) -> list[MountPoint]:
        points = []
        for source in sources:
            name, _, mode = source.partition(":")
            words = [word for word in mode.split(",") if word]
            if not name or set(words) - {"ro", "rw", "z", "Z"} or {"ro", "rw"} <= set(words):
                raise InvalidSpec(f"invalid mode: {mode} in --volumes-from {source}")
            held = [point for point in self._find(name).mounts if point.kind in ("bind", "volume")]
            points += [_inherit(point, read_only="ro" in words) for point in held]
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
        create_source=point.create_source,
        read_only_below=point.read_only_below,
        subpath=point.subpath,
        idmap=point.idmap,
    )


def _check_distinct(spec: CreateSpec) -> None:
    seen: set[str] = set()
    for target in (*(mount.target for mount in spec.mounts), *spec.tmpfs):
        if target in seen:
            raise InvalidSpec(f"Duplicate mount point: {target}")
        seen.add(target)


def _check_source(mount: MountSpec) -> None:
    if not os.path.lexists(mount.source):
        why = " (this node makes no missing folders)" if mount.create_source else ""
        raise InvalidSpec(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}{why}'
        )
