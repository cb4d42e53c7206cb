"""What running containers have on the network beyond their interfaces: names that are answered, and ports of the host
that are held and translated. The part that outlives the daemon is the keeper's (node.network.keeper)."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from node.linux.nftables import Nftables
from node.network import hostports, listening, published
from node.network.bridge import forget_udp
from node.network.hostports import Bind, Held
from node.network.keeper import Keeper, KeeperGone
from node.network.model import Endpoint, NetworkUnavailable, PortBinding, PortInUse, Resolving
from node.network.namespace import open_namespace
from node.network.published import Target
from ocispec.errors import InvalidArgument

log = logging.getLogger(__name__)

HOSTS_RESOLVERS = "host"
"""The keeper asks whomever the host asks at that moment."""


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint, and whether its network leads nowhere else."""

    end: Endpoint
    internal: bool = False
    publishes: bool = True


@dataclass(slots=True)
class Kept:
    """`life` becomes readable when the container has ended; `netns` is its namespace. Both are this process's copies,
    with which another keeper can be told; -1: none."""

    places: tuple[Place, ...] = ()
    resolving: Resolving = field(default_factory=Resolving)
    ports: tuple[PortBinding, ...] = ()
    life: int = -1
    netns: int = -1
    listens: bool = False
    carried: bool = False
    """The sockets that hold its ports are of another network than ours: the keeper carries all that comes to them."""

    @property
    def named(self) -> bool:
        return any(place.end.named for place in self.places)

    @property
    def targets(self) -> list[Target]:
        """Ports lead to the addresses of the network that has the default route."""
        first = self.places[0] if self.places else Place(Endpoint())
        if not first.publishes:
            return []
        addresses = {4: first.end.ip, 6: first.end.ip6}
        return [Target(port, address) for port in self.ports
                if (address := addresses[6 if ":" in port.host_ip else 4])]

    @property
    def relays(self) -> dict[str, tuple[str, int]]:
        """What the kernel cannot translate: IPv6 clients of a container without an IPv6 address, the host's ::1, and
        whoever comes to a socket of another network."""
        first = self.places[0] if self.places else Place(Endpoint())
        address = first.end.ip6 or first.end.ip
        if not address or not first.publishes:
            return {}
        return {hostports.key(port): (address, port.container_port) for port in self.ports
                if (self.carried or ":" in port.host_ip) and port.proto != "sctp"}

    def close(self) -> None:
        for fd in (self.life, self.netns):
            if fd >= 0:
                os.close(fd)
        self.life = self.netns = -1


