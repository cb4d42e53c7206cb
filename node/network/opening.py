"""Putting the room together, and the networks that every node has."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Network

from node.events import EventBus
from node.linux.nftables import Nftables
from node.network import rules
from node.network.bridge import exists
from node.network.catalog import Catalog, now
from node.network.held import hold
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


@asynccontextmanager
async def open_networks(settings: Settings, state: State, events: EventBus | None = None) -> AsyncIterator[Networks]:
    """Bridges and rules, made or taken over; removed at the end when no container is left on them.

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
        await asyncio.to_thread(builtin[0].driver.prepare, ours=await _is_ours(settings, rows))
        catalog = Catalog(NetworkRows(state), tables, settings.nft_table, builtin)
        await catalog.restore()
    except OSError as error:
        raise NetworkUnavailable(
            f"the bridge {settings.bridge_name} cannot be made: {error.strerror or error}"
        ) from error
    networks = Networks(catalog, tables, events or EventBus())
    try:
        yield networks
    finally:
        if networks.idle:
            await asyncio.to_thread(tables.run, rules.drop_table(settings.nft_table))
            await asyncio.to_thread(catalog.take_down)


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
