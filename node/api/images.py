"""Images held by the node: listed, looked at, named, removed."""

import time
from dataclasses import replace

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call
from node.api.filters import parse_filters
from node.api.parts import ImageShelf, Usage
from node.api.types import images as view
from node.api.types.imagefilters import ImageFilter
from node.api.types.units import epoch, parse_time
from node.events import Event, EventBus
from ocispec.errors import InvalidArgument, Unimplemented
from ocispec.reference import Reference


class ImageRoutes:
    def __init__(
        self, shelf: ImageShelf, usage: Usage, events: EventBus, *, driver: str
    ) -> None:
        self._shelf = shelf
        self._usage = usage
        self._events = events
        self._driver = driver

    async def list(self, call: Call) -> web.StreamResponse:
        for name in ("shared-size", "manifests"):
            if call.flag(name):
                raise Unimplemented(f"{name} of an image list is not supported yet")
        values = dict(parse_filters(call.text("filters")))
        if call.text("filter"):
            values["reference"] = (*values.get("reference", ()), call.text("filter"))
        wanted = ImageFilter(values)
        moments = {name: epoch((await self._shelf.get(name)).created) for name in wanted.moments()}
        until = parse_time(values["until"][-1], time.time()) // 10**9 if values.get("until") else 0
        uses = self._usage.in_use()
        found = [
            replace(image, repo_tags=wanted.names(image.repo_tags), repo_digests=wanted.names(image.repo_digests))
            for image in await self._shelf.list()
            if wanted.matches(image, moments, until)
        ]
        return reply([view.summary(i, call.version, containers=len(uses.get(str(i.id), ()))) for i in found])

    async def inspect(self, call: Call) -> web.StreamResponse:
        if call.flag("manifests") or call.text("platform"):
            raise Unimplemented("manifests and platform of an image's inspect are not supported yet")
        image = await self._shelf.get(call.path["name"])
        return reply(view.inspect(image, call.version, driver=self._driver))

    async def history(self, call: Call) -> web.StreamResponse:
        if call.text("platform"):
            raise Unimplemented("platform of an image's history is not supported yet")
        return reply(view.history(await self._shelf.history(call.path["name"])))

    async def tag(self, call: Call) -> web.StreamResponse:
        repository, tag = call.text("repo"), call.text("tag")
        if not repository:
            raise InvalidArgument("invalid reference format")
        target = Reference.parse(f"{repository}:{tag}" if tag else repository)
        if target.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        image = await self._shelf.get(call.path["name"])
        await self._shelf.tag(call.path["name"], target)
        name = target.with_default_tag().familiar()
        self._events.publish(Event("image", "tag", str(image.id), {"name": name}))
        return empty(201)

    async def delete(self, call: Call) -> web.StreamResponse:
        if call.text("platforms"):
            raise Unimplemented("removing one platform of an image is not supported yet")
        image = await self._shelf.get(call.path["name"])
        removals = await self._shelf.remove(
            call.path["name"],
            force=call.flag("force"),
            prune=not call.flag("noprune"),
            in_use=self._usage.in_use(),
            running=self._usage.running(),
        )
        for removal in removals:
            action = "untag" if removal.kind == "Untagged" else "delete"
            self._events.publish(Event("image", action, str(image.id), {"name": removal.text}))
        return reply([{removal.kind: removal.text} for removal in removals])
