"""Migrations of the content store. Imported only where the schema is not the newest: alembic costs a process 11 MB."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import migrations.storage
from storage.metadata.engine import DatabaseBehind, DatabaseTooNew


def run(connection: Connection, migrate: bool) -> None:
    config, scripts = scripts_of(connection)
    if is_current(connection, scripts, behind=migrate):
        return
    command.upgrade(config, "head")


def scripts_of(connection: Connection) -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.storage.__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config, ScriptDirectory.from_config(config)


def is_current(connection: Connection, scripts: ScriptDirectory, *, behind: bool = False) -> bool:
    """Raises DatabaseTooNew, and DatabaseBehind unless `behind` is allowed."""
    current = set(MigrationContext.configure(connection).get_current_heads())
    unknown = current - {revision.revision for revision in scripts.walk_revisions()}
    if unknown:
        raise DatabaseTooNew(f"the database is at revision {', '.join(sorted(unknown))}, which a later Seawall wrote: "
                             "upgrade this one")
    if current == set(scripts.get_heads()):
        return True
    if not behind:
        raise DatabaseBehind("the database is older than this program: run `seawall-registry migrate`")
    return False
