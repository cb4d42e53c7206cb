"""Repositories, blobs, manifests, tags, uploads, tombstones, leases."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import SchemaItem

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DIGEST = sa.String(140)


def ascii_string(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    _repositories()
    _blobs()
    _manifests()
    _tags()
    _uploads()
    _collection()


def _repository_id(table: str) -> list[SchemaItem]:
    return [
        sa.Column("repository_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], ondelete="CASCADE",
                                name=f"fk_{table}_repository_id"),
    ]


def _repositories() -> None:
    op.create_table(
        "repositories",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("name", ascii_string(511), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("pushed", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_repositories"),
        sa.UniqueConstraint("name", name="uq_repositories_name"),
    )
    op.create_index("ix_repositories_generation", "repositories", ["generation"])


def _blobs() -> None:
    op.create_table(
        "blobs",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("touched", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_blobs"),
        sa.UniqueConstraint("digest", name="uq_blobs_digest"),
        sa.UniqueConstraint("key", name="uq_blobs_key"),
    )
    op.create_table(
        "repository_blobs",
        *_repository_id("repository_blobs"),
        sa.Column("blob_id", ROW_ID, nullable=False),
        sa.Column("linked", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], ondelete="CASCADE", name="fk_repository_blobs_blob_id"),
        sa.PrimaryKeyConstraint("repository_id", "blob_id", name="pk_repository_blobs"),
    )
    op.create_index("ix_repository_blobs_blob_id", "repository_blobs", ["blob_id"])


def _manifests() -> None:
    op.create_table(
        "manifests",
        sa.Column("id", ROW_ID, nullable=False),
        *_repository_id("manifests"),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("media_type", sa.String(255), nullable=False),
        sa.Column("artifact_type", sa.String(255), nullable=False),
        sa.Column("subject", DIGEST, nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("pushed", sa.BigInteger(), nullable=False),
        sa.Column("touched", sa.BigInteger(), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_manifests"),
        sa.UniqueConstraint("repository_id", "digest", name="uq_manifests_repository_id_digest"),
    )
    op.create_index("ix_manifests_repository_id_subject", "manifests", ["repository_id", "subject"])
    op.create_table(
        "manifest_references",
        sa.Column("manifest_id", ROW_ID, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("is_manifest", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifests.id"], ondelete="CASCADE",
                                name="fk_manifest_references_manifest_id"),
        sa.PrimaryKeyConstraint("manifest_id", "digest", name="pk_manifest_references"),
    )


def _tags() -> None:
    op.create_table(
        "tags",
        *_repository_id("tags"),
        sa.Column("name", ascii_string(128), nullable=False),
        sa.Column("manifest_id", ROW_ID, nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifests.id"], ondelete="CASCADE", name="fk_tags_manifest_id"),
        sa.PrimaryKeyConstraint("repository_id", "name", name="pk_tags"),
    )
    op.create_index("ix_tags_manifest_id", "tags", ["manifest_id"])


def _uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(36), nullable=False),
        *_repository_id("uploads"),
        sa.Column("key", sa.String(64), nullable=True),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("touched", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        sa.UniqueConstraint("key", name="uq_uploads_key"),
    )
    op.create_index("ix_uploads_repository_id", "uploads", ["repository_id"])
    op.create_index("ix_uploads_touched", "uploads", ["touched"])


def _collection() -> None:
    op.create_table(
        "tombstones",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_tombstones"),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_leases"),
    )
    op.create_table(
        "lease_contents",
        sa.Column("lease_id", sa.String(36), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], ondelete="CASCADE", name="fk_lease_contents_lease_id"),
        sa.PrimaryKeyConstraint("lease_id", "digest", name="pk_lease_contents"),
    )
    op.create_index("ix_lease_contents_digest", "lease_contents", ["digest"])
