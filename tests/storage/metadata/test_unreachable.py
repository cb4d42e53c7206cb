"""A database server that is away: asyncpg says so with an OSError, which SQLAlchemy passes on as it is."""

import pytest

from storage.metadata.engine import DatabaseUnavailable


class Away:
    def connect(self):
        raise ConnectionRefusedError(111, "Connection refused")

    begin = connect


async def test_it_is_unavailable_and_no_broken_client(database, monkeypatch) -> None:
    monkeypatch.setattr(database, "_reader", Away())
    monkeypatch.setattr(database, "_alone", Away())
    with pytest.raises(DatabaseUnavailable, match="Connection refused"):
        async with database.read():
            pytest.fail("connected")
    with pytest.raises(DatabaseUnavailable, match="Connection refused"):
        async with database.write():
            pytest.fail("connected")
