"""Containers: made, listed, looked at, started, ended, removed."""

import time
from collections.abc import Mapping
from contextlib import suppress

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call, InvalidQuery
from node.api.filters import parse_filters, parse_prune
from node.api.parts import Catalogue, ImageShelf, Lifecycle, Upkeep
from node.api.types import containers as view
from node.api.types.create import parse_create
from node.api.types.limits import discarded
from node.api.types.update import parse_update
from node.api.version import ApiVersion
from node.containers.errors import NotRunning, WrongState
from node.containers.filters import Filters
from node.containers.model import Container
from node.containers.pruning import PruneFilter
from node.images.errors import ImageNotFound
from ocispec.errors import InvalidArgument, NotFound, Unimplemented

_NOT_MODIFIED = 304

SEVERAL_NETWORKS = ApiVersion(1, 44)
"""From here on a container may be created on several networks."""


class ContainerRoutes:
    def __init__(
        self, catalogue: Catalogue, lifecycle: Lifecycle, upkeep: Upkeep, images: ImageShelf, *, driver: str
    ) -> None:
        self._upkeep = upkeep
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._images = images
        self._driver = driver

    async def create(self, call: Call) -> web.StreamResponse:
        body = await call.fields()
        if body.empty:
            raise InvalidArgument("config cannot be empty in order to create a container")
        spec = parse_create(
            body, name=call.text("name"), platform=call.text("platform"), several=call.version >= SEVERAL_NETWORKS,
            version=call.version,
        )
        try:
            created = await self._catalogue.create(spec)
        except ImageNotFound:
            raise
        except NotFound as error:
            # Only a missing image is a 404 of a create: clients pull it then, and try again.
            raise InvalidArgument(error.message) from error
        warnings = [*discarded(body.object("HostConfig"), call.version), *created.warnings]
        return reply({"Id": created.id, "Warnings": warnings}, 201)

    async def list(self, call: Call) -> web.StreamResponse:
        filters = await self._with_ancestors(Filters.parse(parse_filters(call.text("filters"))))
        limit = call.number("limit") or 0
        found = await self._catalogue.list(all=call.flag("all"), limit=max(limit, 0), filters=filters)
        names = await self._image_names()
        now = time.time()
        lines = []
        for container in found:
            sizes = await self._sizes(container) if call.flag("size") else None
            image = _shown_image(container, names)
            lines.append(view.summary(container, now=now, sizes=sizes, image=image, version=call.version))
        return reply(lines)

    async def inspect(self, call: Call) -> web.StreamResponse:
        container = await self._catalogue.get(call.path["id"])
        sizes = await self._sizes(container) if call.flag("size") else None
        return reply(view.inspect(container, driver=self._driver, sizes=sizes, version=call.version))

    async def start(self, call: Call) -> web.StreamResponse:
        body = await call.fields()
        if body.has("Binds") or body.has("NetworkMode"):
            raise InvalidArgument("starting container with non-empty request body was deprecated since API v1.22 and "
                                  "removed in v1.24")
        if call.text("checkpoint"):
            raise Unimplemented("starting from a checkpoint is not supported")
        return empty(204 if await self._lifecycle.start(call.path["id"]) else _NOT_MODIFIED)

    async def stop(self, call: Call) -> web.StreamResponse:
        stopped = await self._lifecycle.stop(call.path["id"], timeout=call.number("t"), signal=call.text("signal"))
        return empty(204 if stopped else _NOT_MODIFIED)

    async def restart(self, call: Call) -> web.StreamResponse:
        await self._lifecycle.restart(call.path["id"], timeout=call.number("t"), signal=call.text("signal"))
        return empty()

    async def kill(self, call: Call) -> web.StreamResponse:
        try:
            await self._lifecycle.kill(call.path["id"], call.text("signal") or "KILL")
        except NotRunning as error:
            raise WrongState(f"cannot kill container: {call.path['id']}: {error.message}") from error
        return empty()

    async def pause(self, call: Call) -> web.StreamResponse:
        await self._lifecycle.pause(call.path["id"])
        return empty()

    async def unpause(self, call: Call) -> web.StreamResponse:
        await self._lifecycle.unpause(call.path["id"])
        return empty()

    async def rename(self, call: Call) -> web.StreamResponse:
        if not call.text("name"):
            raise InvalidQuery("Neither old nor new names may be empty")
        await self._catalogue.rename(call.path["id"], call.text("name"))
        return empty()

    async def delete(self, call: Call) -> web.StreamResponse:
        if call.flag("link"):
            raise InvalidArgument("links are not supported yet, so there is none to remove")
        await self._catalogue.remove(call.path["id"], force=call.flag("force"), volumes=call.flag("v"))
        return empty()

    async def update(self, call: Call) -> web.StreamResponse:
        container, change = await self._catalogue.get(call.path["id"]), parse_update(await call.fields())
        try:
            warnings = await self._upkeep.update(container.id, change)
        except WrongState as error:
            raise WrongState(f"Cannot update container {container.id}: {error.message}") from error
        return reply({"Warnings": list(warnings) or None})

    async def prune(self, call: Call) -> web.StreamResponse:
        query, _ = parse_prune(call.text("filters"))
        gone, space = await self._upkeep.prune(PruneFilter(query.until, query.labels, query.not_labels))
        return reply({"ContainersDeleted": list(gone) or None, "SpaceReclaimed": space})

    async def _sizes(self, container: Container) -> tuple[int, int]:
        written = await self._catalogue.size(container.id)
        try:
            image = await self._images.get(container.image_id)
        except NotFound:
            return written, written
        return written, written + image.size

    async def _with_ancestors(self, filters: Filters) -> Filters:
        """Names of images are what they name now. What names none any more may still be how a container calls it."""
        found = {}
        for name in filters.values.get("ancestor", ()):
            with suppress(NotFound, InvalidArgument):
                found[name] = str((await self._images.get(name)).id)
        return filters.with_images(found)

    async def _image_names(self) -> Mapping[str, str]:
        return {tag: str(image.id) for image in await self._images.list() for tag in image.repo_tags}


def _shown_image(container: Container, names: Mapping[str, str]) -> str:
    """The image's id when the name it was made from has moved on to another image, else "" (the name)."""
    name = container.image
    tag = name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"
    return container.image_id if tag in names and names[tag] != container.image_id else ""
