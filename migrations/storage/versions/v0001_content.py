"""Repositories, blobs, manifests, tags, uploads, tombstones, leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Written out and not taken from storage.metadata.tables: a step stays what it was when later ones follow.
NAME = sa.String(300).with_variant(sa.String(300, collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DIGEST = sa.String(140)


def _fk(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=f"fk_{table}_{column}_{target}", ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "repositories",
        sa.Column("id", ID, nullable=False, autoincrement=True),
        sa.Column("name", NAME, nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_repositories"),
        sa.UniqueConstraint("name", name="uq_repositories_name"),
    )
    op.create_table(
        "blobs",
        sa.Column("id", ID, nullable=False, autoincrement=True),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("storage_key", sa.String(100), nullable=False),
        sa.Column("touched", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_blobs"),
        sa.UniqueConstraint("digest", name="uq_blobs_digest"),
        sa.UniqueConstraint("storage_key", name="uq_blobs_storage_key"),
    )
    op.create_table(
        "repository_blobs",
        sa.Column("repository_id", ID, nullable=False),
        sa.Column("blob_id", ID, nullable=False),
        sa.Column("linked", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "blob_id", name="pk_repository_blobs"),
        _fk("repository_blobs", "repository_id", "repositories"),
        _fk("repository_blobs", "blob_id", "blobs"),
    )
    op.create_index("ix_repository_blobs_blob_id", "repository_blobs", ["blob_id"])
    op.create_table(
        "manifests",
        sa.Column("id", ID, nullable=False, autoincrement=True),
        sa.Column("repository_id", ID, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("media_type", sa.String(255), nullable=False),
        sa.Column("artifact_type", sa.String(255), nullable=False),
        sa.Column("subject", DIGEST, nullable=True),
        sa.Column("annotations", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("pushed", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_manifests"),
        sa.UniqueConstraint("repository_id", "digest", name="uq_manifests_repository_id_digest"),
        _fk("manifests", "repository_id", "repositories"),
    )
    op.create_index("ix_manifests_repository_id_subject", "manifests", ["repository_id", "subject"])
    op.create_table(
        "manifest_references",
        sa.Column("manifest_id", ID, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("is_manifest", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("manifest_id", "digest", name="pk_manifest_references"),
        _fk("manifest_references", "manifest_id", "manifests"),
    )
    op.create_index("ix_manifest_references_digest", "manifest_references", ["digest"])
    op.create_table(
        "tags",
        sa.Column("repository_id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("manifest_id", ID, nullable=False),
        sa.Column("updated", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "name", name="pk_tags"),
        _fk("tags", "repository_id", "repositories"),
        _fk("tags", "manifest_id", "manifests"),
    )
    op.create_index("ix_tags_manifest_id", "tags", ["manifest_id"])
    _create_work_in_progress()


def _create_work_in_progress() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("repository_id", ID, nullable=False),
        sa.Column("storage_key", sa.String(100), nullable=False),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("durable_offset", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        _fk("uploads", "repository_id", "repositories"),
    )
    op.create_index("ix_uploads_repository_id", "uploads", ["repository_id"])
    op.create_index("ix_uploads_updated", "uploads", ["updated"])
    op.create_table(
        "tombstones",
        sa.Column("storage_key", sa.String(100), nullable=False),
        sa.Column("buried", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("storage_key", name="pk_tombstones"),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("expires", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_leases"),
    )
    op.create_index("ix_leases_expires", "leases", ["expires"])
    op.create_table(
        "lease_digests",
        sa.Column("lease_id", sa.String(64), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.PrimaryKeyConstraint("lease_id", "digest", name="pk_lease_digests"),
        _fk("lease_digests", "lease_id", "leases"),
    )
    op.create_index("ix_lease_digests_digest", "lease_digests", ["digest"])
