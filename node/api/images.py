"""Images held by the node: listed, looked at, named, removed."""

import time
from dataclasses import replace

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call, InvalidQuery
from node.api.filters import parse_filters
from node.api.parts import ImageChanges, ImageShelf, Usage
from node.api.types import images as view
from node.api.types.imagefilters import ImageFilter, PruneFilter
from node.api.types.imageparts import manifests, parse_platform
from node.api.types.units import epoch, parse_time
from node.api.version import ApiVersion
from node.images.census import shared_sizes
from node.images.news import ImageNews
from ocispec.errors import InvalidArgument
from ocispec.reference import Reference

_PARTS = ApiVersion(1, 47)
"""`manifests` of a list; of an inspect one later, as `platform` of both and of history."""

_PLATFORMS = ApiVersion(1, 48)
_REMOVES_PLATFORMS = ApiVersion(1, 50)


class ImageRoutes:
    def __init__(
        self, shelf: ImageShelf, changes: ImageChanges, usage: Usage, news: ImageNews, *, driver: str
    ) -> None:
        self._shelf = shelf
        self._changes = changes
        self._usage = usage
        self._news = news
        self._driver = driver

    async def list(self, call: Call) -> web.StreamResponse:
        values = dict(parse_filters(call.text("filters")))
        if call.text("filter"):
            values["reference"] = (*values.get("reference", ()), call.text("filter"))
        wanted = ImageFilter(values)
        moments = {name: epoch((await self._shelf.get(name)).created) for name in wanted.moments()}
        until = parse_time(values["until"][-1], time.time()) // 10**9 if values.get("until") else 0
        held = await self._shelf.list()
        found = [
            replace(image, repo_tags=wanted.names(image.repo_tags), repo_digests=wanted.names(image.repo_digests))
            for image in held
            if wanted.matches(image, moments, until)
        ]
        shared = shared_sizes(await self._shelf.usage(), held) if call.flag("shared-size") else {}
        uses = self._usage.in_use()
        lines = []
        for image in found:
            line = view.summary(image, call.version, containers=view.count(image, uses),
                                shared=shared.get(image.id, -1))
            if call.version >= _PLATFORMS:
                line["Descriptor"] = (await self._shelf.target(str(image.id))).to_json()
            if call.version >= _PARTS and call.flag("manifests"):
                line["Manifests"] = manifests(await self._shelf.parts(str(image.id)), uses)
            lines.append(line)
        return reply(lines)

    async def inspect(self, call: Call) -> web.StreamResponse:
        name, platform = call.path["name"], None
        parts = call.version >= _PLATFORMS and call.flag("manifests")
        if call.version > _PLATFORMS:
            platform = parse_platform(call.text("platform"))
        if parts and platform is not None:
            raise InvalidQuery("conflicting options: manifests and platform options cannot both be set")
        image = await self._shelf.get(name, platform)
        document = view.inspect(image, call.version, driver=self._driver, target=await self._shelf.target(name))
        if parts:
            document["Manifests"] = manifests(await self._shelf.parts(name), self._usage.in_use())
        return reply(document)

    async def history(self, call: Call) -> web.StreamResponse:
        platform = parse_platform(call.text("platform")) if call.version >= _PLATFORMS else None
        return reply(view.history(await self._shelf.history(call.path["name"], platform)))

    async def tag(self, call: Call) -> web.StreamResponse:
        repository, tag = call.text("repo"), call.text("tag")
        if not repository:
            raise InvalidArgument("invalid reference format")
        target = Reference.parse(f"{repository}:{tag}" if tag else repository)
        if target.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        image = await self._shelf.get(call.path["name"])
        await self._changes.tag(call.path["name"], target)
        name = target.with_default_tag().familiar()
        self._news.tell("tag", image, name)
        return empty(201)

    async def delete(self, call: Call) -> web.StreamResponse:
        if call.version >= _REMOVES_PLATFORMS and (texts := call.texts("platforms")):
            platforms = [platform for text in texts if (platform := parse_platform(text))]
            removed = await self._changes.remove_platforms(call.path["name"], platforms, self._usage.in_use())
            return reply([{removal.kind: removal.text} for removal in removed])
        image = await self._shelf.get(call.path["name"])
        removals = await self._changes.remove(
            call.path["name"],
            force=call.flag("force"),
            prune=not call.flag("noprune"),
            in_use=self._usage.in_use(),
            running=self._usage.running(),
        )
        self._news.removed(removals, [image])
        return reply([{removal.kind: removal.text} for removal in removals])

    async def prune(self, call: Call) -> web.StreamResponse:
        wanted = PruneFilter(parse_filters(call.text("filters")), time.time())
        images = await self._shelf.list()
        pruned = await self._changes.prune(wanted.matches, self._usage.in_use())
        self._news.removed(pruned.removals, images)
        self._news.pruned(pruned.freed)
        lines = [{removal.kind: removal.text} for removal in pruned.removals]
        return reply({"ImagesDeleted": lines or None, "SpaceReclaimed": pruned.freed})
