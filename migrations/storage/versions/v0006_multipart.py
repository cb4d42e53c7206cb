"""Uploads in buckets: what the store wants to know of an unfinished one, and which process claims to write it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("mark", sa.Text, nullable=False, server_default=""))
    op.add_column("uploads", sa.Column("writer", sa.String(36), nullable=True))


def downgrade() -> None:
    op.drop_column("uploads", "writer")
    op.drop_column("uploads", "mark")
