"""Which containers a list shows: Docker's filters, parsed once and matched in memory.

Values of one filter are alternatives, different filters must all hold; labels must all hold.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from node.containers import patterns
from node.containers.connecting import connected
from node.containers.model import Container, Status
from ocispec.errors import InvalidArgument

KNOWN = frozenset(
    {"ancestor", "before", "exited", "expose", "health", "id", "isolation", "is-task", "label", "name", "network",
     "publish", "since", "status", "volume"}
)  # fmt: skip
HEALTH = frozenset({"none", "starting", "healthy", "unhealthy"})


class InvalidFilter(InvalidArgument):
    """A filter that does not exist, or a value it cannot have."""


@dataclass(frozen=True, slots=True)
class Filters:
    """`before` and `since` hold names or ids, which the manager resolves; the others match by themselves."""

    values: Mapping[str, tuple[str, ...]]

    @classmethod
    def parse(cls, raw: Mapping[str, Sequence[str]]) -> "Filters":
        """From Docker's `{"name": ["value", …]}`. Raises InvalidFilter."""
        for key, values in raw.items():
            if key not in KNOWN:
                raise InvalidFilter(f"invalid filter '{key}'")
            for value in values:
                _check(key, value)
        return cls({key: tuple(values) for key, values in raw.items() if values})

    @property
    def wants_all(self) -> bool:
        """A filter on status looks at stopped containers too, one on the exit code does not, as in Docker."""
        return "status" in self.values

    def with_images(self, ids: Mapping[str, str]) -> "Filters":
        """The values of `ancestor` that are keys of `ids` replaced by their image's id."""
        names = self.values.get("ancestor")
        if not names:
            return self
        return Filters({**self.values, "ancestor": tuple(ids.get(name, name) for name in names)})

    def matches(self, container: Container) -> bool:
        return all(MATCHERS[key](container, values) for key, values in self.values.items() if key in MATCHERS)


NOTHING = Filters({})


def _check(key: str, value: str) -> None:
    if key == "status" and value not in set(Status):
        raise InvalidFilter(f"invalid filter 'status={value}'")
    if key == "health" and value not in HEALTH:
        raise InvalidFilter(f"Unrecognised filter value for health: {value}")
    if key == "exited" and not re.fullmatch(r"-?\d{1,9}", value):
        raise InvalidFilter(f"invalid filter 'exited={value}'")
    if key == "is-task" and value not in ("true", "false"):
        raise InvalidFilter(f"invalid filter 'is-task={value}'")
    if key == "name":
        _check_pattern(value)
    if key in ("publish", "expose"):
        _port_range(value)


def _port_range(text: str) -> tuple[range, str]:
    ports, _, protocol = text.partition("/")
    first, _, last = ports.partition("-")
    if not first.isascii() or not first.isdigit() or (last and not (last.isascii() and last.isdigit())):
        raise InvalidFilter(f"invalid filter value '{text}': not a port")
    return range(int(first[:6]), int((last or first)[:6]) + 1), protocol or "tcp"


def _name(container: Container, values: Sequence[str]) -> bool:
    return any(_found(value, container.name) or _found(value, f"/{container.name}") for value in values)


def _found(pattern: str, text: str) -> bool:
    return pattern in text or patterns.found(pattern, text)


def _check_pattern(pattern: str) -> None:
    """A name filter is a regular expression, as in Docker."""
    if wrong := patterns.wrong_with(pattern):
        raise InvalidFilter(f"invalid filter 'name={pattern}': {wrong}")


def _label(container: Container, values: Sequence[str]) -> bool:
    labels = container.spec.labels
    for value in values:
        key, equals, wanted = value.partition("=")
        if key not in labels or (equals and labels[key] != wanted):
            return False
    return True


def _ancestor(container: Container, values: Sequence[str]) -> bool:
    digest = container.image_id.removeprefix("sha256:")
    names = {container.image, container.image_id, container.image.removesuffix(":latest"), f"{container.image}:latest"}
    return any(value in names or (len(value) >= 4 and digest.startswith(value)) for value in values)


def _network(container: Container, values: Sequence[str]) -> bool:
    """By name or id of what it is connected to, running or not."""
    names = {word for one in connected(container) for word in (one.network, one.network_id)}
    names |= {word for end in container.network.endpoints for word in (end.network_name, end.network_id)}
    ids = {end.network_id for end in container.network.endpoints} | {one.network_id for one in connected(container)}
    names |= {"bridge"} if container.spec.network.mode == "default" else {container.spec.network.mode}
    names -= {""}
    return any(value in names or (len(value) >= 12 and any(i.startswith(value) for i in ids)) for value in values)


def _volume(container: Container, values: Sequence[str]) -> bool:
    return any(value in (mount.name, mount.source, mount.target) for mount in container.mounts for value in values)


def _health(container: Container, values: Sequence[str]) -> bool:
    return (container.state.health.status if container.state.health else "none") in values


def _published(container: Container, values: Sequence[str]) -> bool:
    taken = [*container.network.ports, *container.spec.network.bindings]
    wanted = [_port_range(value) for value in values]
    return any(
        protocol == published.port.protocol and published.port.number in ports
        for ports, protocol in wanted
        for published in taken
    )


def _exposed(container: Container, values: Sequence[str]) -> bool:
    wanted = [_port_range(value) for value in values]
    return any(
        protocol == port.protocol and port.number in ports
        for ports, protocol in wanted
        for port in container.spec.exposed_ports
    )


def _is_task(_container: Container, values: Sequence[str]) -> bool:
    return "false" in values


MATCHERS: Mapping[str, Callable[[Container, Sequence[str]], bool]] = {
    "id": lambda container, values: any(container.id.startswith(value) for value in values),
    "name": _name,
    "label": _label,
    "status": lambda container, values: container.state.status in values,
    "exited": lambda container, values: (
        container.state.status is Status.EXITED and any(container.state.exit_code == int(value) for value in values)
    ),
    "ancestor": _ancestor,
    "network": _network,
    "volume": _volume,
    "health": _health,
    "publish": _published,
    "expose": _exposed,
    "is-task": _is_task,
    "isolation": lambda container, values: bool({"", "default", container.spec.security.isolation} & set(values)),
}
