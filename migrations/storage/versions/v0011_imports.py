"""Checking stored bytes: when each blob was last found whole, and which ones are kept from being served."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("blobs", sa.Column("verified", sa.BigInteger(), nullable=True))
    op.add_column("blobs", sa.Column("quarantined", sa.BigInteger(), nullable=True))
    op.create_table(
        "scrub_passes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("finished", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_scrub_passes"),
    )


def downgrade() -> None:
    op.drop_table("scrub_passes")
    op.drop_column("blobs", "quarantined")
    op.drop_column("blobs", "verified")
