"""Containers in state.db: what never changes after create in one column, what a transition changes in another."""

import json
from dataclasses import replace

from node.containers.codec import decode, encode
from node.containers.live import Dynamic, Live
from node.containers.model import Container, ContainerState, Place
from node.errors import InternalError
from node.network.model import Endpoint
from node.state.containers import ContainerRow, ContainerRows


class StateUnreadable(InternalError):
    """A row of state.db does not hold a container."""


class Records:
    """The rows, spoken to in this room's words."""

    def __init__(self, rows: ContainerRows) -> None:
        self._rows = rows

    async def add(self, live: Live) -> None:
        container, fixed = live.container, _fixed(live.container)
        await self._rows.add(
            ContainerRow(container.id, container.name, container.created, encode(fixed), encode(live.dynamic()))
        )

    async def save(self, live: Live) -> None:
        """One small transaction; the spec is not written again."""
        await self._rows.set_state(live.id, encode(live.dynamic()))

    async def respec(self, live: Live) -> None:
        """What an update changed of what otherwise never changes."""
        await self._rows.set_spec(live.id, encode(_fixed(live.container)))

    async def rename(self, live: Live, name: str) -> None:
        await self._rows.rename(live.id, name)

    async def remove(self, live: Live) -> None:
        await self._rows.remove(live.id)

    async def all(self) -> list[Live]:
        """Oldest first. Raises StateUnreadable."""
        return [_live(row) for row in await self._rows.all()]


def _fixed(container: Container) -> Container:
    return replace(container, state=ContainerState(), network=Place(), wanted=None, exec_ids=())


def _live(row: ContainerRow) -> Live:
    try:
        fixed, dynamic = decode(Container, row.spec), _dynamic(row.state)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateUnreadable(f"the record of container {row.name} ({row.id[:12]}) cannot be read: {error}") from error
    return Live(
        replace(fixed, name=row.name, state=dynamic.state, network=dynamic.network, wanted=dynamic.wanted)
    )


def _dynamic(text: str) -> Dynamic:
    """A Seawall with one network a container wrote the endpoint where the place is now."""
    found = decode(Dynamic, text)
    before = json.loads(text).get("network", {})
    if not before.get("ip"):
        return found
    end = replace(decode(Endpoint, json.dumps(before)), driver="bridge", interface="eth0")
    return replace(found, network=replace(found.network, endpoints=(end,)))
