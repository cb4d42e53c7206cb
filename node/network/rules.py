"""The node's nftables rules, in one table of its own; nobody else's table is read or written.

A published port is an element of a map, not a rule: giving and taking one is a small transaction, and the number of
ports does not slow packets down.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network

from node.network.model import PortBinding
from node.network.ports import ANY

PROTOCOLS = ("tcp", "udp")


def table(name: str, bridge: str, subnet: IPv4Network) -> str:
    """The whole table, replacing what an earlier daemon left, in one transaction."""
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
    return f"""
table ip {name} {{ }}
delete table ip {name}
table ip {name} {{
{maps}
  # route_localnet on the bridge lets 127.0.0.1 reach containers; nothing may come the other way (CVE-2020-8558).
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
  }}
  chain arriving {{
    type nat hook prerouting priority dstnat; policy accept;
{translate}  }}
  chain local {{
    type nat hook output priority -100; policy accept;
{translate}  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
    ip saddr {subnet} oifname "{bridge}" ct status dnat masquerade
  }}
  # What is not published is not reached from elsewhere, even by a neighbour with a route to the subnet.
  chain forwarded {{
    type filter hook forward priority filter; policy accept;
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" iifname "{bridge}" accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
  }}
}}
"""


def publish(name: str, ip: str, ports: Iterable[PortBinding]) -> str:
    return "".join(f"add element ip {name} {_map(port)} {{ {_key(port)} : {ip} . {port.container_port} }}\n"
                   for port in ports)


def withdraw(name: str, ports: Iterable[PortBinding]) -> str:
    return "".join(f"delete element ip {name} {_map(port)} {{ {_key(port)} }}\n" for port in ports)


def drop_table(name: str) -> str:
    return f"table ip {name} {{ }}\ndelete table ip {name}\n"


def _map(port: PortBinding) -> str:
    return f"any_{port.proto}" if port.host_ip == ANY else f"one_{port.proto}"


def _key(port: PortBinding) -> str:
    return str(port.host_port) if port.host_ip == ANY else f"{port.host_ip} . {port.host_port}"
