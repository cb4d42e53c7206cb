"""What a list of referrers is made from: annotations apart from the manifests, and an index in the list's order."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OLD, NEW = "ix_manifests_repository_id_subject", "ix_manifests_repository_id_subject_digest_artifact_type"
BATCH = 100
"""Manifests in memory at a time while what is stored is read again: 4 MiB each at most."""


def upgrade() -> None:
    op.create_table(
        "manifest_annotations",
        sa.Column("manifest_id", ROW_ID, nullable=False),
        sa.Column("annotations", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifests.id"], ondelete="CASCADE",
                                name="fk_manifest_annotations_manifest_id"),
        sa.PrimaryKeyConstraint("manifest_id", name="pk_manifest_annotations"),
    )
    op.drop_index(OLD, "manifests")
    op.create_index(NEW, "manifests", ["repository_id", "subject", "digest", "artifact_type"])
    _fill()


def downgrade() -> None:
    op.drop_index(NEW, "manifests")
    op.create_index(OLD, "manifests", ["repository_id", "subject"])
    op.drop_table("manifest_annotations")


def _fill() -> None:
    connection = op.get_bind()
    manifests = sa.table("manifests", sa.column("id"), sa.column("raw"))
    annotations = sa.table("manifest_annotations", sa.column("manifest_id"), sa.column("annotations"))
    done = 0
    while True:
        rows = connection.execute(sa.select(manifests.c.id, manifests.c.raw).where(manifests.c.id > done)
                                  .order_by(manifests.c.id).limit(BATCH)).all()
        if not rows:
            return
        found = [{"manifest_id": number, "annotations": said} for number, raw in rows if (said := _annotations(raw))]
        if found:
            connection.execute(sa.insert(annotations), found)
        done = rows[-1][0]


def _annotations(raw: bytes) -> bytes:
    """As `storage.metadata.manifests` writes them. What is stored was checked when it came, but bits flip: nobody shall
    be kept from upgrading by a damaged manifest, which the scrub tells of."""
    try:
        document: Any = json.loads(raw)
    except ValueError:
        return b""
    said = document.get("annotations") if isinstance(document, dict) else None
    return json.dumps(said, separators=(",", ":")).encode() if said else b""
