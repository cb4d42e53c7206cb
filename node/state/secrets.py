"""The rows of secrets and configs."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from node.state.database import State
from node.state.tables import secrets
from ocispec.errors import AlreadyExists


class SecretRowExists(AlreadyExists):
    """The name is taken."""


@dataclass(frozen=True, slots=True)
class SecretRow:
    id: str
    kind: str
    name: str
    version: int
    created: str
    updated: str
    labels: dict[str, str]
    data: bytes
    """Encrypted."""


class SecretRows:
    """One transaction a call."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def all(self, kind: str) -> list[SecretRow]:
        """By name."""
        async with self._state.read() as connection:
            found = await connection.execute(select(secrets).where(secrets.c.kind == kind).order_by(secrets.c.name))
            return [_row(row) for row in found]

    async def add(self, row: SecretRow) -> None:
        """Raises SecretRowExists."""
        values = {
            "id": row.id, "kind": row.kind, "name": row.name, "version": row.version, "created": row.created,
            "updated": row.updated, "labels": json.dumps(row.labels), "data": row.data,
        }  # fmt: skip
        try:
            async with self._state.write() as connection:
                await connection.execute(insert(secrets).values(values))
        except IntegrityError as error:
            raise SecretRowExists(row.name) from error

    async def relabel(self, row: SecretRow) -> None:
        """Version, time of the update and labels."""
        values = {"version": row.version, "updated": row.updated, "labels": json.dumps(row.labels)}
        async with self._state.write() as connection:
            await connection.execute(update(secrets).where(secrets.c.id == row.id).values(values))

    async def delete(self, secret_id: str) -> None:
        async with self._state.write() as connection:
            await connection.execute(delete(secrets).where(secrets.c.id == secret_id))


def _row(row: "Row[Any]") -> SecretRow:
    return SecretRow(
        row.id, row.kind, row.name, row.version, row.created, row.updated, json.loads(row.labels), row.data
    )
