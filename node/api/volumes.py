"""Volumes: listed, made, looked at, removed, pruned."""

from collections.abc import Collection

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call
from node.api.filters import parse_filters
from node.api.parts import Usage, Volumes
from node.api.types import volumes as view
from node.api.version import ApiVersion
from ocispec.errors import Unavailable

PRUNES_ANONYMOUS = ApiVersion(1, 42)
"""Before this version a prune takes named volumes too."""


class VolumeRoutes:
    def __init__(self, volumes: Volumes, usage: Usage) -> None:
        self._volumes = volumes
        self._usage = usage

    async def list(self, call: Call) -> web.StreamResponse:
        filters = parse_filters(call.text("filters"))
        view.check_filters(filters, view.LIST_FILTERS)
        used = self._usage.volumes_in_use()
        found = [view.volume(v) for v in await self._volumes.list() if view.matches(v, filters, used=v.name in used)]
        return reply({"Volumes": found, "Warnings": None})

    async def create(self, call: Call) -> web.StreamResponse:
        body = await call.fields()
        body.refuse(("ClusterVolumeSpec",))
        volume = await self._volumes.create(
            body.text("Name") or None, labels=body.mapping("Labels"), driver_opts=body.mapping("DriverOpts"),
            driver=body.text("Driver"),
        )  # fmt: skip
        return reply(view.volume(volume), 201)

    async def inspect(self, call: Call) -> web.StreamResponse:
        return reply(view.volume(await self._volumes.inspect(call.path["name"])))

    async def update(self, call: Call) -> web.StreamResponse:
        await self._volumes.inspect(call.path["name"])
        raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")

    async def delete(self, call: Call) -> web.StreamResponse:
        await self._volumes.remove(call.path["name"], force=call.flag("force"), users=self._users)
        return empty()

    async def prune(self, call: Call) -> web.StreamResponse:
        filters = parse_filters(call.text("filters"))
        view.check_filters(filters, view.PRUNE_FILTERS)
        every = view.truth(filters, "all") or call.version < PRUNES_ANONYMOUS
        removed, size = await self._volumes.prune(lambda v: view.prunable(v, filters, every=every), self._users)
        return reply({"VolumesDeleted": removed, "SpaceReclaimed": size})

    def _users(self, name: str) -> Collection[str]:
        return self._usage.volumes_in_use().get(name, ())
