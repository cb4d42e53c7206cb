"""The rows of volumes."""

import json
from dataclasses import dataclass, field

from sqlalchemy import delete, insert, select

from node.state.database import State
from node.state.tables import volumes


@dataclass(frozen=True, slots=True)
class VolumeRow:
    name: str
    created: str
    labels: dict[str, str]
    options: dict[str, str] = field(default_factory=dict)


class VolumeRows:
    """One transaction a call."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def all(self) -> list[VolumeRow]:
        """By name."""
        async with self._state.read() as connection:
            rows = await connection.execute(select(volumes).order_by(volumes.c.name))
            return [VolumeRow(row.name, row.created, json.loads(row.labels), json.loads(row.options)) for row in rows]

    async def find(self, name: str) -> VolumeRow | None:
        async with self._state.read() as connection:
            row = (await connection.execute(select(volumes).where(volumes.c.name == name))).one_or_none()
        if row is None:
            return None
        return VolumeRow(row.name, row.created, json.loads(row.labels), json.loads(row.options))

    async def add(self, row: VolumeRow) -> None:
        values = {"name": row.name, "created": row.created, "labels": json.dumps(row.labels),
                  "options": json.dumps(row.options)}  # fmt: skip
        async with self._state.write() as connection:
            await connection.execute(insert(volumes).values(values))

    async def delete(self, name: str) -> bool:
        """Whether there was one."""
        async with self._state.write() as connection:
            return (await connection.execute(delete(volumes).where(volumes.c.name == name))).rowcount > 0
