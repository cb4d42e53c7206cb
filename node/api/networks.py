"""Networks: made, listed, looked at, removed; containers put on them and taken off."""

import builtins
from collections.abc import Callable, Sequence

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call
from node.api.filters import parse_filters, parse_prune
from node.api.parts import Catalogue, Connecting, Networks
from node.api.types import networks as view
from node.api.types.endpoints import parse_endpoint
from node.containers import clock
from node.containers.model import Container
from node.events import Event, EventBus
from node.network.model import Network, NetworkForbidden, NoSuchNetwork
from ocispec.errors import InvalidArgument

_FILTERS = frozenset({"driver", "id", "label", "name", "scope", "type", "dangling"})


class NetworkRoutes:
    def __init__(self, networks: Networks, catalogue: Catalogue, connecting: Connecting, events: EventBus) -> None:
        self._networks = networks
        self._catalogue = catalogue
        self._connecting = connecting
        self._events = events

    async def list(self, call: Call) -> web.StreamResponse:
        filters = parse_filters(call.text("filters"))
        for name in filters:
            if name not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        wanted = view.matcher(filters, self._networks.used())
        return reply([view.network(item) for item in self._networks.list() if wanted(item)])

    async def create(self, call: Call) -> web.StreamResponse:
        network = await self._networks.create(view.parse_create(await call.fields()))
        return reply({"Id": network.id, "Warning": ""}, 201)

    async def inspect(self, call: Call) -> web.StreamResponse:
        scope = call.text("scope")
        if scope and scope != "local":
            raise NoSuchNetwork(call.path["id"])
        network = self._networks.inspect(call.path["id"])
        on = [c for c in await self._catalogue.list() if _end(c, network) is not None]
        return reply({**view.network(network), "Containers": view.containers(on, network.id)})

    async def delete(self, call: Call) -> web.StreamResponse:
        await self._networks.remove(call.path["id"])
        return empty()

    async def connect(self, call: Call) -> web.StreamResponse:
        body = await call.fields()
        # Looked at first, so that the network is what is missing when both are.
        network = self._networks.inspect(call.path["id"])
        asked = parse_endpoint(network.name, body.object("EndpointConfig"))
        await self._connecting.connect(body.text("Container"), asked)
        return empty(200)

    async def disconnect(self, call: Call) -> web.StreamResponse:
        body = await call.fields()
        force = body.flag("Force")
        if not force:
            self._networks.inspect(call.path["id"])
        await self._connecting.disconnect(body.text("Container"), call.path["id"], force=force)
        return empty(200)

    async def prune(self, call: Call) -> web.StreamResponse:
        query, _ = parse_prune(call.text("filters"))
        labels = view.labels_match(query.labels, query.not_labels)
        old = _until(query.until)
        gone: builtins.list[str] = []
        for network in self._networks.list():
            if network.builtin or network.id in self._networks.used() or not (labels(network) and old(network)):
                continue
            try:
                await self._networks.remove(network.id)
            except (NetworkForbidden, NoSuchNetwork):
                continue  # somebody joined or removed it meanwhile
            gone.append(network.name)
        self._events.publish(Event("network", "prune", "", {"reclaimed": "0"}))
        return reply({"NetworksDeleted": gone or None})


def _until(moment: int) -> Callable[[Network], bool]:
    return lambda network: not moment or clock.nanoseconds(network.created) < moment


def _end(container: Container, network: Network) -> Sequence[object] | None:
    ends = [end for end in container.network.endpoints if end.network_id == network.id]
    return ends or None
