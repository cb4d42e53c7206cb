"""Networks: what a container gets when it starts, what is taken back when it ends, what is found after a restart."""

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from node.linux.nftables import Nftables, RulesRefused
from node.network import ports, rules
from node.network.addresses import Addresses, mac_of
from node.network.bridge import Bridge, choose_subnet, exists, forget_udp, new_namespace, veth_name
from node.network.model import Endpoint, Joining, Network, NoSuchNetwork, PortBinding, PortInUse, Sandbox
from node.settings import Settings
from node.state.database import State
from node.state.settings import SettingRows
from ocispec.errors import InvalidArgument, Unavailable

JOIN = "container:"
SUBNET_KEY = "bridge-subnet"
BRIDGE_KEY = "bridge-made"
ID_KEYS = {"bridge": "network-id-bridge", "host": "network-id-host", "none": "network-id-none"}

log = logging.getLogger(__name__)


class NetworkUnavailable(Unavailable):
    """The kernel refused a part of the network; the message says which."""


@dataclass(frozen=True, slots=True)
class Attached:
    address: IPv4Address
    ports: tuple[PortBinding, ...]


class Networks:
    """Made by `open_networks`. One attachment a container."""

    def __init__(self, bridge: Bridge, addresses: Addresses, tables: Nftables, table: str, ids: dict[str, str]) -> None:
        self._bridge = bridge
        self._addresses = addresses
        self._tables = tables
        self._table = table
        self._attached: dict[str, Attached] = {}
        subnet, gateway = str(addresses.subnet), str(addresses.gateway)
        self._networks = (
            Network(ids["bridge"], "bridge", "bridge", subnet, gateway),
            Network(ids["host"], "host", "host"),
            Network(ids["none"], "none", "null"),
        )

    def list(self) -> Sequence[Network]:
        return self._networks

    def inspect(self, name_or_id: str) -> Network:
        """Raises NoSuchNetwork."""
        for network in self._networks:
            if name_or_id == network.name or (len(name_or_id) >= 3 and network.id.startswith(name_or_id)):
                return network
        raise NoSuchNetwork(name_or_id)

    @property
    def idle(self) -> bool:
        return not self._attached

    async def attach(
        self, joining: Joining
    ) -> Sandbox:
        """A place for the container; nothing stays behind when it fails.

        Raises NoFreeAddress, PortInUse, NetworkUnavailable, NoSuchNetwork, InvalidArgument, Unimplemented.
        """
        mode, container_id, published = joining.mode, joining.container_id, joining.published
        if mode == "host" or mode.startswith(JOIN):
            # Docker takes -p with these and drops it with a warning: the ports are the host's or the other's.
            return Sandbox(joining.other_netns if mode.startswith(JOIN) else None)
        if mode == "none":
            return await asyncio.to_thread(_isolated)
        if mode not in ("bridge", "default"):
            raise NoSuchNetwork(mode)
        if container_id in self._attached:
            raise InvalidArgument(f"container {container_id[:12]} is attached to the network already")
        working = asyncio.create_task(self._attach(container_id, published))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            # What happens in a thread cannot be cancelled: it is awaited and undone.
            with contextlib.suppress(Exception):
                await (await working).close()
                await self.release(container_id)
            raise

    async def _attach(self, container_id: str, published: Sequence[PortBinding]) -> Sandbox:
        address = self._addresses.take()
        try:
            return await self._connect(container_id, address, published, endpoint_id=secrets.token_hex(32))
        except BaseException:
            self._attached.pop(container_id, None)
            self._addresses.give_back(address)
            raise

    async def _connect(
        self, container_id: str, address: IPv4Address, published: Sequence[PortBinding], endpoint_id: str
    ) -> Sandbox:
        try:
            sockets, resolved = ports.hold(published, self._taken())
        except PortInUse as error:
            raise PortInUse("driver failed programming external connectivity on endpoint "
                            f"{container_id[:12]} ({endpoint_id}): {error.message}") from error
        except OSError as error:
            raise NetworkUnavailable(f"the published ports cannot be held: {error.strerror}") from error
        # Noted before the first await: two starts at once must not be given one port.
        self._attached[container_id] = Attached(address, tuple(resolved))
        async with AsyncExitStack() as undo:
            for held in sockets:
                undo.callback(held.close)
            try:
                netns = await asyncio.to_thread(self._bridge.connect, container_id, address, hairpin=bool(resolved))
            except OSError as error:
                raise NetworkUnavailable(f"failed to set up container networking: {error.strerror}") from error
            sandbox = Sandbox(f"/proc/{os.getpid()}/fd/{netns}", own=[netns])
            undo.push_async_callback(sandbox.close)
            if resolved:
                await self._run(rules.publish(self._table, str(address), resolved))
                await self._forget_udp(resolved)
            undo.pop_all()
        gateway, prefix = str(self._addresses.gateway), self._addresses.subnet.prefixlen
        sandbox.endpoints = (Endpoint(
            str(address), prefix, gateway, mac_of(address), self._networks[0].id, endpoint_id, "bridge", "bridge",
            interface="eth0", host_interface=veth_name(container_id),
        ),)
        sandbox.fds = tuple(held.detach() for held in sockets)
        sandbox.own.extend(sandbox.fds)
        sandbox.ports = tuple(resolved)
        return sandbox

    async def release(self, container_id: str) -> None:
        """Take back what the container had; nothing happens when it has nothing.

        What the kernel refuses is logged, not raised: an exit is booked whatever happens.
        """
        attached = self._attached.pop(container_id, None)
        if attached is None:
            return
        try:
            if attached.ports:
                await self._run(rules.withdraw(self._table, str(attached.address), attached.ports))
        except NetworkUnavailable as error:
            log.warning("ports of container %s stay translated: %s", container_id[:12], error.message)
        await self._forget_udp(attached.ports)
        try:
            await asyncio.to_thread(self._bridge.disconnect, container_id)
        except OSError as error:
            log.warning("the interface of container %s stays: %s", container_id[:12], error)
        finally:
            self._addresses.give_back(attached.address)

    async def readopt(
        self, container_id: str, _name: str, endpoints: Sequence[Endpoint], published: Sequence[PortBinding]
    ) -> None:
        """A container that ran while the daemon was away still has these addresses and ports."""
        for address in (end.ip for end in endpoints if end.ip):
            self._addresses.claim(IPv4Address(address))
            self._attached[container_id] = Attached(IPv4Address(address), tuple(published))

    async def settle(self) -> None:
        """Every running container is taken over: what is published is theirs and nothing else, in one step.

        Until then all that an earlier daemon published stays. Without its element a published port would not be
        refused but answered by the socket that holds it, and hang.
        """
        held = [(str(attached.address), attached.ports) for attached in self._attached.values()]
        await self._run(rules.exactly(self._table, held))

    async def _forget_udp(self, ports: Sequence[PortBinding]) -> None:
        if any(port.proto == "udp" for port in ports):
            try:
                await asyncio.to_thread(forget_udp, ports)
            except OSError as error:
                log.warning("clients that sent to a UDP port before may not reach it: %s", error)

    def _taken(self) -> dict[tuple[str, str, int], str]:
        return {(port.proto, port.host_ip, port.host_port): container
                for container, attached in self._attached.items() for port in attached.ports}

    async def _run(self, text: str) -> None:
        try:
            await asyncio.to_thread(self._tables.run, text)
        except OSError as error:
            raise NetworkUnavailable(error.strerror or str(error)) from error


