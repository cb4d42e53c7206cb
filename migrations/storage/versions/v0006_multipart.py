"""Uploads: what a bucket wants to know of an unfinished one, who claims to write it, the state of its hash."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("mark", sa.Text, nullable=False, server_default=""))
    op.add_column("uploads", sa.Column("writer", sa.String(36), nullable=True))
    op.add_column("uploads", sa.Column("state", sa.LargeBinary, nullable=True))


def downgrade() -> None:
    op.drop_column("uploads", "state")
    op.drop_column("uploads", "writer")
    op.drop_column("uploads", "mark")
