"""Content: repositories, blobs, manifests, tags, uploads, leases."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from storage.metadata.tables.base import ROW_ID, DigestText, Instant, ascii_string, metadata

repositories = Table(
    "repositories",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("name", ascii_string(511), nullable=False, unique=True),
    Column("created", Instant, nullable=False),
    Column("pushed", Instant, nullable=False),
    # Grows, across all repositories, whenever something that may be cached here stops being true (metadata.changes).
    Column("generation", BigInteger, nullable=False, index=True),
    # Since when something here may be garbage that the collector has not looked at; NULL: nothing (storage.gc.reviews).
    Column("dirty", Instant, nullable=True, index=True),
    # The `dirty` that a collector took to look at; still set when it died over it.
    Column("reviewing", Instant, nullable=True, index=True),
    # Whether it holds a manifest: a catalog that asked `manifests` would pass over every empty repository each time.
    Column("filled", Boolean, nullable=False, server_default=false()),
    Index("ix_repositories_filled", "filled", "name"),
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
    # When its bytes were last read and found whole (storage.scrub).
    Column("verified", Instant, nullable=True),
    # Since when its bytes are known to be damaged: until somebody uploads the content again, nobody gets it.
    Column("quarantined", Instant, nullable=True),
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
    # Referrers come in the order of their digests; with the type in it, a filter reads no row that it drops.
    Index(None, "repository_id", "subject", "digest", "artifact_type"),
)

manifest_annotations = Table(
    "manifest_annotations",
    metadata,
    # A manifest without annotations, which most are, has no row. Apart from the manifests, so that a list of
    # referrers need not step over everybody's bytes to get at them.
    Column("manifest_id", ROW_ID, ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True),
    # A JSON object of strings in ASCII. Binary, because then its length is known without reading it.
    Column("annotations", LargeBinary, nullable=False),
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
    # What a store without locks and without appending (a bucket) wants to know to go on, and who claims to write.
    Column("mark", Text, nullable=False, server_default=""),
    Column("writer", String(36), nullable=True),
    # Of the hash whose digest this is, so that another process need not read the bytes to go on (uploads.sha2).
    Column("state", LargeBinary, nullable=True),
    Column("started", Instant, nullable=False),
    Column("touched", Instant, nullable=False, index=True),
    # The principal that began it, and that alone may go on; None where there are no accounts.
    Column("owner", ascii_string(300), nullable=True),
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
