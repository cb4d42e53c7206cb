"""Holding published ports: a bound socket each, so that nobody else of the host can have them."""

import errno
import os
import random
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from node.network.model import ANY, ANY6, PortBinding, PortInUse
from ocispec.errors import InvalidArgument

KINDS = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0),
         "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP)}  # fmt: skip
EVERYWHERE = (ANY, ANY6)
"""Where a port without an address is published."""

TRIES = 20
UNPRIVILEGED = 1024
EPHEMERAL = range(32768, 61000)

Bind = Callable[[int, int, int, str, int], socket.socket]
"""Of family, kind, protocol, address and port: a bound socket, listening where its kind can. Raises OSError."""

Taken = Iterable[tuple[str, str, int]]
"""(protocol, host address, host port)."""


@dataclass(frozen=True, slots=True)
class Held:
    """`socket` None: the kernel has no sockets of that protocol (SCTP), so nobody else can have the port either."""

    binding: PortBinding
    socket: socket.socket | None

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()


class Occupied:
    """Which ports are taken, asked for quickly: one container may have thousands."""

    def __init__(self, taken: Taken) -> None:
        self._addresses: dict[tuple[str, bool, int], set[str]] = {}
        for proto, address, port in taken:
            self.add(proto, address, port)

    def add(self, proto: str, address: str, port: int) -> None:
        self._addresses.setdefault((proto, ":" in address, port), set()).add(address)

    def meets(self, binding: PortBinding) -> bool:
        six = ":" in binding.host_ip
        taken = self._addresses.get((binding.proto, six, binding.host_port))
        everywhere = ANY6 if six else ANY
        return taken is not None and (binding.host_ip in taken or everywhere in taken or binding.host_ip == everywhere)


def key(binding: PortBinding) -> str:
    """What it is called where it is kept."""
    return f"{binding.proto} {binding.host_ip} {binding.host_port}"


def bind_here(family: int, kind: int, proto: int, address: str, port: int) -> socket.socket:
    """A socket of this process's network. Raises OSError."""
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            # A listener of before whose connections linger in TIME_WAIT is no reason to refuse.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        if kind == socket.SOCK_STREAM:
            made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def hold(published: Sequence[PortBinding], taken: Taken, everywhere: Sequence[str] = EVERYWHERE,
         bind: Bind = bind_here) -> list[Held]:
    """The bindings with addresses and ports filled in, and their sockets. All or none.

    A port without an address is held on each of `everywhere`, with one number for all. Raises PortInUse,
    InvalidArgument, OSError (no more descriptors).
    """
    held: list[Held] = []
    occupied = Occupied(taken)
    try:
        for wanted in published:
            for made in _hold(wanted, occupied, everywhere, bind):
                held.append(made)
                occupied.add(made.binding.proto, made.binding.host_ip, made.binding.host_port)
    except BaseException:
        for made in held:
            made.close()
        raise
    return held


def again(bindings: Sequence[PortBinding], bind: Bind = bind_here) -> Iterator[Held]:
    """The same once more, where who held them is gone. What another program took meanwhile is left out."""
    for binding in bindings:
        try:
            yield Held(binding, _bind(binding, bind))
        except (OSError, PortInUse):
            continue


def _hold(wanted: PortBinding, occupied: Occupied, everywhere: Sequence[str], bind: Bind) -> list[Held]:
    addresses = _addresses(wanted, everywhere)
    numbers = range(wanted.host_port, max(wanted.host_port, wanted.host_port_end) + 1)
    if not wanted.host_port:
        numbers = range(TRIES)
    for number in numbers:
        try:
            return _hold_one(replace(wanted, host_port=number if wanted.host_port else 0, host_port_end=0), addresses,
                             occupied, bind, implied=not wanted.host_ip)
        except PortInUse:
            if number == numbers[-1]:
                raise
    raise AssertionError("a range of ports is never empty")


def _hold_one(wanted: PortBinding, addresses: Sequence[str], occupied: Occupied, bind: Bind, *,
              implied: bool) -> list[Held]:
    """On every address or on none."""
    held: list[Held] = []
    number = wanted.host_port
    try:
        for address in addresses:
            binding = replace(wanted, host_ip=address, host_port=number)
            _check(binding, occupied)
            try:
                sock = _bind(binding, bind)
            except OSError as error:
                if implied and held and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    continue  # a host without IPv6
                raise _refused(binding, error) from error
            number = sock.getsockname()[1] if sock is not None else number or random.choice(EPHEMERAL)  # noqa: S311
            held.append(Held(replace(binding, host_port=number), sock))
    except BaseException:
        for made in held:
            made.close()
        raise
    return held


def _addresses(wanted: PortBinding, everywhere: Sequence[str]) -> list[str]:
    """In their one usual form: they become part of a rule and of a key, and are never looked up as names."""
    if wanted.proto not in KINDS:
        raise InvalidArgument(f"invalid protocol {wanted.proto[:20]!r}: a port is published over tcp, udp or sctp")
    return [str(_parsed(text)) for text in ([wanted.host_ip] if wanted.host_ip else everywhere)]


def _parsed(text: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError as error:
        raise InvalidArgument(f"invalid IP address: {text[:100]!r} (to publish a port on)") from error
    if address.version == 6 and (address.scope_id or address.is_link_local):
        raise InvalidArgument(f"invalid IP address: {text[:100]!r} (a link-local address is none to publish a port on)")
    return address


def _check(binding: PortBinding, occupied: Occupied) -> None:
    if binding.host_port and occupied.meets(binding):
        raise PortInUse(f"Bind for {_shown(binding)} failed: port is already allocated")


def _shown(binding: PortBinding) -> str:
    host = f"[{binding.host_ip}]" if ":" in binding.host_ip else binding.host_ip
    return f"{host}:{binding.host_port}"


def _bind(binding: PortBinding, bind: Bind) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in binding.host_ip else socket.AF_INET
    kind, proto = KINDS[binding.proto]
    try:
        return bind(family, kind, proto, binding.host_ip, binding.host_port)
    except OSError as error:
        if proto and error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise


def _refused(binding: PortBinding, error: OSError) -> Exception:
    family = 6 if ":" in binding.host_ip else 4
    if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
        reason = os.strerror(error.errno).lower()
        if error.errno == errno.EACCES and binding.host_port < UNPRIVILEGED:
            reason += (" (the host keeps low ports for root: sysctl "
                       f"net.ipv4.ip_unprivileged_port_start={binding.host_port} lets others have it)")
        return PortInUse(f"listen {binding.proto}{family} {_shown(binding)}: bind: {reason}")
    return error
