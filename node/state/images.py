"""When images were last used."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from node.state.database import State
from node.state.tables import image_uses
from ocispec.digest import Digest


class ImageUseRows:
    def __init__(self, state: State) -> None:
        self._state = state

    async def touch(self, images: Collection[Digest], now: datetime) -> None:
        if not images:
            return
        statement = insert(image_uses)
        statement = statement.on_conflict_do_update(index_elements=["image_id"], set_={"used": statement.excluded.used})
        async with self._state.write() as connection:
            await connection.execute(statement, [{"image_id": str(one), "used": now.isoformat()} for one in images])

    async def all(self) -> Mapping[Digest, datetime]:
        async with self._state.read() as connection:
            rows = await connection.execute(select(image_uses))
            return {Digest.parse(row.image_id): datetime.fromisoformat(row.used) for row in rows}

    async def forget_all_but(self, kept: Collection[Digest]) -> None:
        gone = [str(one) for one in await self.all() if one not in kept]
        async with self._state.write() as connection:
            for first in range(0, len(gone), 500):
                await connection.execute(
                    delete(image_uses).where(image_uses.c.image_id.in_(gone[first:first + 500])))
