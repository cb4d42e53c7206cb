"""Migrations of state.db. Imported only where there is one to run: alembic costs a daemon 11 MB."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import migrations
from node.errors import StateTooNew


def migrate(connection: Connection, path: Path) -> None:
    """To the newest revision. Raises StateTooNew."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent / "node").replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known
    if unknown:
        raise StateTooNew(f"{path} was written by a later Seawall (revision {', '.join(sorted(unknown))}): upgrade")
    command.upgrade(config, "head")
