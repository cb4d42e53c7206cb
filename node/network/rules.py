"""The node's nftables rules, in one table of its own; nobody else's table is read or written.

A published port is an element of a map, not a rule: giving and taking one is a small transaction, and the number of
ports does not slow packets down.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network

from node.network.model import ANY, PortBinding

PROTOCOLS = ("tcp", "udp")


def table(name: str, bridge: str, subnet: IPv4Network) -> str:
    """The whole table with the chains of this version, in one transaction. Published ports that are in it stay."""
    body = _body(bridge, subnet)
    # The chains must be there to be emptied; emptying a table leaves its maps alone (nft(8), flush table).
    return f"table ip {name} {{\n{_HOOKS}}}\nflush table ip {name}\ntable ip {name} {{\n{body}}}\n"


def new_table(name: str, bridge: str, subnet: IPv4Network) -> str:
    """The same from nothing: where another version's table has hooks or maps of another kind."""
    return f"{drop_table(name)}table ip {name} {{\n{_body(bridge, subnet)}}}\n"


_HOOKS = """\
  chain guard { type filter hook prerouting priority raw; policy accept; }
  chain arriving { type nat hook prerouting priority dstnat; policy accept; }
  chain local { type nat hook output priority -100; policy accept; }
  chain leaving { type nat hook postrouting priority srcnat; policy accept; }
  chain forwarded { type filter hook forward priority filter; policy accept; }
"""


def _body(bridge: str, subnet: IPv4Network) -> str:
    maps = "".join(
        f"  map any_{proto} {{ type inet_service : ipv4_addr . inet_service; }}\n"
        f"  map one_{proto} {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}\n"
        for proto in PROTOCOLS
    )
    translate = "".join(
        f"    fib daddr type local dnat ip to ip daddr . {proto} dport map @one_{proto}\n"
        f"    fib daddr type local dnat ip to {proto} dport map @any_{proto}\n"
        for proto in PROTOCOLS
    )
    return f"""\
{_HOOKS}{maps}
  # route_localnet on the bridge lets 127.0.0.1 reach containers; nothing may come the other way (CVE-2020-8558).
  chain guard {{
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
  }}
  # This hook comes before the kernel's own check for foreign packets to 127.0.0.0/8. Translated here, they would pass
  # it: a neighbour on the network would reach what is published for the loopback alone.
  chain arriving {{
    ip daddr 127.0.0.0/8 return
{translate}  }}
  chain local {{
{translate}  }}
  chain leaving {{
    ip saddr {subnet} oifname != "{bridge}" masquerade
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
    ip saddr {subnet} oifname "{bridge}" ct status dnat masquerade
  }}
  # What is not published is not reached from elsewhere, even by a neighbour with a route to the subnet.
  chain forwarded {{
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" iifname "{bridge}" accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
  }}
"""


def publish(name: str, ip: str, ports: Iterable[PortBinding]) -> str:
    return "".join(f"add element ip {name} {_map(port)} {{ {_key(port)} : {ip} . {port.container_port} }}\n"
                   for port in ports)


def withdraw(name: str, ip: str, ports: Sequence[PortBinding]) -> str:
    """Adding first makes it right also where an element is gone already; one that is another's refuses the addition."""
    return publish(name, ip, ports) + "".join(
        f"delete element ip {name} {_map(port)} {{ {_key(port)} }}\n" for port in ports)


def exactly(name: str, published: Iterable[tuple[str, Sequence[PortBinding]]]) -> str:
    """These (address, ports) and no others, with no moment between."""
    return "".join(f"flush map ip {name} {kind}_{proto}\n" for proto in PROTOCOLS for kind in ("any", "one")) + "".join(
        publish(name, ip, ports) for ip, ports in published)


def drop_table(name: str) -> str:
    return f"table ip {name} {{ }}\ndelete table ip {name}\n"


def _map(port: PortBinding) -> str:
    return f"any_{port.proto}" if port.host_ip == ANY else f"one_{port.proto}"


def _key(port: PortBinding) -> str:
    return str(port.host_port) if port.host_ip == ANY else f"{port.host_ip} . {port.host_port}"
