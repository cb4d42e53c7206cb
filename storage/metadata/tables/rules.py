"""Rules over repositories, what quotas count, when things were pulled, and who collects."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, Text, UniqueConstraint

from storage.metadata.tables.base import ROW_ID, Instant, ascii_string, metadata

rules = Table(
    "rules",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("kind", String(16), nullable=False),
    # Patterns (`ocispec.pattern`); a quota's `repositories` is a namespace.
    Column("repositories", ascii_string(255), nullable=False),
    Column("tags", ascii_string(255), nullable=False),
    # JSON, by kind.
    Column("options", Text, nullable=False),
    Column("created", Instant, nullable=False),
    UniqueConstraint("kind", "repositories", "tags"),
)

# What a quota's namespace holds is the sum of its rows: a push adds a row and updates none, so that pushes do not wait
# for each other; upkeep folds them (`storage.metadata.usage`).
usage = Table(
    "usage",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("namespace", ascii_string(511), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Index(None, "namespace"),
)

pulls = Table(
    "pulls",
    metadata,
    Column("repository_id", ROW_ID, ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    # A tag, or a digest as `algorithm:hex`.
    Column("reference", ascii_string(140), primary_key=True),
    Column("pulled", Instant, nullable=False),
    Column("count", BigInteger, nullable=False),
)

# Blobs that lost a place in a repository, so may have none left.
blob_reviews = Table(
    "blob_reviews",
    metadata,
    Column("blob_id", ROW_ID, ForeignKey("blobs.id", ondelete="CASCADE"), primary_key=True),
    Column("since", Instant, nullable=False, index=True),
)

# Work that one process of all replicas does; and when it was last completed.
duties = Table(
    "duties",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("expires", Instant, nullable=False),
    Column("done", Instant, nullable=True),
)
