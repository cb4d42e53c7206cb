"""Networks: listed and looked at. Docker's bridge, host and none; making others comes later."""

from aiohttp import web

from node.api.answers import reply
from node.api.call import Call
from node.api.filters import parse_filters
from node.api.parts import Catalogue, Networks
from node.api.types import networks as view
from ocispec.errors import InvalidArgument

_FILTERS = frozenset({"driver", "id", "label", "name", "scope", "type", "dangling"})


class NetworkRoutes:
    def __init__(self, networks: Networks, catalogue: Catalogue) -> None:
        self._networks = networks
        self._catalogue = catalogue

    async def list(self, call: Call) -> web.StreamResponse:
        filters = parse_filters(call.text("filters"))
        for name in filters:
            if name not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        found = [view.network(item) for item in self._networks.list()]
        return reply([document for document in found if view.matches(document, filters)])

    async def inspect(self, call: Call) -> web.StreamResponse:
        network = self._networks.inspect(call.path["id"])
        running = await self._catalogue.list()
        containers = [c for c in running if c.network.primary.network_name == network.name]
        return reply({**view.network(network), "Containers": view.containers(containers)})
