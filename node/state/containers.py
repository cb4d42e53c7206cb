"""The rows of containers. Spec and state are JSON documents whose shape `node.containers` owns."""

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from node.state.database import State
from node.state.tables import containers
from ocispec.errors import AlreadyExists


class ContainerRowExists(AlreadyExists):
    """The id or the name is taken."""


@dataclass(frozen=True, slots=True)
class ContainerRow:
    id: str
    name: str
    created: str
    spec: str
    state: str


class ContainerRows:
    """One transaction a call. Statements are built once: this is on the way of every `docker run`."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def all(self) -> list[ContainerRow]:
        """Oldest first."""
        async with self._state.read() as connection:
            rows = await connection.execute(select(containers).order_by(containers.c.created))
            return [ContainerRow(row.id, row.name, row.created, row.spec, row.state) for row in rows]

    async def add(self, row: ContainerRow) -> None:
        """Raises ContainerRowExists."""
        values = {"id": row.id, "name": row.name, "created": row.created, "spec": row.spec, "state": row.state}
        try:
            async with self._state.write() as connection:
                await connection.execute(insert(containers), values)
        except IntegrityError as error:
            raise ContainerRowExists(f"container {row.id} or the name {row.name} exists already") from error

    async def set_state(self, container_id: str, state: str) -> None:
        async with self._state.write() as connection:
            await connection.execute(update(containers).where(containers.c.id == container_id), {"state": state})

    async def set_spec(self, container_id: str, spec: str) -> None:
        async with self._state.write() as connection:
            await connection.execute(update(containers).where(containers.c.id == container_id), {"spec": spec})

    async def rename(self, container_id: str, name: str) -> None:
        """Raises ContainerRowExists."""
        try:
            async with self._state.write() as connection:
                await connection.execute(update(containers).where(containers.c.id == container_id), {"name": name})
        except IntegrityError as error:
            raise ContainerRowExists(f"the name {name} exists already") from error

    async def remove(self, container_id: str) -> None:
        async with self._state.write() as connection:
            await connection.execute(delete(containers).where(containers.c.id == container_id))
