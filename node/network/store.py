"""Networks: what a container gets when it starts, what is taken back when it ends, what is found after a restart."""

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from node.events import Event, EventBus
from node.network import hostports, wiring
from node.network.bridge import veth_name
from node.network.care import Care, Place
from node.network.catalog import Catalog
from node.network.endpoints import ALONE, SHARED, check_spec, make, ordered
from node.network.held import Held
from node.network.model import (
    Endpoint,
    EndpointSpec,
    InvalidNetwork,
    Joining,
    Network,
    NetworkForbidden,
    NetworkSpec,
    NetworkUnavailable,
    PortBinding,
    Sandbox,
)
from node.network.namespace import new_namespace, opened, set_all
from ocispec.errors import InvalidArgument

JOIN = "container:"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Attached:
    """A container's place: the endpoint with the default route first."""

    joining: Joining
    ends: tuple[Endpoint, ...] = ()


class Networks:
    """Made by `open_networks`. Of one container one thing happens at a time: its lock is held by the caller."""

    def __init__(self, catalog: Catalog, care: Care, events: EventBus) -> None:
        self._catalog = catalog
        self._care = care
        self._events = events
        self._attached: dict[str, Attached] = {}
        self.on_change: Callable[[str], None] | None = None
        """Called with a container's id after what it is attached to changed."""

    # -- which networks there are

    def list(self) -> Sequence[Network]:
        return [held.network for held in self._catalog.all()]

    def inspect(self, name_or_id: str) -> Network:
        """Raises NoSuchNetwork, AmbiguousNetwork."""
        return self._catalog.find(name_or_id).network

    async def create(self, spec: NetworkSpec) -> Network:
        """Raises InvalidNetwork, NetworkForbidden, NetworkExists, NetworkUnavailable, Unimplemented."""
        network = await self._catalog.create(spec)
        if bridge := self._bridge_of(network):
            await self._care.near(bridge)
        self._tell("create", network)
        return network

    async def remove(self, name_or_id: str) -> None:
        """Raises NoSuchNetwork, NetworkForbidden (built in, or somebody is on it)."""
        bridge = self._bridge_of(self.inspect(name_or_id))
        network = await self._catalog.remove(name_or_id, self._users)
        if bridge:
            await self._care.near(bridge, gone=True)
        self._tell("destroy", network)

    def _bridge_of(self, network: Network) -> str:
        held = self._catalog.get(network.id)
        return held.bridge.name if held and held.bridge else ""

    def check(self, network_id: str, asked: EndpointSpec) -> None:
        """Whether that network gives what is asked. Raises InvalidNetwork, NetworkForbidden."""
        check_spec(self._catalog.find(network_id), asked)

    def used(self) -> set[str]:
        """Ids of networks that somebody is on."""
        return {end.network_id for attached in self._attached.values() for end in attached.ends}

    def _users(self, network_id: str) -> Sequence[str]:
        return [f'name:"{attached.joining.name}" id:"{container_id[:12]}"'
                for container_id, attached in self._attached.items()
                if any(end.network_id == network_id for end in attached.ends)]

    # -- who is on them

    @property
    def idle(self) -> bool:
        return not any(end.ip or end.ip6 for attached in self._attached.values() for end in attached.ends)

    def attached(self, container_id: str) -> Attached | None:
        return self._attached.get(container_id)

    async def attach(self, joining: Joining) -> Sandbox:
        """A place for the container; nothing stays behind when it fails.

        Raises NoFreeAddress, AddressInUse, PortInUse, NetworkUnavailable, NoSuchNetwork, InvalidArgument,
        Unimplemented.
        """
        if joining.mode.startswith(JOIN):
            # Docker takes -p with these and drops it with a warning: the ports are the host's or the other's.
            return Sandbox(joining.other_netns)
        if joining.container_id in self._attached:
            raise InvalidArgument(f"container {joining.container_id[:12]} is attached to the network already")
        working = asyncio.create_task(self._attach(joining))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            # What happens in a thread cannot be cancelled: it is awaited and undone.
            with contextlib.suppress(Exception):
                await (await working).close()
                await self.release(joining.container_id)
            raise

    async def _attach(self, joining: Joining) -> Sandbox:
        held = [self._catalog.find(asked.network_id if self._catalog.get(asked.network_id) else asked.network)
                for asked in joining.endpoints]
        _check_together(held)
        if not held or held[0].network.driver in ("host", "null"):
            sandbox = await self._apart(joining, held)
        else:
            attached = Attached(joining)
            # Noted before the first await: a network that somebody joins is not removed, and an address is one's own.
            self._attached[joining.container_id] = attached
            try:
                plugs = self._plan(attached, held)
                sandbox = await self._connect(attached, plugs)
            except BaseException:
                self._attached.pop(joining.container_id, None)
                await self._care.end(joining.container_id)
                self._give_back(attached.ends)
                raise
        for end in sandbox.endpoints:
            self._tell_of(joining.container_id, "connect", end)
        self._changed(joining.container_id)
        return sandbox

    async def _apart(self, joining: Joining, held: Sequence[Held]) -> Sandbox:
        """The host's namespace, or one with nothing but lo."""
        ends = tuple(Endpoint(network_id=one.network.id, endpoint_id=secrets.token_hex(32),
                              network_name=one.network.name, driver=one.network.driver) for one in held)
        self._attached[joining.container_id] = Attached(joining, ends)
        if ends and ends[0].driver == "host":
            return Sandbox(None, endpoints=ends)
        try:
            sandbox = await asyncio.to_thread(_isolated, joining)
        except BaseException:
            self._attached.pop(joining.container_id, None)
            raise
        sandbox.endpoints = ends
        return sandbox

    def _plan(self, attached: Attached, held: Sequence[Held]) -> Sequence[wiring.Plug]:
        joining, plugs = attached.joining, []
        for one, asked in zip(held, joining.endpoints, strict=True):
            end = make(one, asked, joining, {before.interface for before in attached.ends})
            attached.ends += (end,)
            plugs.append(wiring.plug(one, end, dict(asked.driver_opts), hairpin=bool(joining.published)))
        attached.ends = ordered(attached.ends)
        return plugs

    async def _connect(self, attached: Attached, plugs: Sequence[wiring.Plug]) -> Sandbox:
        container_id, joining = attached.joining.container_id, attached.joining
        held = self._hold(attached)
        async with AsyncExitStack() as undo:
            with contextlib.ExitStack() as holding:
                for one in held:
                    holding.callback(one.close)
                try:
                    netns = await asyncio.to_thread(wiring.build, plugs, attached.ends, joining.netns, joining.sysctls)
                except OSError as error:
                    raise NetworkUnavailable(f"failed to set up container networking: {error.strerror}") from error
                sandbox = Sandbox(f"/proc/{os.getpid()}/fd/{netns}", own=[netns])
                undo.push_async_callback(sandbox.close)
                places = self._places(attached.ends)
                witness = await self._care.begin(container_id, netns, places, joining.resolving, held)
            undo.pop_all()
        if witness is not None:
            sandbox.fds = (witness,)
            sandbox.own.append(witness)
        sandbox.endpoints = attached.ends
        sandbox.ports = self._care.ports(container_id)
        return sandbox

    def _hold(self, attached: Attached) -> Sequence[hostports.Held]:
        """Sockets of the published ports."""
        first, published = attached.ends[0], attached.joining.published
        if not published or not any(place.publishes for place in self._places((first,))):
            return ()
        return self._care.hold(attached.joining.container_id, f"{attached.joining.name} ({first.endpoint_id})",
                               self._addressed(first, published))

    def _addressed(self, end: Endpoint, published: Sequence[PortBinding]) -> Sequence[PortBinding]:
        """Where a network says on which of the host's addresses its ports are published."""
        held = self._catalog.get(end.network_id)
        default = held.options.host_binding if held else ""
        return [replace(port, host_ip=port.host_ip or default) for port in published]

    def _places(self, ends: Sequence[Endpoint]) -> Sequence[Place]:
        return [Place(end, held.network.spec.internal, held.publishes)
                for end in ends if (held := self._catalog.get(end.network_id)) is not None]

    async def republish(self, container_id: str, published: Sequence[PortBinding], pid: int) -> Sequence[PortBinding]:
        """Other ports for a running container, whose process is `pid`; gives them as resolved. What is published before
        and after is not touched.

        Raises PortInUse, InvalidArgument, InvalidNetwork, NetworkUnavailable; then everything is as it was.
        """
        attached = self._attached.get(container_id)
        first = next((end for end in attached.ends[:1] if end.ip or end.ip6), None) if attached else None
        if attached is None or first is None or not any(place.publishes for place in self._places((first,))):
            raise InvalidNetwork("the network of this container publishes no ports")
        ports = await self._care.republish(container_id, pid, self._places(attached.ends),
                                           f"{attached.joining.name} ({first.endpoint_id})",
                                           self._addressed(first, published))
        if (held := self._catalog.get(first.network_id)) is not None and held.bridge is not None and ports:
            await self._in_thread(held.bridge.allow_hairpin, first)
        return ports

    async def connect(self, container_id: str, asked: EndpointSpec, pid: int) -> Sequence[Endpoint]:
        """One network more for a running container, whose process is `pid`; gives all its endpoints."""
        attached = self._attached.get(container_id)
        held = self._catalog.find(asked.network)
        if attached is None:
            raise InvalidNetwork(SHARED)
        self.check_connect(container_id, held.network)
        end = make(held, asked, attached.joining, {one.interface for one in attached.ends})
        before, attached.ends = attached.ends, ordered((*attached.ends, end))
        try:
            plug = wiring.plug(held, end, dict(asked.driver_opts), hairpin=bool(self._care.ports(container_id)))
            await self._in_thread(wiring.add, pid, plug, attached.ends)
            await self._care.changed(container_id, pid, self._places(attached.ends))
        except BaseException:
            attached.ends = before
            await self._undo_connect(container_id, end, pid)
            raise
        self._tell_of(container_id, "connect", end)
        self._changed(container_id)
        return attached.ends

    async def _undo_connect(self, container_id: str, end: Endpoint, pid: int) -> None:
        """The address is another's next: the interface that has it must be gone before."""
        attached = self._attached[container_id]
        with contextlib.suppress(OSError, NetworkUnavailable):
            await self._in_thread(wiring.take_out, pid, end, attached.ends)
        with contextlib.suppress(NetworkUnavailable):
            await self._care.changed(container_id, pid, self._places(attached.ends))
        await self._unplug(container_id, end)

    def check_connect(self, container_id: str, network: Network) -> None:
        """Raises what Docker says where a container cannot have this network too."""
        attached = self._attached.get(container_id)
        ends = attached.ends if attached else ()
        if network.driver == "host" or any(end.driver == "host" for end in ends):
            raise InvalidNetwork("container cannot be disconnected from host network or connected to host network")
        if ends and (network.driver == "null" or any(end.driver == "null" for end in ends)):
            raise InvalidNetwork(ALONE)
        if attached and any(end.network_id == network.id for end in ends):
            raise NetworkForbidden(
                f"endpoint with name {attached.joining.name} already exists in network {network.name}"
            )

    async def disconnect(self, container_id: str, network_id: str, pid: int) -> Sequence[Endpoint]:
        """Gives the endpoints that stay."""
        attached = self._attached[container_id]
        end = next(one for one in attached.ends if one.network_id == network_id)
        before, attached.ends = attached.ends, tuple(one for one in attached.ends if one is not end)
        try:
            await self._in_thread(wiring.take_out, pid, end, attached.ends)
        except BaseException:
            attached.ends = before
            raise
        try:
            await self._care.changed(container_id, pid, self._places(attached.ends))
        except NetworkUnavailable as error:
            # It is out of the network and stays so; the rest is told again when it changes or the keeper comes back.
            log.warning("container %s: %s", container_id[:12], error.message)
        await self._unplug(container_id, end)
        self._tell_of(container_id, "disconnect", end)
        self._changed(container_id)
        return attached.ends

    async def release(self, container_id: str) -> None:
        """Take back what the container had; nothing happens when it has nothing.

        What the kernel refuses is logged, not raised: an exit is booked whatever happens.
        """
        attached = self._attached.pop(container_id, None)
        if attached is None:
            return
        await self._care.end(container_id)
        for end in attached.ends:
            await self._unplug(container_id, end)
            self._tell_of(container_id, "disconnect", end)
        self._changed(container_id)

    async def _unplug(self, container_id: str, end: Endpoint) -> None:
        held = self._catalog.get(end.network_id)
        try:
            if held is not None and held.driver is not None:
                named = replace(end, host_interface=end.host_interface or veth_name(container_id))
                await asyncio.to_thread(held.driver.unplug, named)
        except OSError as error:
            log.warning("the interface of container %s stays: %s", container_id[:12], error)
        finally:
            self._give_back((end,))

    def _give_back(self, ends: Sequence[Endpoint]) -> None:
        for end in ends:
            if held := self._catalog.get(end.network_id):
                held.give_back(end.ip, end.ip6)

    async def renamed(self, container_id: str, old: str, new: str, pid: int) -> None:
        """The container has another name: its networks' DNS answers for that."""
        if attached := self._attached.get(container_id):
            attached.joining = replace(attached.joining, name=new)
            attached.ends = tuple(
                replace(end, dns_names=tuple(new if name == old else name for name in end.dns_names))
                for end in attached.ends
            )
            if any(end.ip or end.ip6 for end in attached.ends):
                await self._care.changed(container_id, pid, self._places(attached.ends))
            self._changed(container_id)

    async def readopt(self, joining: Joining, endpoints: Sequence[Endpoint], published: Sequence[PortBinding], pid: int
                      ) -> None:
        """A container that ran while the daemon was away still has these addresses and ports; its process is `pid`."""
        if not endpoints:
            return
        known = tuple(replace(end, network_id=end.network_id or self.inspect("bridge").id) for end in endpoints)
        for end in known:
            if held := self._catalog.get(end.network_id):
                held.note(end)
        self._attached[joining.container_id] = Attached(joining, known)
        await self._care.adopt(joining.container_id, pid, self._places(known), joining.resolving, published)
        self._changed(joining.container_id)

    async def settle(self) -> None:
        """Every running container is taken over: what is published is theirs and nothing else, in one step.

        Until then all that an earlier daemon published stays. Without its element a published port would not be
        refused but answered by the socket that holds it, and hang.
        """
        await self._care.settle()
        known = {end.host_interface or veth_name(container_id)
                 for container_id, one in self._attached.items() for end in one.ends}
        for held in self._catalog.all():
            if held.bridge is not None:
                await asyncio.to_thread(held.bridge.sweep, known)

    # -- how it is told and done

    def _changed(self, container_id: str) -> None:
        if self.on_change is not None:
            self.on_change(container_id)

    def _tell(self, action: str, network: Network, **attributes: str) -> None:
        about = {**attributes, "name": network.name, "type": network.driver}
        self._events.publish(Event("network", action, network.id, about))

    def _tell_of(self, container_id: str, action: str, end: Endpoint) -> None:
        if held := self._catalog.get(end.network_id):
            self._tell(action, held.network, container=container_id)

    async def _in_thread(self, work: "Callable[..., None]", *arguments: object) -> None:
        """To its end, even when the caller is cancelled: a thread cannot be."""
        working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            raise
        except OSError as error:
            raise NetworkUnavailable(f"failed to set up container networking: {error.strerror or error}") from error


def _check_together(held: Sequence[Held]) -> None:
    drivers = [one.network.driver for one in held]
    if len(drivers) > 1 and "host" in drivers:
        raise InvalidNetwork(SHARED)
    if len(drivers) > 1 and "null" in drivers:
        raise InvalidNetwork(ALONE)
    ids = [one.network.id for one in held]
    if len(set(ids)) < len(ids):
        raise InvalidNetwork("container cannot be connected to one network twice")


def _isolated(joining: Joining) -> Sandbox:
    """Raises NetworkUnavailable."""
    netns, inside = new_namespace() if joining.netns is None else opened(joining.netns)
    inside.close()
    try:
        set_all(netns, joining.sysctls)
    except OSError as error:
        os.close(netns)
        raise NetworkUnavailable(f"failed to set up container networking: {error.strerror}") from error
    return Sandbox(f"/proc/{os.getpid()}/fd/{netns}", own=[netns])
