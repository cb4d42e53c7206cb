"""When images were last used."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "image_uses",
        sa.Column("image_id", sa.String(140), nullable=False),
        sa.Column("used", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("image_id", name="pk_image_uses"),
    )
