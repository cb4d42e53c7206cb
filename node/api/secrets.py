"""Secrets and configs: one set of handlers for both kinds."""

from collections.abc import Collection

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call
from node.api.filters import parse_filters
from node.api.parts import Secret, Secrets, Usage
from node.api.types import secrets as view
from node.api.types.fields import Fields
from ocispec.errors import InvalidArgument, Unimplemented


class SecretRoutes:
    """`kind`: secret or config."""

    def __init__(self, kind: str, secrets: Secrets, usage: Usage) -> None:
        self._kind = kind
        self._secrets = secrets
        self._usage = usage

    async def list(self, call: Call) -> web.StreamResponse:
        filters = parse_filters(call.text("filters"))
        for name in filters:
            if name not in view.FILTERS:
                raise InvalidArgument(f"invalid filter '{name[:100]}'")
        found = [held for held in await self._secrets.list(self._kind) if view.matches(held, filters)]
        return reply([await self._view(held) for held in found])

    async def create(self, call: Call) -> web.StreamResponse:
        body = await call.fields()
        self._refuse(body)
        made = await self._secrets.create(
            self._kind, body.text("Name"), view.decode_data(body.text("Data")), body.mapping("Labels")
        )
        return reply({"ID": made.id}, 201)

    async def inspect(self, call: Call) -> web.StreamResponse:
        return reply(await self._view(await self._secrets.find(self._kind, call.path["id"])))

    async def update(self, call: Call) -> web.StreamResponse:
        """Labels alone may change, as in swarm."""
        body, version = await call.fields(), call.number("version")
        if version is None:
            raise InvalidArgument(f"invalid {self._kind} version '': a version is needed")
        self._refuse(body)
        held = await self._secrets.find(self._kind, call.path["id"])
        renamed = body.text("Name") not in ("", held.name)
        if renamed or (body.text("Data") and not await self._same(held, body.text("Data"))):
            raise InvalidArgument("rpc error: code = InvalidArgument desc = only updates to Labels are allowed")
        await self._secrets.relabel(self._kind, held.id, version, body.mapping("Labels"))
        return empty(200)

    async def delete(self, call: Call) -> web.StreamResponse:
        await self._secrets.remove(self._kind, call.path["id"], self._users)
        return empty()

    async def _same(self, held: Secret, text: str) -> bool:
        return await self._secrets.read(self._kind, held.id) == view.decode_data(text)

    async def _view(self, held: Secret) -> dict[str, object]:
        return view.secret(held, await self._secrets.read(self._kind, held.id) if self._kind == "config" else None)

    def _refuse(self, body: Fields) -> None:
        if body.object("Driver").text("Name"):
            raise Unimplemented(f"{self._kind} drivers are not supported yet")
        if body.object("Templating").text("Name"):
            raise Unimplemented(f"{self._kind} templating is not supported yet")

    def _users(self, secret_id: str) -> Collection[str]:
        return self._usage.secrets_in_use().get(secret_id, ())
