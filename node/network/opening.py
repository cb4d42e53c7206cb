"""Putting the room together, and the networks that every node has."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Network

from node.events import EventBus
from node.linux.nftables import Nftables, RulesRefused
from node.network import published, rules
from node.network.bridge import exists
from node.network.care import Care
from node.network.catalog import Catalog, now
from node.network.forwarding import Forwarding
from node.network.front import Front
from node.network.held import hold
from node.network.hostports import EVERYWHERE, Bind
from node.network.keeper import Keeper
from node.network.model import Network, NetworkSpec, NetworkUnavailable, Pool
from node.network.options import BRIDGE, MTU
from node.network.store import Networks
from node.network.subnets import choose_subnet
from node.settings import Settings
from node.state.database import State
from node.state.networks import NetworkRows
from node.state.settings import SettingRows

SUBNET_KEY = "bridge-subnet"
BRIDGE_KEY = "bridge-made"
ID_KEYS = {"bridge": "network-id-bridge", "host": "network-id-host", "none": "network-id-none"}
CREATED_KEY = "networks-created"

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_networks(settings: Settings, state: State, events: EventBus | None = None,
                        bind: Bind | None = None) -> AsyncIterator[Networks]:
    """Bridges and rules, made or taken over; removed at the end when no container is left on them.

    `bind` makes the sockets of published ports where the host's network is not the one we are in.

    Raises InvalidSubnet and NetworkUnavailable.
    """
    rows = SettingRows(state)
    remembered = await rows.get(SUBNET_KEY) or ""
    subnet = await asyncio.to_thread(choose_subnet, settings.bridge_subnet, remembered, settings.bridge_name)
    if str(subnet) != remembered:
        await rows.put(SUBNET_KEY, str(subnet))
    builtin = [hold(network, settings.bridge_name) for network in await _builtin(rows, subnet, settings.bridge_name)]
    try:
        tables = await asyncio.to_thread(Nftables)
        assert builtin[0].driver is not None
        forwarding = Forwarding(settings.run / "forwarding.json", tables, f"{settings.nft_table}_fence",
                                (settings.bridge_name, *Front(settings.tag).names))
        await asyncio.to_thread(forwarding.enable, 4)
        await asyncio.to_thread(builtin[0].driver.prepare, ours=await _is_ours(settings, rows))
        catalog = Catalog(NetworkRows(state), tables, settings.nft_table, builtin, forwarding)
        await catalog.restore()
        # In a network of our own nobody has a firewall; the host's governs the sockets that are its own.
        governed = bind is None and not settings.publish.past_firewall
        front = await asyncio.to_thread(lambda: _prepare_ports(settings, tables, catalog, governed=governed))
    except OSError as error:
        raise NetworkUnavailable(
            f"the bridge {settings.bridge_name} cannot be made: {error.strerror or error}"
        ) from error
    care = Care(Keeper(settings.run), tables, settings.ports_table, settings.publish.addresses or EVERYWHERE,
                bind)
    await care.open()
    networks = Networks(catalog, care, events or EventBus())
    try:
        yield networks
    finally:
        await care.close(for_good=networks.idle)
        if networks.idle:
            await asyncio.to_thread(tables.run, rules.drop_table(settings.nft_table)
                                    + published.drop_tables(settings.ports_table))
            await asyncio.to_thread(front.remove)
            await asyncio.to_thread(catalog.take_down)


def _prepare_ports(settings: Settings, tables: Nftables, catalog: Catalog, *, governed: bool) -> Front:
    """The tables of published ports, governed by the host's firewall where this host can. Blocks; raises OSError."""
    front, name = Front(settings.tag), settings.ports_table
    bridges = [held.bridge.name for held in catalog.all() if held.bridge is not None]
    if governed:
        if front.prepare():
            try:
                _load(tables, name, bridges, front.names)
            except RulesRefused as error:
                log.warning("this kernel cannot let the host's firewall govern published ports: %s", error)
            else:
                return front
        else:
            log.warning("published ports are open whatever the host's firewall says: net.ipv4.conf.all.rp_filter is 1")
    _load(tables, name, bridges, None)
    front.remove()
    return front


def _load(tables: Nftables, name: str, bridges: Sequence[str], front: tuple[str, str] | None) -> None:
    text = published.tables(name, bridges, front)
    try:
        tables.run(text)
    except RulesRefused:
        # Another version's have sets of another kind.
        tables.run(published.drop_tables(name) + text)


async def _builtin(rows: SettingRows, subnet: IPv4Network, bridge: str) -> Sequence[Network]:
    ids = {name: await _remembered_id(rows, key) for name, key in ID_KEYS.items()}
    created = await rows.get(CREATED_KEY)
    if created is None:
        created = now()
        await rows.put(CREATED_KEY, created)
    options = {
        f"{BRIDGE}default_bridge": "true", f"{BRIDGE}enable_icc": "true", f"{BRIDGE}enable_ip_masquerade": "true",
        f"{BRIDGE}name": bridge, MTU: "1500",
    }  # fmt: skip
    pool = Pool(str(subnet), str(subnet.network_address + 1))
    return (
        Network(ids["bridge"], created, NetworkSpec("bridge", pools=(pool,), options=options)),
        Network(ids["host"], created, NetworkSpec("host", "host")),
        Network(ids["none"], created, NetworkSpec("none", "null")),
    )


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
