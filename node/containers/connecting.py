"""Networks of a container that exists, running or not: connected, disconnected, told of a new name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from node.containers import files
from node.containers.errors import WrongState
from node.containers.live import Live
from node.containers.model import Container
from node.containers.parts import ChangesNetworks
from node.containers.persistence import Records
from node.errors import InternalError
from node.network.model import Endpoint, EndpointSpec, InvalidNetwork, Network, NoSuchNetwork

JOIN = "container:"
PROJECT = "seawall.project"
"""The label of what belongs to a project (node.api.guard.owned)."""

SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
HOST = "container cannot be disconnected from host network or connected to host network"


class NotConnected(InternalError):
    """Docker answers 500."""

    def __init__(self, container_id: str, network: str) -> None:
        super().__init__(f"container {container_id} is not connected to network {network}")


class Connector:
    def __init__(self, find: Callable[[str], Live], networks: ChangesNetworks, records: Records) -> None:
        self._find = find
        self._networks = networks
        self._records = records

    async def connect(self, name: str, asked: EndpointSpec) -> None:
        """Raises NoSuchContainer, NoSuchNetwork, InvalidNetwork, NetworkForbidden, AddressInUse, NoFreeAddress."""
        network = self._networks.inspect(asked.network)
        live = self._find(name)
        async with live.lock:
            _refuse_removed(live)
            _refuse_shared(live, network)
            now = connected(live.container)
            self._networks.check(network.id, asked)
            if live.state.running:
                ends = await self._networks.connect(live.id, asked, live.state.pid)
                new = next(end for end in ends if end.network_id == network.id)
                self._place(live, ends)
                files.add_host(Path(live.container.directory), live.container.spec, new)
            # A name that a project gave may be another's network at the next start.
            known_as = network.id if PROJECT in live.container.spec.labels else network.name
            entry = replace(asked, network=known_as, network_id=network.id)
            kept = tuple(one for one in now if not means(one, network) and one.network not in ("host", "none"))
            live.container = replace(live.container, wanted=(*kept, entry))
            await self._records.save(live)

    async def disconnect(self, name: str, network_name: str, *, force: bool = False) -> None:
        """`force`: also where the network is gone. Raises NoSuchContainer, NoSuchNetwork, InvalidNetwork, NotConnected.
        """
        live = self._find(name)
        async with live.lock:
            _refuse_removed(live)
            try:
                network: Network | None = self._networks.inspect(network_name)
            except NoSuchNetwork:
                if not force:
                    raise
                network = None
            mode = live.container.spec.network.mode
            if mode == "host" or (network and network.driver == "host"):
                raise InvalidNetwork(HOST)
            now = connected(live.container)
            gone = [one for one in now if (means(one, network) if network else one.network == network_name)]
            if not gone:
                raise NotConnected(live.id, network.name if network else network_name)
            await self._take_out(live, network)
            live.container = replace(live.container, wanted=tuple(one for one in now if one not in gone))
            await self._records.save(live)

    async def _take_out(self, live: Live, network: Network | None) -> None:
        place = live.container.network
        end = next((one for one in place.endpoints if network and one.network_id == network.id), None)
        if end is None or not live.state.running:
            return
        ends = await self._networks.disconnect(live.id, end.network_id, live.state.pid)
        self._place(live, ends)
        files.drop_host(Path(live.container.directory), end)

    @staticmethod
    def _place(live: Live, ends: Sequence[Endpoint]) -> None:
        before = live.container.network
        live.container = replace(live.container, network=replace(before, endpoints=tuple(ends)))
        files.rewrite_resolv(live.container, before.endpoints, tuple(ends))

    async def renamed(self, live: Live, old: str) -> None:
        """Its networks' DNS answers for the new name. The lock is held."""
        place, new = live.container.network, live.container.name
        if not place.endpoints:
            return
        ends = tuple(
            replace(end, dns_names=tuple(new if name == old else name for name in end.dns_names))
            for end in place.endpoints
        )
        live.container = replace(live.container, network=replace(place, endpoints=ends))
        await self._networks.renamed(live.id, old, new, live.state.pid)
        await self._records.save(live)



def connected(container: Container) -> tuple[EndpointSpec, ...]:
    """What it is connected to."""
    if container.wanted is not None:
        return container.wanted
    mode, asked = container.spec.network.mode, container.spec.network.endpoints
    if mode.startswith(JOIN):
        return ()
    return asked or (EndpointSpec("bridge" if mode == "default" else mode),)


def means(asked: EndpointSpec, network: Network) -> bool:
    return network.id in (asked.network_id, asked.network) or asked.network == network.name


def _refuse_removed(live: Live) -> None:
    if live.removing:
        raise WrongState(f"Container {live.id} is marked for removal and cannot be connected or disconnected to the "
                         "network")


def _refuse_shared(live: Live, network: Network) -> None:
    mode = live.container.spec.network.mode
    if mode.startswith(JOIN):
        raise InvalidNetwork(SHARED)
    if mode == "host" or network.driver == "host":
        raise InvalidNetwork(HOST)
