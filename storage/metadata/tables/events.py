"""What happened, and the webhooks that are told of it."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text

from storage.metadata.tables.base import ROW_ID, DigestText, Instant, ascii_string, metadata

events = Table(
    "events",
    metadata,
    # Never given twice, also when the newest rows were removed: cursors of webhooks stand on it.
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    # Orders the log together with `id`: the number of the transaction (see `dialect.transaction_number`).
    Column("written", BigInteger, nullable=False),
    Column("uid", String(36), nullable=False),
    Column("at", Instant, nullable=False, index=True),
    Column("action", String(32), nullable=False),
    Column("result", String(8), nullable=False),
    Column("actor", String(500), nullable=False),
    Column("request_id", String(500), nullable=False),
    Column("remote", String(500), nullable=False),
    Column("agent", String(500), nullable=False),
    Column("method", String(500), nullable=False),
    Column("host", String(500), nullable=False),
    Column("repository", ascii_string(511), nullable=True),
    Column("digest", DigestText, nullable=True),
    Column("tag", ascii_string(128), nullable=True),
    Column("media_type", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Index(None, "repository", "id"),
    Index(None, "actor", "id"),
    Index(None, "written", "id"),
    sqlite_autoincrement=True,
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("name", ascii_string(100), primary_key=True),
    Column("url", String(2000), nullable=False),
    # In the clear: it signs what is sent. Who reads the database can do worse.
    Column("secret", String(500), nullable=False),
    Column("format", String(32), nullable=False),
    Column("actions", Text, nullable=False),
    Column("repositories", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created", Instant, nullable=False),
)

webhook_cursors = Table(
    "webhook_cursors",
    metadata,
    Column("name", ascii_string(100), primary_key=True),
    # The last event that is done with: delivered, dead, or not for this endpoint.
    Column("written", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("retry_at", Instant, nullable=True),
    Column("error", String(500), nullable=False),
    Column("delivered", BigInteger, nullable=False),
    Column("delivered_at", Instant, nullable=True),
    # Who delivers, and until when nobody else may.
    Column("owner", String(64), nullable=False),
    Column("lease", Instant, nullable=True),
)

webhook_dead = Table(
    "webhook_dead",
    metadata,
    Column("name", ascii_string(100), primary_key=True),
    Column("event_id", BigInteger, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", String(500), nullable=False),
    Column("again", Boolean, nullable=False),
)
