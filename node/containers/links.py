"""`--link` on the default bridge: the other container's name and addresses, as lines of /etc/hosts and as environment.

A link of a user-defined network is a name that its DNS gives this container alone; it is no affair of this room.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from node.containers.errors import InvalidSpec
from node.containers.live import Live
from node.containers.model import Container

NOT_PASSED_ON = ("HOME", "PATH")


@dataclass(frozen=True, slots=True)
class Link:
    alias: str
    other: Container

    @property
    def ip(self) -> str:
        return self.other.network.primary.ip


def parse(text: str) -> tuple[str, str]:
    """CONTAINER[:ALIAS]. Raises InvalidSpec."""
    name, _, alias = text.partition(":")
    name, alias = name.lstrip("/"), alias.rpartition("/")[2] or name.lstrip("/")
    if not name or ":" in alias or any(mark in f"{name}{alias}" for mark in " \t\n\0"):
        raise InvalidSpec(f"bad format for links: {text[:80]}")
    return name, alias


def resolve(container: Container, find: Callable[[str], Live]) -> Sequence[Link]:
    """Raises NoSuchContainer, InvalidSpec where the other does not run."""
    found = []
    for text in container.spec.network.links:
        name, alias = parse(text)
        other = find(name).container
        if not other.state.running:
            raise InvalidSpec(f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias}")
        found.append(Link(alias, other))
    return found


def hosts(links: Sequence[Link]) -> str:
    lines = []
    for link in links:
        names = dict.fromkeys((link.alias, link.other.spec.hostname, link.other.name))
        if link.ip:
            lines.append(f"{link.ip}\t{' '.join(name for name in names if name)}\n")
    return "".join(lines)


def environment(container: Container, links: Sequence[Link]) -> list[str]:
    """What Docker has put there since before there were networks."""
    found = []
    for link in links:
        prefix, ports = link.alias.replace("-", "_").upper(), sorted(link.other.spec.exposed_ports)
        for index, port in enumerate(ports):
            url = f"{port.protocol}://{link.ip}:{port.number}"
            if index == 0:
                found.append(f"{prefix}_PORT={url}")
            key = f"{prefix}_PORT_{port.number}_{port.protocol.upper()}"
            found += [f"{key}={url}", f"{key}_ADDR={link.ip}", f"{key}_PORT={port.number}",
                      f"{key}_PROTO={port.protocol}"]
        found.append(f"{prefix}_NAME=/{container.name}/{link.alias}")
        pairs = (entry.partition("=") for entry in link.other.spec.env)
        found += [f"{prefix}_ENV_{name}={value}" for name, _, value in pairs if name not in NOT_PASSED_ON]
    return found
