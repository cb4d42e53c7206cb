"""Volumes: listed, made, looked at, removed."""

import builtins

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call
from node.api.filters import parse_filters
from node.api.parts import Catalogue, Volumes
from node.api.types import volumes as view
from ocispec.errors import InvalidArgument, Unimplemented

_FILTERS = frozenset({"dangling", "driver", "label", "name"})


class VolumeRoutes:
    def __init__(self, volumes: Volumes, catalogue: Catalogue) -> None:
        self._volumes = volumes
        self._catalogue = catalogue

    async def list(self, call: Call) -> web.StreamResponse:
        filters = parse_filters(call.text("filters"))
        for name in filters:
            if name not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        used = await self._users()
        found = [view.volume(v) for v in await self._volumes.list() if view.matches(v, filters, used=v.name in used)]
        return reply({"Volumes": found, "Warnings": None})

    async def create(self, call: Call) -> web.StreamResponse:
        body = await call.fields()
        body.refuse(("ClusterVolumeSpec",))
        if body.text("Driver") not in ("", "local"):
            raise Unimplemented(f"volume driver {body.text('Driver')} is not supported yet")
        volume = await self._volumes.create(
            body.text("Name") or None, labels=body.mapping("Labels"), driver_opts=body.mapping("DriverOpts")
        )
        return reply(view.volume(volume), 201)

    async def inspect(self, call: Call) -> web.StreamResponse:
        return reply(view.volume(await self._volumes.inspect(call.path["name"])))

    async def delete(self, call: Call) -> web.StreamResponse:
        name = call.path["name"]
        in_use = (await self._users()).get(name, [])
        await self._volumes.remove(name, force=call.flag("force"), in_use=in_use)
        return empty()

    async def _users(self) -> "dict[str, builtins.list[str]]":
        """Volume name to the ids of the containers that have it, running or not."""
        users: dict[str, builtins.list[str]] = {}
        for container in await self._catalogue.list(all=True):
            for mount in container.mounts:
                if mount.name:
                    users.setdefault(mount.name, []).append(container.id)
        return users
