"""The nftables rules of published ports, in two tables of the node's own (IPv4 and IPv6).

A published port is an element of a map, not a rule: giving and taking one is a small transaction, and the number of
ports does not slow packets down.

**The host's firewall governs.** A packet that is translated before routing never meets the host's input rules; that is
why published ports of other engines are open whatever the firewall says. Here the first packet of a connection is
left alone: the kernel takes it to the input hook, as it would for a service of the host. Where every rule of the host
has let it pass, the last chain sends a copy of it round a pair of interfaces of ours (node.network.front) and drops it;
what comes back there is translated and forwarded. Later packets belong to a known connection and go the short way. So
the rules of INPUT decide, the container sees the client's own address, and only the first packet pays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from node.network.model import ANY, ANY6, PortBinding

PROTOCOLS = ("tcp", "udp", "sctp")
LAST = 300
"""Priority of the chain that comes after every rule of the host."""


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    address: str
    loopback: str
    everywhere: str
    round_trip: str
    """An address that nobody has: the copy is sent there."""


FAMILIES = (Family("ip", "ipv4_addr", "127.0.0.0/8", ANY, "169.254.255.254"),
            Family("ip6", "ipv6_addr", "::1", ANY6, "fe80::1"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """Where a port leads: an address of the container, of the same family as the host's address."""

    port: PortBinding
    address: str


def tables(name: str, nearby: Sequence[str], front: tuple[str, str] | None) -> str:
    """Both tables as this version wants them, in one transaction. Published ports that are in them stay.

    `nearby`: the interfaces whose packets are no matter of the firewall's: the node's bridges. `front`: the interface
    that copies leave by and the one they come back by; None: nobody is asked, as with other engines.
    """
    every = [*nearby, front[1]] if front else list(nearby)
    return "".join(_declare(name, family) + _fill(name, family, every, front) for family in FAMILIES)


def drop_tables(name: str) -> str:
    return "".join(f"table {family.name} {name} {{ }}\ndelete table {family.name} {name}\n" for family in FAMILIES)


def add_nearby(name: str, interface: str) -> str:
    return "".join(f'add element {family.name} {name} nearby {{ "{interface}" }}\n' for family in FAMILIES)


def delete_nearby(name: str, interface: str) -> str:
    """Adding first makes it right also where it is gone already."""
    return add_nearby(name, interface) + "".join(
        f'delete element {family.name} {name} nearby {{ "{interface}" }}\n' for family in FAMILIES)


def publish(name: str, targets: Iterable[Target]) -> str:
    return "".join(f"add element {_maps(name, target)[0]} {{ {_key(target.port)} : {target.address} . "
                   f"{target.port.container_port} }}\n"
                   f"add element {_maps(name, target)[1]} {{ {_key(target.port)} }}\n" for target in targets)


def withdraw(name: str, targets: Sequence[Target]) -> str:
    """Adding first makes it right also where an element is gone already; one that is another's refuses the addition."""
    return publish(name, targets) + "".join(
        f"delete element {place} {{ {_key(target.port)} }}\n" for target in targets for place in _maps(name, target))


def exactly(name: str, targets: Iterable[Target]) -> str:
    """These and no others, with no moment between."""
    kept = [f"{kind}_{proto}" for kind in ("any", "one") for proto in PROTOCOLS]
    flush = "".join(f"flush map {family.name} {name} {kind}\nflush set {family.name} {name} open_{kind}\n"
                    for family in FAMILIES for kind in kept)
    return flush + publish(name, targets)


def _declare(name: str, family: Family) -> str:
    """Sets, maps and hooks must be there to be emptied; emptying a table leaves its maps alone (nft(8))."""
    kind = family.address
    sets = "".join(
        f"  map any_{proto} {{ type inet_service : {kind} . inet_service; }}\n"
        f"  map one_{proto} {{ type {kind} . inet_service : {kind} . inet_service; }}\n"
        f"  set open_any_{proto} {{ type inet_service; }}\n"
        f"  set open_one_{proto} {{ type {kind} . inet_service; }}\n"
        for proto in PROTOCOLS
    )
    return (f"table {family.name} {name} {{\n  set nearby {{ type ifname; }}\n{sets}{_HOOKS}}}\n"
            f"flush table {family.name} {name}\nflush set {family.name} {name} nearby\n")


_HOOKS = f"""\
  chain translate {{ }}
  chain arriving {{ type nat hook prerouting priority dstnat; policy accept; }}
  chain local {{ type nat hook output priority -100; policy accept; }}
  chain admitted {{ type filter hook input priority {LAST}; policy accept; }}
"""


def _fill(name: str, family: Family, nearby: Sequence[str], front: tuple[str, str] | None) -> str:
    ip = family.name
    translate = "".join(
        f"    dnat {ip} to {ip} daddr . {proto} dport map @one_{proto}\n"
        f"    dnat {ip} to {proto} dport map @any_{proto}\n"
        for proto in PROTOCOLS
    )
    governed = "    iifname != @nearby return\n" if front else ""
    admitted = ""
    if front:
        passing = f'dup to {family.round_trip} device "{front[0]}" drop'
        admitted = '    iifname @nearby return\n    iifname "lo" return\n    fib daddr type != local return\n'
        for proto in PROTOCOLS:
            admitted += f"    {ip} daddr . {proto} dport @open_one_{proto} {passing}\n"
            admitted += f"    {proto} dport @open_any_{proto} {passing}\n"
    # The kernel sends nothing from ::1 to elsewhere: who asks there meets the socket that holds the port (the keeper).
    local = "    ip6 daddr ::1 return\n" if ip == "ip6" else ""
    elements = "".join(f'add element {ip} {name} nearby {{ "{interface}" }}\n' for interface in nearby)
    return f"""\
table {ip} {name} {{
  chain translate {{
    fib daddr type != local return
{translate}  }}
  # This hook comes before the kernel's own check for foreign packets to the loopback. Translated here, they would pass
  # it: a neighbour on the network would reach what is published for the loopback alone.
  chain arriving {{
    {ip} daddr {family.loopback} return
{governed}    jump translate
  }}
  chain local {{
{local}    jump translate
  }}
  chain admitted {{
{admitted}  }}
}}
{elements}"""


def _maps(name: str, target: Target) -> tuple[str, str]:
    """Of translations and of open ports."""
    family = FAMILIES[0 if ip_address(target.port.host_ip).version == 4 else 1]
    kind = "any" if target.port.host_ip == family.everywhere else "one"
    return tuple(f"{family.name} {name} {prefix}{kind}_{target.port.proto}" for prefix in ("", "open_"))  # type: ignore[return-value]


def _key(port: PortBinding) -> str:
    return str(port.host_port) if port.host_ip in (ANY, ANY6) else f"{port.host_ip} . {port.host_port}"