class Care:
    """Of one container one thing happens at a time: its lock is held by the caller."""

    def __init__(self, keeper: Keeper, tables: Nftables, table: str,
                 everywhere: Sequence[str] = hostports.EVERYWHERE, bind: Bind | None = None) -> None:
        """`bind` makes sockets of the host's network where that is not ours."""
        self._keeper = keeper
        self._tables = tables
        self._table = table
        self._everywhere = everywhere
        self._bind = bind or hostports.bind_here
        self._carried = bind is not None
        self._kept: dict[str, Kept] = {}
        self._left: dict[str, list[str]] = {}
        keeper.on_lost = self._restore

    async def open(self) -> None:
        """Find what an earlier daemon left in the keeper's care."""
        try:
            self._left = await self._keeper.open()
        except KeeperGone as error:
            log.warning("%s", error.message)

    async def close(self, *, for_good: bool) -> None:
        """`for_good`: no container is left."""
        if for_good:
            await self._keeper.quit()
        await self._keeper.close()
        for kept in self._kept.values():
            kept.close()

    def ports(self, container_id: str) -> tuple[PortBinding, ...]:
        kept = self._kept.get(container_id)
        return kept.ports if kept else ()

    async def near(self, interface: str, *, gone: bool = False) -> None:
        """A bridge of ours: what comes from there is no matter of the host's firewall. Raises NetworkUnavailable."""
        await self._run((published.delete_nearby if gone else published.add_nearby)(self._table, interface))

    # -- a container starts

    def hold(self, container_id: str, who: str, wanted: Sequence[PortBinding]) -> list[Held]:
        """Sockets of its published ports. Noted at once, before anything is awaited: two starts must not get one port.

        `who` names it in messages. Raises PortInUse, InvalidArgument, NetworkUnavailable.
        """
        try:
            if self._carried and any(one.proto == "sctp" for one in wanted):
                raise InvalidArgument("a rootless node publishes no SCTP ports: nothing here could carry them over")
            held = hostports.hold(wanted, self._taken(), self._everywhere, self._bind)
        except PortInUse as error:
            raise PortInUse(f"driver failed programming external connectivity on endpoint {who}: {error.message}"
                            ) from error
        except OSError as error:
            raise NetworkUnavailable(f"the published ports cannot be held: {error.strerror}") from error
        if held:
            self._kept.setdefault(container_id, Kept(carried=self._carried)).ports = tuple(one.binding for one in held)
        return held

    async def begin(self, container_id: str, netns: int, places: Sequence[Place], resolving: Resolving,
                    held: Sequence[Held]) -> int | None:
        """Names answered and ports translated from now on. Gives a descriptor whose copies must be held for as long as
        the container lives (None: nothing is kept for it); it is the caller's. Nothing stays when it fails.

        Raises NetworkUnavailable.
        """
        kept = self._kept.setdefault(container_id, Kept(carried=self._carried))
        kept.places, kept.resolving = tuple(places), resolving
        if not kept.ports and not kept.named:
            return None
        kept.life, witness = os.pipe()
        try:
            kept.netns = os.dup(netns)
            await self._tell(container_id, kept, held)
            await self._run(published.publish(self._table, kept.targets))
            await self._forget_udp(kept.ports)
        except BaseException as error:
            os.close(witness)
            await self.end(container_id)
            if isinstance(error, KeeperGone | OSError):
                raise NetworkUnavailable(f"names and ports of the container: {error}") from error
            raise
        return witness

    async def _tell(self, container_id: str, kept: Kept, held: Sequence[Held]) -> None:
        ports = {hostports.key(one.binding): one.socket for one in held if one.socket is not None}
        await self._keeper.begin(container_id, kept.life, ports, kept.relays)
        await self._name(container_id, kept, afresh=True)

    async def _relay(self, container_id: str, kept: Kept) -> None:
        if any(kept.carried or ":" in port.host_ip for port in kept.ports):
            await self._keeper.relay(container_id, kept.relays)

    async def _name(self, container_id: str, kept: Kept, *, afresh: bool = False) -> None:
        if not kept.named and not kept.listens:
            return
        if afresh or not kept.listens:
            datagrams, streams = await asyncio.to_thread(listening.listen, kept.netns)
            with datagrams, streams:
                await self._keeper.listen(container_id, kept.netns, datagrams, streams, _names(kept))
            kept.listens = True
            return
        await self._keeper.names(container_id, _names(kept))

    # -- while it runs

    async def changed(self, container_id: str, pid: int, places: Sequence[Place]) -> None:
        """It is on other networks, or has another name. Raises NetworkUnavailable."""
        kept = self._kept.setdefault(container_id, Kept(carried=self._carried))
        before = kept.targets
        kept.places = tuple(places)
        try:
            if kept.named:
                await self._begin_late(container_id, kept, pid)
            await self._name(container_id, kept)
            await self._relay(container_id, kept)
            await self._retarget(before, kept)
        except (KeeperGone, OSError) as error:
            raise NetworkUnavailable(f"names and ports of the container: {error}") from error

    async def republish(self, container_id: str, pid: int, places: Sequence[Place], who: str,
                        wanted: Sequence[PortBinding]) -> tuple[PortBinding, ...]:
        """Other ports for a container that goes on: what is in both stays untouched. Gives them as resolved.

        Raises PortInUse, InvalidArgument, NetworkUnavailable; then everything is as it was.
        """
        kept = self._kept.setdefault(container_id, Kept(carried=self._carried))
        kept.places = tuple(places)
        stay, new = _differences(kept.ports, wanted)
        old, before, held = kept.ports, kept.targets, []
        try:
            kept.ports = tuple(stay)
            held = self.hold(container_id, who, new)
            kept.ports = (*stay, *(one.binding for one in held))
            await self._begin_late(container_id, kept, pid)
            await self._keeper.hold(container_id, {hostports.key(one.binding): one.socket for one in held
                                                   if one.socket is not None})
            await self._relay(container_id, kept)
            await self._retarget(before, kept)
        except BaseException as error:
            kept.ports = old
            await self._let_go(container_id, kept, [one.binding for one in held])
            if isinstance(error, KeeperGone | OSError):
                raise NetworkUnavailable(f"the published ports: {error}") from error
            raise
        finally:
            for one in held:
                one.close()
        await self._keeper.let_go(container_id, [hostports.key(port) for port in old if port not in stay])
        return kept.ports

    async def _begin_late(self, container_id: str, kept: Kept, pid: int) -> None:
        """It had nothing to be kept when it started. Raises KeeperGone, OSError; then the next change begins anew."""
        if kept.life >= 0:
            return
        try:
            _witness(kept, pid)
            await self._keeper.begin(container_id, kept.life)
        except BaseException:
            kept.close()
            raise

    async def _let_go(self, container_id: str, kept: Kept, ports: Sequence[PortBinding]) -> None:
        """They were to be published and are not: nobody could have them before the container ends."""
        try:
            if ports and kept.life >= 0:
                await self._keeper.let_go(container_id, [hostports.key(port) for port in ports])
                await self._relay(container_id, kept)
        except KeeperGone as error:
            log.warning("ports of container %s: %s", container_id[:12], error.message)

    async def _retarget(self, before: Sequence[Target], kept: Kept) -> None:
        after = kept.targets
        gone = [target for target in before if target not in after]
        new = [target for target in after if target not in before]
        if gone or new:
            await self._run(published.withdraw(self._table, gone) + published.publish(self._table, new))
            await self._forget_udp(target.port for target in (*gone, *new))

    # -- it has ended

    async def end(self, container_id: str) -> None:
        """Nothing happens when it has nothing. What is refused is logged: an exit is booked whatever happens."""
        kept = self._kept.pop(container_id, None)
        if kept is None:
            return
        try:
            if targets := kept.targets:
                await self._run(published.withdraw(self._table, targets))
        except NetworkUnavailable as error:
            log.warning("ports of container %s stay: %s", container_id[:12], error.message)
        try:
            if kept.life >= 0:
                await self._keeper.drop(container_id)
        except KeeperGone as error:
            log.warning("names and ports of container %s: %s", container_id[:12], error.message)
        finally:
            kept.close()
        await self._forget_udp(kept.ports)

    # -- after a restart

    async def adopt(self, container_id: str, pid: int, places: Sequence[Place], resolving: Resolving,
                    ports: Sequence[PortBinding]) -> None:
        """A container that ran while the daemon was away. What the keeper lost meanwhile is told again."""
        kept = Kept(tuple(places), resolving, tuple(ports), carried=self._carried)
        if not kept.ports and not kept.named:
            return
        self._kept[container_id] = kept
        try:
            _witness(kept, pid)
            known = self._left.pop(container_id, None)
            if known is None:
                await self._again(container_id, kept)
                return
            kept.listens = kept.named
            missing = [port for port in kept.ports if hostports.key(port) not in known]
            # The daemon before died while it changed them.
            ours = {hostports.key(port) for port in kept.ports}
            await self._keeper.let_go(container_id, [key for key in known if key not in ours])
            await self._hold_again(container_id, missing)
            await self._relay(container_id, kept)
            await self._name(container_id, kept)
        except (KeeperGone, OSError) as error:
            log.warning("names and ports of container %s: %s", container_id[:12], error)

    async def settle(self) -> None:
        """Everyone is taken over: what is published and kept is theirs and nothing else. Raises NetworkUnavailable."""
        everything = [target for kept in self._kept.values() for target in kept.targets]
        await self._run(published.exactly(self._table, everything))
        for container_id in self._left:
            with contextlib.suppress(KeeperGone):
                await self._keeper.drop(container_id)
        self._left = {}

    async def _restore(self) -> None:
        """The keeper is gone, and another one is told everything."""
        for container_id, kept in list(self._kept.items()):
            if kept.life < 0:
                continue
            try:
                await self._again(container_id, kept)
            except (KeeperGone, OSError) as error:  # it may be ending: that is no reason to forget all others
                log.warning("names and ports of container %s: %s", container_id[:12], error)

    async def _again(self, container_id: str, kept: Kept) -> None:
        await self._keeper.begin(container_id, kept.life)
        await self._hold_again(container_id, kept.ports)
        await self._relay(container_id, kept)
        await self._name(container_id, kept, afresh=True)

    async def _hold_again(self, container_id: str, ports: Sequence[PortBinding]) -> None:
        held = list(hostports.again(ports, self._bind))
        try:
            await self._keeper.hold(container_id, {hostports.key(one.binding): one.socket for one in held
                                                   if one.socket is not None})
        finally:
            for one in held:
                one.close()
        if len(held) < len(ports):
            log.warning("another program has taken a published port of container %s", container_id[:12])

    # -- how it is done

    def _taken(self) -> Iterator[tuple[str, str, int]]:
        return ((port.proto, port.host_ip, port.host_port) for kept in self._kept.values() for port in kept.ports)

    async def _forget_udp(self, ports: Iterable[PortBinding]) -> None:
        if udp := [port for port in ports if port.proto == "udp"]:
            try:
                await asyncio.to_thread(forget_udp, udp)
            except OSError as error:
                log.warning("clients that sent to a UDP port before may not reach it: %s", error)

    async def _run(self, text: str) -> None:
        if not text:
            return
        try:
            await asyncio.to_thread(self._tables.run, text)
        except OSError as error:
            raise NetworkUnavailable(error.strerror or str(error)) from error


