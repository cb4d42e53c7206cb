"""state.db: opened, migrated, kept true to its tables, refused when it is from the future or no database."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from node.errors import StateTooNew
from node.state.containers import ContainerRow, ContainerRowExists, ContainerRows
from node.state.database import StateUnusable, open_state
from node.state.settings import SettingRows
from node.state.tables import metadata

ROW = ContainerRow("a" * 64, "quiet_harbour", "2026-01-01T00:00:00Z", '{"x":1}', '{"status":"created"}')


async def test_migrations_make_exactly_the_tables(tmp_path):
    async with open_state(tmp_path / "state.db") as state, state.read() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    assert differences == []


async def test_opens_again_and_keeps_what_was_written(tmp_path):
    async with open_state(tmp_path / "state.db") as state:
        await SettingRows(state).put("bridge", "172.20.0.0/16")
        await SettingRows(state).put("bridge", "172.21.0.0/16")
        await ContainerRows(state).add(ROW)
    async with open_state(tmp_path / "state.db") as state:
        assert await SettingRows(state).get("bridge") == "172.21.0.0/16"
        assert await SettingRows(state).get("nothing") is None
        assert await ContainerRows(state).all() == [ROW]


async def test_a_database_from_the_future_is_refused(tmp_path):
    async with open_state(tmp_path / "state.db") as state, state.write() as connection:
        await connection.execute(text("update alembic_version set version_num='9999'"))
    with pytest.raises(StateTooNew, match="9999"):
        async with open_state(tmp_path / "state.db"):
            pass


async def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "state.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StateUnusable, match=r"state\.db"):
        async with open_state(tmp_path / "state.db"):
            pass


async def test_container_rows_change_and_refuse_a_second_of_the_same_name(tmp_path):
    async with open_state(tmp_path / "state.db") as state:
        rows = ContainerRows(state)
        await rows.add(ROW)
        with pytest.raises(ContainerRowExists):
            await rows.add(ContainerRow("b" * 64, ROW.name, ROW.created, "{}", "{}"))
        await rows.add(ContainerRow("b" * 64, "other", "2026-01-02T00:00:00Z", "{}", "{}"))
        with pytest.raises(ContainerRowExists):
            await rows.rename("b" * 64, ROW.name)
        await rows.rename("b" * 64, "third")
        await rows.set_state(ROW.id, '{"status":"exited"}')
        await rows.remove("b" * 64)
        assert [(row.name, row.state) for row in await rows.all()] == [("quiet_harbour", '{"status":"exited"}')]
