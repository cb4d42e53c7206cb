"""Containers and settings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "containers",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_containers"),
        sa.UniqueConstraint("name", name="uq_containers_name"),
    )
    op.create_table(
        "settings",
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )
    op.create_table(
        "layer_sizes",
        sa.Column("diff_id", sa.String(140), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("diff_id", name="pk_layer_sizes"),
    )
    op.create_table(
        "downloads",
        sa.Column("digest", sa.String(140), nullable=False),
        sa.Column("repository", sa.String(300), nullable=False),
        sa.Column("upload_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_downloads"),
    )
    op.create_table(
        "volumes",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_volumes"),
    )
