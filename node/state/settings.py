"""What the daemon settled once and must settle the same way after a restart (its id, the bridge's subnet)."""

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert

from node.state.database import State
from node.state.tables import settings


class SettingRows:
    def __init__(self, state: State) -> None:
        self._state = state

    async def get(self, key: str) -> str | None:
        async with self._state.read() as connection:
            return (await connection.execute(select(settings.c.value).where(settings.c.key == key))).scalar()

    async def put(self, key: str, value: str) -> None:
        statement = insert(settings).values(key=key, value=value)
        async with self._state.write() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": value}))
