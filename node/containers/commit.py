"""`docker commit`: what a container changed becomes a layer, and what it was told becomes an image's configuration."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from node.containers import clock
from node.containers.errors import NotRunning, WrongState
from node.containers.freezer import NoGroups
from node.containers.live import Live
from node.containers.model import Container, CreateSpec, Healthcheck, Status
from node.containers.news import News
from node.dockerfile.changes import apply
from node.files.workers import LayerStreaming
from node.images.archive.making import LayerStream, Recipe
from node.images.image import Image
from ocispec.digest import Digest
from ocispec.reference import Reference

NOTHING: Mapping[str, Any] = {}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CommitSpec:
    """`config`: a Config object as the API has it; what it says wins over the container's. `changes`: instructions of
    a Dockerfile."""

    container: str
    target: Reference | None = None
    author: str = ""
    comment: str = ""
    pause: bool = True
    config: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    changes: tuple[str, ...] = ()


class FindsImages(Protocol):
    """Images by the id of the container's own (node.images.store.Images)."""

    async def get(self, name_or_id: str) -> Image: ...


class MakesImages(Protocol):
    """node.images.archive.service.Archives."""

    async def upon(self, base: Image, layer: LayerStream, recipe: Recipe, target: Reference | None) -> Digest: ...


class GivesLayers(Protocol):
    """node.containers.filework.ContainerFiles."""

    def layer(self, live: Live) -> AbstractAsyncContextManager[LayerStreaming]: ...


class Freezes(Protocol):
    """node.containers.manager.Containers."""

    async def pause(self, name: str) -> None: ...
    async def unpause(self, name: str) -> None: ...


class Committer:
    def __init__(self, find: Callable[[str], Live], freezer: Freezes, files: GivesLayers, images: FindsImages,
                 makes: MakesImages, news: News) -> None:  # fmt: skip
        self._find = find
        self._freezer = freezer
        self._files = files
        self._images = images
        self._makes = makes
        self._news = news

    async def commit(self, spec: CommitSpec) -> Digest:
        """The new image's id. Raises NoSuchContainer, InvalidInstruction, ImageNotFound (the container's image is
        gone)."""
        live = self._find(spec.container)
        container = live.container
        recipe = _recipe(container, spec)
        base = await self._images.get(container.image_id)
        async with self._still(live, pause=spec.pause), self._files.layer(live) as layer:
            image = await self._makes.upon(base, layer, recipe, spec.target)
        name = spec.target.with_default_tag().familiar() if spec.target else ""
        self._news.tell(container, "commit", {"comment": spec.comment, "imageID": str(image), "imageRef": name})
        return image

    @asynccontextmanager
    async def _still(self, live: Live, *, pause: bool) -> AsyncIterator[None]:
        if not pause or live.state.status is not Status.RUNNING:
            yield
            return
        try:
            await self._freezer.pause(live.id)
        except NoGroups as error:
            log.info("container %s is committed while it runs: %s", live.id[:12], error.message)
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(WrongState, NotRunning):  # it ended, or somebody else let it go on
                await self._freezer.unpause(live.id)


def _recipe(container: Container, spec: CommitSpec) -> Recipe:
    created = clock.now()
    config = merged(apply(spec.config, spec.changes), config_of(container.spec))
    step = {"created": created, "author": spec.author, "created_by": " ".join((container.path, *container.args)),
            "comment": spec.comment}  # fmt: skip
    return Recipe(created, {key: value for key, value in config.items() if value not in (None, "", [], {})},
                  {key: value for key, value in step.items() if value}, spec.author, spec.comment)  # fmt: skip


def config_of(spec: CreateSpec) -> Mapping[str, Any]:
    """What an image says, of what the container was told."""
    return {
        "User": spec.user,
        "ExposedPorts": {str(port): {} for port in spec.exposed_ports},
        "Env": list(spec.env),
        "Entrypoint": list(spec.entrypoint or ()),
        "Cmd": list(spec.cmd or ()),
        "Volumes": {path: {} for path in spec.volumes},
        "WorkingDir": spec.workdir,
        "Labels": dict(spec.labels),
        "StopSignal": "" if spec.stop_signal == "SIGTERM" else spec.stop_signal,
        "Healthcheck": _healthcheck(spec.healthcheck),
        "Shell": list(spec.shell or ()),
    }


def _healthcheck(check: Healthcheck | None) -> Mapping[str, Any] | None:
    if check is None or not check.test:
        return None
    values = {"Test": list(check.test), "Interval": check.interval, "Timeout": check.timeout,
              "StartPeriod": check.start_period, "StartInterval": check.start_interval, "Retries": check.retries}
    return {key: value for key, value in values.items() if value}


def merged(wanted: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
    """`wanted` completed by the container's, as Docker does it: maps and environment by key, a command only together
    with the entrypoint it belongs to."""
    whole = {**container, **{key: value for key, value in wanted.items() if value not in (None, "", [], {})}}
    for key in ("ExposedPorts", "Volumes", "Labels"):
        whole[key] = {**(container.get(key) or {}), **(wanted.get(key) or {})}
    env: Sequence[str] = wanted.get("Env") or ()
    named = {entry.partition("=")[0] for entry in env}
    whole["Env"] = [*env, *(entry for entry in container.get("Env") or () if entry.partition("=")[0] not in named)]
    if wanted.get("Entrypoint") and not wanted.get("Cmd"):
        whole["Cmd"] = []
    return whole
