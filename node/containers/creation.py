"""`docker create`: from what was asked to a container that can be started, or to nothing at all."""

import asyncio
import contextlib
import secrets
from dataclasses import replace
from pathlib import Path

from node.containers import clock, defaults, identity, logdrivers, names
from node.containers.complete import complete
from node.containers.errors import InvalidSpec, NameInUse
from node.containers.groupnames import check_parent
from node.containers.identity import Identities
from node.containers.live import Index, Live, find
from node.containers.model import Container, Created, CreateSpec, MountPoint
from node.containers.mountpoints import MountPoints
from node.containers.news import News
from node.containers.parts import FindsImages
from node.containers.persistence import Records
from node.containers.privatemounts import PrivateMounts
from node.containers.startup import JOIN, Site
from node.images.image import Image
from node.snapshots.store import RootSnapshots
from node.state.containers import ContainerRowExists
from ocispec.descriptor import Platform

NO_INIT = (
    "--init needs a small static program that becomes process 1: none of docker-init, tini-static or catatonit is on "
    "this host's path; install one or name one by the setting init_path"
)


class Creator:
    def __init__(
        self,
        home: Path,
        index: Index,
        records: Records,
        news: News,
        images: FindsImages,
        snapshots: RootSnapshots,
        mount_points: MountPoints,
        private: PrivateMounts,
        site: Site,
        identities: Identities,
    ) -> None:
        self._site = site
        self._identities = identities
        self._home = home
        self._index = index
        self._records = records
        self._news = news
        self._images = images
        self._snapshots = snapshots
        self._mount_points = mount_points
        self._private = private
        self._claimed: dict[str, str] = {}
        """Names of containers that are being made, to the ids they will have."""

    async def create(self, spec: CreateSpec) -> Created:
        """Raises InvalidSpec, InvalidName, NameInUse, ImageNotFound, Unimplemented; then nothing is left behind."""
        container_id = secrets.token_hex(32)
        directory = self._home / container_id
        name = self._claim(spec.name, container_id)
        try:
            spec = replace(spec, runtime=self._site.runtimes.settle(spec.runtime))
            image = await self._images.get(spec.image, Platform.parse(spec.platform) if spec.platform else None)
            spec = replace(spec, log=logdrivers.resolve(spec.log, self._site.log),
                           security=defaults.with_baseline(spec.security, self._site.isolation))  # fmt: skip
            security, told = defaults.for_older_image(spec, image.config.platform)
            spec = replace(spec, security=security)
            # In a thread: a seccomp profile of the user's own may take a while to judge.
            whole = await asyncio.to_thread(complete, spec, image.config.config, container_id)
            self._site.limits.check(whole.spec.namespaces)
            limits, warnings = self._site.limits.adapt(whole.spec.resources)
            limits = defaults.limited(limits, security, self._site.isolation, self._site.limits.features)
            settled = replace(whole.spec, resources=limits)
            if settled.init and not self._site.init:
                raise InvalidSpec(NO_INIT)
            if settled.cgroup_parent:
                check_parent(settled.cgroup_parent, self._site.cgroup_driver)
            self._check_joined(settled)
            points = await self._mount_points.settle(settled)
            mode, shared = await self._choose_ids(settled, points)
            settled = identity.settled(settled, mode)
            container = Container(
                container_id,
                name,
                clock.now(),
                spec.image,
                str(image.id),
                settled,
                whole.path,
                whole.args,
                points,
                directory=str(directory),
                log_path=logdrivers.log_path(directory, container_id, spec.log.driver),
            )
            live = Live(container)
            try:
                await self._settle(live, image)
                self._index.add(live)
            except BaseException:
                self._mount_points.settled(points)
                with contextlib.suppress(Exception):
                    await self._mount_points.discard(points)
                raise
            self._mount_points.settled(points)
        finally:
            del self._claimed[name]
        self._news.tell(container, "create")
        return Created(container_id, (*told, *warnings, *shared, *_network_warnings(settled)))

    async def _settle(self, live: Live, image: Image) -> None:
        directory = Path(live.container.directory)
        try:
            chain = await self._images.ensure_unpacked(image)
            # The folder first: by it the next daemon finds the snapshot of a creation that a kill cut short.
            await asyncio.to_thread(directory.mkdir, mode=0o700)
            await self._snapshots.create(live.id, chain)
            await self._private.prepare(live.container)
            await self._mount_points.fill(live.container)
            await self._records.add(live)
        except BaseException as error:
            await self._private.remove(live.id, directory)
            if isinstance(error, ContainerRowExists):
                raise NameInUse(live.container.name, "another container") from error
            raise

    async def _choose_ids(
        self, spec: CreateSpec, points: tuple[MountPoint, ...]
    ) -> tuple[str, tuple[str, ...]]:
        runtimes = self._site.runtimes
        try:
            mode, told = await self._identities.choose(spec, points, foreign=runtimes.foreign(spec.runtime))
            # Who made it the node's default knows.
            return mode, () if runtimes.foreign(runtimes.default) == spec.runtime else told
        except BaseException:
            self._mount_points.settled(points)
            await self._mount_points.discard(points)
            raise

    def _check_joined(self, spec: CreateSpec) -> None:
        """Containers whose namespaces it shares. Raises NoSuchContainer."""
        for mode in (spec.network.mode, spec.namespaces.pid, spec.namespaces.ipc):
            if mode.startswith(JOIN):
                find(self._index, mode.removeprefix(JOIN))

    def _claim(self, wanted: str, container_id: str) -> str:
        """Nothing is awaited between the look and the claim, so no two get one name."""
        if wanted:
            name = names.check(wanted)
            owner = self._index.owner_of(name) or self._claimed.get(name)
            if owner:
                raise NameInUse(name, owner)
        else:
            name = names.make_up({**self._index.names, **self._claimed})
        self._claimed[name] = container_id
        return name


def _network_warnings(spec: CreateSpec) -> tuple[str, ...]:
    if spec.network.mode == "host" and (spec.network.bindings or spec.network.publish_all):
        return ("Published ports are discarded when using host network mode",)
    return ()
