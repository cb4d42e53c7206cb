"""The schema. A change here needs a migration in `migrations/storage/versions` (a test compares the two).

Bytes and rows: `blobs` maps a digest to the storage key that holds it; `tombstones` are keys whose rows are gone and
whose bytes have yet to go. Manifests are small, read often and written in the transaction that checks them, so they
live in rows whole. They belong to one repository: nobody reads a manifest through another's name.

`touched` is when a client was last told that the thing exists, or when a manifest last named it. The garbage
collector leaves alone what was touched within its grace; see `storage.gc`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
)

from ocispec.digest import Digest

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """An aware datetime as microseconds since 1970 (SQLite has no such type, and integers compare exactly)."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else EPOCH + int(value) * MICROSECOND


class DigestText(TypeDecorator[Digest]):
    """A digest as `algorithm:hex`. What we wrote is not parsed again."""

    impl = String(140)
    cache_ok = True

    def process_bind_param(self, value: Digest | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Digest | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        algorithm, _, encoded = value.partition(":")
        return Digest(algorithm, encoded)


ROW_ID = BigInteger().with_variant(Integer(), "sqlite")  # only an INTEGER PRIMARY KEY numbers itself in SQLite


def ascii_string(length: int) -> String:
    """Text that sorts by code point everywhere, as tags/list and _catalog promise."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

repositories = Table(
    "repositories",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("name", ascii_string(511), nullable=False, unique=True),
    Column("created", Instant, nullable=False),
    Column("pushed", Instant, nullable=False),
    # Grows, across all repositories, whenever something that may be cached here stops being true (metadata.changes).
    Column("generation", BigInteger, nullable=False, index=True),
)

blobs = Table(
    "blobs",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("digest", DigestText, nullable=False, unique=True),
    Column("key", String(64), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("created", Instant, nullable=False),
    Column("touched", Instant, nullable=False),
)

repository_blobs = Table(
    "repository_blobs",
    metadata,
    Column("repository_id", ROW_ID, ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("blob_id", ROW_ID, ForeignKey("blobs.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("linked", Instant, nullable=False),
)

manifests = Table(
    "manifests",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("repository_id", ROW_ID, ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("digest", DigestText, nullable=False),
    Column("media_type", String(255), nullable=False),
    Column("artifact_type", String(255), nullable=False),
    Column("subject", DigestText, nullable=True),
    Column("size", BigInteger, nullable=False),
    Column("pushed", Instant, nullable=False),
    Column("touched", Instant, nullable=False),
    # A pinned manifest is wanted for itself, not only as the child of an index.
    Column("pinned", Boolean, nullable=False),
    # Last, because SQLite reads a row's columns in order and skips what lies behind the last one asked for.
    Column("raw", LargeBinary, nullable=False),
    UniqueConstraint("repository_id", "digest"),
    Index(None, "repository_id", "subject"),
)

manifest_references = Table(
    "manifest_references",
    metadata,
    Column("manifest_id", ROW_ID, ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", DigestText, primary_key=True),
    # A child is a manifest of the same repository, everything else a blob.
    Column("is_manifest", Boolean, nullable=False),
)

tags = Table(
    "tags",
    metadata,
    Column("repository_id", ROW_ID, ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("name", ascii_string(128), primary_key=True),
    Column("manifest_id", ROW_ID, ForeignKey("manifests.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("updated", Instant, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("repository_id", ROW_ID, ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False, index=True),
    # Without a key nothing durable has arrived yet.
    Column("key", String(64), nullable=True, unique=True),
    Column("algorithm", String(16), nullable=False),
    Column("offset", BigInteger, nullable=False),
    # Of the first `offset` bytes: a commit by another process, or after a restart, need not read them back.
    Column("digest", DigestText, nullable=True),
    Column("started", Instant, nullable=False),
    Column("touched", Instant, nullable=False, index=True),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created", Instant, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("expires", Instant, nullable=False),
)

lease_contents = Table(
    "lease_contents",
    metadata,
    Column("lease_id", String(36), ForeignKey("leases.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", DigestText, primary_key=True, index=True),
)
