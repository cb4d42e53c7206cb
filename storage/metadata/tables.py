"""The schema of the content store. The migrations build it; a test compares the two."""

import sqlalchemy as sa

metadata = sa.MetaData(naming_convention={
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
})

# Names sort by bytes, whatever the database's locale: the order of tag lists is part of the protocol.
NAME = sa.String(300).with_variant(sa.String(300, collation="C"), "postgresql")
DIGEST = sa.String(140)
TIME = sa.DateTime()  # UTC, naive: SQLite keeps no zone
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # only INTEGER is a rowid alias there


def _id() -> sa.Column[int]:
    return sa.Column("id", ID, primary_key=True, autoincrement=True)


def _repository(**options: object) -> sa.Column[int]:
    return sa.Column("repository_id", ID, sa.ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False,
                     **options)  # type: ignore[arg-type]


repositories = sa.Table(
    "repositories", metadata,
    _id(),
    sa.Column("name", NAME, nullable=False, unique=True),
    sa.Column("created", TIME, nullable=False),
)

blobs = sa.Table(
    "blobs", metadata,
    _id(),
    sa.Column("digest", DIGEST, nullable=False, unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("storage_key", sa.String(100), nullable=False, unique=True),
    # When a client was last told that this blob exists: the collector lets it live for a while after.
    sa.Column("touched", TIME, nullable=False),
)

repository_blobs = sa.Table(
    "repository_blobs", metadata,
    _repository(primary_key=True),
    sa.Column("blob_id", ID, sa.ForeignKey("blobs.id", ondelete="CASCADE"), nullable=False, primary_key=True,
              index=True),
    sa.Column("linked", TIME, nullable=False),
)

manifests = sa.Table(
    "manifests", metadata,
    _id(),
    _repository(),
    sa.Column("digest", DIGEST, nullable=False),
    sa.Column("media_type", sa.String(255), nullable=False),
    sa.Column("artifact_type", sa.String(255), nullable=False),
    sa.Column("subject", DIGEST, nullable=True),
    sa.Column("annotations", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False),
    sa.Column("pushed", TIME, nullable=False),
    sa.UniqueConstraint("repository_id", "digest"),
    sa.Index(None, "repository_id", "subject"),
)

manifest_references = sa.Table(
    "manifest_references", metadata,
    sa.Column("manifest_id", ID, sa.ForeignKey("manifests.id", ondelete="CASCADE"), nullable=False, primary_key=True),
    sa.Column("digest", DIGEST, nullable=False, primary_key=True, index=True),
    sa.Column("is_manifest", sa.Boolean, nullable=False),
)

tags = sa.Table(
    "tags", metadata,
    _repository(primary_key=True),
    sa.Column("name", NAME, nullable=False, primary_key=True),
    sa.Column("manifest_id", ID, sa.ForeignKey("manifests.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("updated", TIME, nullable=False),
)

uploads = sa.Table(
    "uploads", metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    _repository(index=True),
    sa.Column("storage_key", sa.String(100), nullable=False),
    sa.Column("algorithm", sa.String(16), nullable=False),
    sa.Column("durable_offset", sa.BigInteger, nullable=False),
    sa.Column("updated", TIME, nullable=False, index=True),
)

tombstones = sa.Table(
    "tombstones", metadata,
    sa.Column("storage_key", sa.String(100), primary_key=True),
    sa.Column("buried", TIME, nullable=False),
)

leases = sa.Table(
    "leases", metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("expires", TIME, nullable=False, index=True),
)

lease_digests = sa.Table(
    "lease_digests", metadata,
    sa.Column("lease_id", sa.String(64), sa.ForeignKey("leases.id", ondelete="CASCADE"), nullable=False,
              primary_key=True),
    sa.Column("digest", DIGEST, nullable=False, primary_key=True, index=True),
)
