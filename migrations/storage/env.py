"""Alembic's entry. The connection is handed over by whoever runs it: there is no alembic.ini and no URL of its own."""

from alembic import context

from storage.metadata.tables import metadata


def run() -> None:
    connection = context.config.attributes["connection"]
    # SQLite cannot alter most things in place: batch mode copies the table.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


run()
