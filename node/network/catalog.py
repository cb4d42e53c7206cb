"""Which networks there are: bridge, host, none and those that users made; made, found, removed, known again."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_network

from node.linux.nftables import Nftables, RulesRefused
from node.network import rules
from node.network.bridge import exists
from node.network.definition import check, complete, with_configuration
from node.network.forwarding import Forwarding
from node.network.held import Held, decode, encode, hold
from node.network.macvlan import probe
from node.network.model import (
    AmbiguousNetwork,
    Network,
    NetworkExists,
    NetworkForbidden,
    NetworkSpec,
    NetworkUnavailable,
    NoSuchNetwork,
)
from node.state.networks import NetworkRows

FOREIGN = "the interface {} exists already and is not a network's"

log = logging.getLogger(__name__)


class Catalog:
    def __init__(self, rows: NetworkRows, tables: Nftables, table: str, builtin: Sequence[Held],
                 forwarding: Forwarding) -> None:
        self._forwarding = forwarding
        self._rows = rows
        self._tables = tables
        self.table = table
        self._held = {held.network.id: held for held in builtin}
        self._changing = asyncio.Lock()

    def all(self) -> list[Held]:
        return list(self._held.values())

    def get(self, network_id: str) -> Held | None:
        return self._held.get(network_id)

    def find(self, name_or_id: str) -> Held:
        """Full id, then name, then unambiguous prefix. Raises NoSuchNetwork, AmbiguousNetwork."""
        if found := self._held.get(name_or_id):
            return found
        for held in self._held.values():
            if held.network.name == name_or_id:
                return held
        found_by_prefix = [held for key, held in self._held.items() if name_or_id and key.startswith(name_or_id)]
        if len(found_by_prefix) > 1:
            raise AmbiguousNetwork(
                f"network {name_or_id} is ambiguous ({len(found_by_prefix)} matches found on ID prefix)"
            )
        if not found_by_prefix:
            raise NoSuchNetwork(name_or_id)
        return found_by_prefix[0]

    async def create(self, spec: NetworkSpec) -> Network:
        """Raises InvalidNetwork, NetworkForbidden, NetworkExists, NetworkUnavailable, Unimplemented."""
        check(spec)
        async with self._changing:
            if any(held.network.name == spec.name for held in self._held.values()):
                raise NetworkExists(spec.name)
            others = [held.network for held in self._held.values()]
            whole = await asyncio.to_thread(complete, with_configuration(spec, others), others)
            held = hold(await asyncio.to_thread(self._define, spec, whole))
            self._check_bridge(held)
            if held.bridge is not None and await asyncio.to_thread(exists, held.bridge.name):
                # Before there is a row: with one, the next daemon would take somebody else's bridge for its own.
                raise NetworkForbidden(FOREIGN.format(held.bridge.name))
            # The row first: what a killed daemon had made without one, nobody would ever take away.
            await self._rows.add(held.network.id, spec.name, encode(held.network))
            try:
                await self._make(held, ours=False)
            except BaseException:
                await self._rows.remove(held.network.id)
                raise
            self._held[held.network.id] = held
        return held.network

    @staticmethod
    def _define(asked: NetworkSpec, whole: NetworkSpec) -> Network:
        network_id, created = secrets.token_hex(32), now()
        parent, made = whole.options.get("parent", ""), False
        if whole.driver in ("macvlan", "ipvlan") and not whole.config_only:
            try:
                probe(whole)
                made = not parent or not exists(parent)
            except OSError as error:
                raise NetworkUnavailable(f"{whole.driver} cannot be used: {error.strerror}") from error
        return Network(network_id, created, whole, any(pool.subnet for pool in asked.pools) or bool(asked.config_from),
                       made)

    def _check_bridge(self, held: Held) -> None:
        if held.bridge and any(other.bridge and other.bridge.name == held.bridge.name for other in self._held.values()):
            raise NetworkForbidden(f"cannot create network {held.network.name} ({held.bridge.name}): "
                                   "networks have same bridge name")

    async def _make(self, held: Held, *, ours: bool) -> None:
        if held.driver is None:
            return
        driver, text = held.driver, rules.add_network(self.table, held.rules) if held.rules else ""
        try:
            await asyncio.to_thread(self._forward, held)
            await asyncio.to_thread(driver.prepare, ours=ours)
            if text:
                await asyncio.to_thread(self._tables.run, text)
        except FileExistsError as error:
            raise NetworkForbidden(FOREIGN.format(driver.name)) from error
        except OSError as error:
            await self._unmake(held)
            raise NetworkUnavailable(
                f"network {held.network.name} cannot be made: {error.strerror or error}"
            ) from error

    async def _unmake(self, held: Held) -> None:
        if held.rules is not None:
            await self._quietly(self._tables.run, rules.delete_network(self.table, held.rules))
        if held.driver is not None:
            await self._quietly(held.driver.remove)

    @staticmethod
    async def _quietly(work: Callable[..., None], *arguments: str) -> None:
        try:
            await asyncio.to_thread(work, *arguments)
        except OSError as error:
            log.warning("a part of a network stays: %s", error)

    async def remove(self, name_or_id: str, users: Callable[[str], Sequence[str]]) -> Network:
        """`users` says who is on a network now. Raises NoSuchNetwork, NetworkForbidden."""
        async with self._changing:
            held = self.find(name_or_id)
            network = held.network
            if network.builtin:
                raise NetworkForbidden(f"{network.name} is a pre-defined network and cannot be removed")
            if on := users(network.id):
                raise NetworkForbidden(f"error while removing network: network {network.name} has active endpoints "
                                       f"({', '.join(on)})")
            # Gone from memory before the first await: nobody joins a network that is being taken apart.
            del self._held[network.id]
            # The row last: a daemon that is killed in between is asked again for a whole network, not left with half.
            await self._unmake(held)
            try:
                await self._rows.remove(network.id)
            except BaseException:
                self._held[network.id] = held
                await self._make(held, ours=True)
                raise
        return network

    async def restore(self) -> None:
        """What the rows say, made or taken over. One that the kernel refuses is known all the same."""
        for text in await self._rows.all():
            held = hold(decode(text))
            self._held[held.network.id] = held
        await asyncio.to_thread(self._prepare_all)
        every = [held.rules for held in self._held.values() if held.rules]
        try:
            await asyncio.to_thread(self._tables.run, rules.table(self.table, every))
        except RulesRefused:
            await asyncio.to_thread(self._tables.run, rules.new_table(self.table, every))

    def _prepare_all(self) -> None:
        for held in self._held.values():
            try:
                if held.driver is not None and not held.network.builtin:
                    self._forward(held)
                    held.driver.prepare(ours=True)
            except OSError as error:
                log.warning("network %s cannot be made: %s", held.network.name, error)

    def _forward(self, held: Held) -> None:
        """Blocks; raises OSError."""
        if held.bridge is not None and not held.network.spec.internal:
            for version in {ip_network(pool.subnet).version for pool in held.network.spec.pools}:
                self._forwarding.enable(version)

    def take_down(self) -> None:
        """Nobody is on any network and the node stops: bridges go, the networks stay known. Blocks."""
        for held in self._held.values():
            if held.driver is not None:
                held.driver.remove()
        self._forwarding.disable()


def now() -> str:
    """RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
