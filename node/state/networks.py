"""The rows of networks. The document is JSON whose shape `node.network` owns."""

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from node.state.database import State
from node.state.tables import networks
from ocispec.errors import AlreadyExists


class NetworkRowExists(AlreadyExists):
    """The id or the name is taken."""


class NetworkRows:
    """One transaction a call."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def all(self) -> list[str]:
        """The documents, by name."""
        async with self._state.read() as connection:
            return list((await connection.execute(select(networks.c.document).order_by(networks.c.name))).scalars())

    async def add(self, network_id: str, name: str, document: str) -> None:
        """Raises NetworkRowExists."""
        try:
            async with self._state.write() as connection:
                await connection.execute(insert(networks).values(id=network_id, name=name, document=document))
        except IntegrityError as error:
            raise NetworkRowExists(f"network with name {name} already exists") from error

    async def remove(self, network_id: str) -> None:
        async with self._state.write() as connection:
            await connection.execute(delete(networks).where(networks.c.id == network_id))