def _witness(kept: Kept, pid: int) -> None:
    """Where no monitor holds a pipe for us: the process itself. Raises OSError."""
    if kept.life < 0:
        kept.life = os.pidfd_open(pid)
    if kept.netns < 0:
        kept.netns = open_namespace(pid)


def _differences(have: Sequence[PortBinding], wanted: Sequence[PortBinding]
                 ) -> tuple[list[PortBinding], list[PortBinding]]:
    """Bindings that stay, as resolved, and those that are to be made. One that names no port is met by any it has."""
    left, stay, new = list(have), [], []
    for one in wanted:
        last = max(one.host_port, one.host_port_end)
        same = [port for port in left
                if (port.proto, port.container_port) == (one.proto, one.container_port)
                and (not one.host_port or one.host_port <= port.host_port <= last)
                and (port.host_ip == one.host_ip or not one.host_ip)]
        if one.host_ip:
            same = same[:1]
        elif same:
            same = [port for port in same if port.host_port == same[0].host_port]
        if not same:
            new.append(one)
        for port in same:
            left.remove(port)
            stay.append(port)
    return stay, new


def _names(kept: Kept) -> dict[str, Any]:
    servers: list[list[Any]] = []
    if any(not place.internal for place in kept.places):
        servers = [[server, False] for server in kept.resolving.servers] or [[HOSTS_RESOLVERS, True]]
    return {"places": [_membership(place.end) for place in kept.places if place.end.named], "servers": servers,
            "dotted_only": kept.resolving.dotted_only}


def _membership(end: Endpoint) -> dict[str, Any]:
    addresses = [(end.ip, end.prefix), (end.ip6, end.prefix6)]
    links = dict(reversed(link.partition(":")[::2]) for link in end.links)
    return {
        "id": end.network_id,
        "name": end.network_name,
        # Of a network that others give addresses on too (macvlan), outside resolvers may know more.
        "subnets": [str(ip_interface(f"{address}/{prefix}").network) for address, prefix in addresses
                    if address and end.driver == "bridge"],
        "names": list(end.dns_names),
        "addresses": [address for address, _ in addresses if address],
        "links": {alias or name: name for alias, name in links.items()},
    }
