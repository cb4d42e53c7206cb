"""The digest of what an upload has, beside its offset."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("digest", sa.String(140), nullable=True))


def downgrade() -> None:
    op.drop_column("uploads", "digest")