def _isolated() -> Sandbox:
    netns, inside = new_namespace()
    inside.close()
    return Sandbox(f"/proc/{os.getpid()}/fd/{netns}", own=[netns])


@asynccontextmanager
async def open_networks(settings: Settings, state: State) -> AsyncIterator[Networks]:
    """Bridge and rules, made or taken over; removed at the end when no container is left on them.

    Raises InvalidSubnet and NetworkUnavailable.
    """
    rows = SettingRows(state)
    remembered = await rows.get(SUBNET_KEY) or ""
    subnet = await asyncio.to_thread(choose_subnet, settings.bridge_subnet, remembered, settings.bridge_name)
    if str(subnet) != remembered:
        await rows.put(SUBNET_KEY, str(subnet))
    ids = {name: await _remembered_id(rows, key) for name, key in ID_KEYS.items()}
    addresses = Addresses(subnet)
    bridge = Bridge(settings.bridge_name, subnet, addresses.gateway)
    tables = await _make(bridge, settings, subnet, ours=await _is_ours(settings, rows))
    networks = Networks(bridge, addresses, tables, settings.nft_table, ids)
    try:
        yield networks
    finally:
        if networks.idle:
            await asyncio.to_thread(tables.run, rules.drop_table(settings.nft_table))
            await asyncio.to_thread(bridge.remove)


async def _make(bridge: Bridge, settings: Settings, subnet: IPv4Network, *, ours: bool) -> Nftables:
    name, table = settings.bridge_name, settings.nft_table
    try:
        tables = await asyncio.to_thread(Nftables)
        await asyncio.to_thread(bridge.prepare, ours=ours)
        try:
            await asyncio.to_thread(tables.run, rules.table(table, name, subnet))
        except RulesRefused:
            await asyncio.to_thread(tables.run, rules.new_table(table, name, subnet))
    except OSError as error:
        raise NetworkUnavailable(f"the bridge {name} cannot be made: {error.strerror or error}") from error
    return tables


async def _is_ours(settings: Settings, rows: SettingRows) -> bool:
    """Whether a bridge of that name is this node's: by a name that is made from the home, or because it made it."""
    if settings.bridge_name == f"sw{settings.tag}" or await rows.get(BRIDGE_KEY) == settings.bridge_name:
        return True
    if not await asyncio.to_thread(exists, settings.bridge_name):
        await rows.put(BRIDGE_KEY, settings.bridge_name)
    return False


async def _remembered_id(rows: SettingRows, key: str) -> str:
    found = await rows.get(key)
    if found is None:
        found = secrets.token_hex(32)
        await rows.put(key, found)
    return found
