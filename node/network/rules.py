"""The node's nftables rules, in one table of its own; nobody else's table is read or written.

A network is an element of maps: an interface's name leads to the chains of its network, and a packet meets those of
its own network alone, however many there are. Published ports have tables of their own (node.network.published).
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAPS = ("into", "outof", "leave")
"""Interface name to the chain that a packet meets: forwarded to it, forwarded from it, past routing on either way."""


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """One bridge network. `tag` (letters, digits, _) names its chains."""

    tag: str
    bridge: str
    subnets: tuple[str, ...] = ()
    internal: bool = False
    """Nothing leaves it, nothing enters."""

    masquerade: bool = True
    source: str = ""
    """The IPv4 address that what leaves is given; empty: of the interface it leaves by."""

    routed: tuple[int, ...] = ()
    """IP versions (4, 6) whose addresses are reached from elsewhere as they are (gateway modes routed, …)."""


def table(name: str, networks: Sequence[NetworkRules]) -> str:
    """The whole table with the chains of this version, in one transaction. Published ports that are in it stay."""
    maps = "".join(f"flush map inet {name} {kind}\n" for kind in MAPS) + f"flush set inet {name} bridges\n"
    # The chains must be there to be emptied; emptying a table leaves its maps alone (nft(8), flush table).
    return (f"{_older(name)}table inet {name} {{\n{_HOOKS}{_SETS}}}\n{maps}flush table inet {name}\n"
            f"table inet {name} {{\n{_body()}}}\n") + "".join(add_network(name, network) for network in networks)


def new_table(name: str, networks: Sequence[NetworkRules]) -> str:
    """The same from nothing: where another version's table has hooks or maps of another kind."""
    return f"{drop_table(name)}table inet {name} {{\n{_body()}}}\n" + "".join(
        add_network(name, network) for network in networks)


_HOOKS = """\
  chain guard { type filter hook prerouting priority raw; policy accept; }
  chain leaving { type nat hook postrouting priority srcnat; policy accept; }
  chain forwarded { type filter hook forward priority filter; policy accept; }
"""

_SETS = """\
  set bridges { type ifname; }
""" + "".join(f"  map {kind} {{ type ifname : verdict; }}\n" for kind in MAPS)


def _body() -> str:
    return f"""\
{_HOOKS}{_SETS}
  # route_localnet on the bridges lets 127.0.0.1 reach containers; nothing may come the other way (CVE-2020-8558).
  chain guard {{
    iifname @bridges ip daddr 127.0.0.0/8 drop
  }}
  chain leaving {{
    iifname vmap @leave
    oifname vmap @leave
  }}
  chain forwarded {{
    iifname vmap @outof
    oifname vmap @into
  }}
"""


def add_network(name: str, network: NetworkRules) -> str:
    """Also where it is there already."""
    tag, bridge = network.tag, network.bridge
    chains = {f"{kind}_{tag}": text for kind, text in
              (("into", _into(network)), ("outof", _outof(network)), ("leave", _leave(network)))}
    declared = "".join(f"add chain inet {name} {chain}\nflush chain inet {name} {chain}\n" for chain in chains)
    rules = "".join(f"  chain {chain} {{\n{text}  }}\n" for chain, text in chains.items())
    return (declared + f"table inet {name} {{\n{rules}}}\n" + f'add element inet {name} bridges {{ "{bridge}" }}\n'
            + "".join(f'add element inet {name} {kind} {{ "{bridge}" : jump {kind}_{tag} }}\n' for kind in MAPS))


def delete_network(name: str, network: NetworkRules) -> str:
    """Adding first makes it right also where a part is gone already."""
    tag, bridge = network.tag, network.bridge
    return (add_network(name, network)
            + f'delete element inet {name} bridges {{ "{bridge}" }}\n'
            + "".join(f'delete element inet {name} {kind} {{ "{bridge}" }}\n' for kind in MAPS)
            + "".join(f"delete chain inet {name} {kind}_{tag}\n" for kind in MAPS))


def _into(network: NetworkRules) -> str:
    """What is not published is not reached from elsewhere, be it another network or a neighbour with a route."""
    bridge = network.bridge
    text = f'    iifname "{bridge}" accept\n'
    if not network.internal:
        text += "    ct state established,related accept\n    ct status dnat accept\n"
        text += "".join(f"    meta nfproto ipv{version} accept\n" for version in network.routed)
    return text + "    drop\n"


def _outof(network: NetworkRules) -> str:
    return f'    oifname != "{network.bridge}" drop\n' if network.internal else ""


def _leave(network: NetworkRules) -> str:
    """The host's loopback and a container that asks for its own published port are answered by way of the bridge."""
    bridge = network.bridge
    text = f'    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade\n'
    for subnet in network.subnets:
        family, version = ("ip6", 6) if ":" in subnet else ("ip", 4)
        text += f'    oifname "{bridge}" {family} saddr {subnet} ct status dnat masquerade\n'
        if network.masquerade and not network.internal and version not in network.routed:
            action = f"snat ip to {network.source}" if network.source and version == 4 else "masquerade"
            text += f'    oifname != "{bridge}" {family} saddr {subnet} {action}\n'
    return text


def drop_table(name: str) -> str:
    return f"{_older(name)}table inet {name} {{ }}\ndelete table inet {name}\n"


def _older(name: str) -> str:
    """A version with one network had it in the family `ip`."""
    return f"table ip {name} {{ }}\ndelete table ip {name}\n"
