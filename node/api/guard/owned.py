"""Whose a thing is: its label says."""

import contextlib
from collections.abc import Mapping
from typing import Protocol

from node.volumes.errors import NoSuchVolume
from ocispec.errors import NotFound

LABEL = "seawall.project"
"""On whatever a user with the rights of a project makes. An operator hands a thing over by giving it the label."""


class Things(Protocol):
    """Ids and labels of what the node has. All raise NotFound, for a volume NoSuchVolume."""

    async def container(self, name: str) -> tuple[str, Mapping[str, str]]: ...
    async def network(self, name: str) -> tuple[str, Mapping[str, str]]: ...
    async def volume(self, name: str) -> Mapping[str, str]: ...
    async def claim_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make it, with these labels, where there is none."""
        ...

    async def container_of_exec(self, exec_id: str) -> str: ...


class Owned:
    """The things of one project. What is another's is answered as what does not exist."""

    def __init__(self, things: Things, project: str) -> None:
        self._things = things
        self.project = project

    async def container(self, name: str) -> str:
        """Its id. Raises NotFound."""
        container_id, labels = await self._things.container(name)
        return self._mine(container_id, labels, f"No such container: {name}")

    async def exec(self, exec_id: str) -> None:
        """Raises NotFound."""
        _, labels = await self._things.container(await self._things.container_of_exec(exec_id))
        self._mine(exec_id, labels, f"No such exec instance: {exec_id}")

    async def network(self, name: str) -> str:
        """Its id. Raises NotFound."""
        network_id, labels = await self._things.network(name)
        return self._mine(network_id, labels, f"network {name} not found")

    async def volume(self, name: str) -> None:
        """Raises NotFound."""
        self._mine(name, await self._things.volume(name), f"get {name}: no such volume")

    async def free_volume(self, name: str) -> None:
        """Nobody else's: the project's, or of nobody. Raises NotFound."""
        with contextlib.suppress(NoSuchVolume):
            self._mine(name, await self._things.volume(name), f"get {name}: no such volume")

    async def claim_volume(self, name: str) -> None:
        """Afterwards it exists and is the project's. Raises NotFound when it is another's."""
        await self._things.claim_volume(name, {LABEL: self.project})
        await self.volume(name)

    def _mine(self, what: str, labels: Mapping[str, str], otherwise: str) -> str:
        if labels.get(LABEL) != self.project:
            raise NotFound(otherwise)
        return what
