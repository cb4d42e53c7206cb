"""Both databases, each test with an empty one."""

from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/content.db"
    server = request.getfixturevalue("postgres")
    return server.url(await server.new_database())
