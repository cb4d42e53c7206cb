"""Topics: what processes tell each other besides changed repositories; and which repositories hold a manifest."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "topics",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_topics"),
    )
    op.create_index("ix_topics_generation", "topics", ["generation"])
    op.add_column("repositories", sa.Column("filled", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(sa.text("UPDATE repositories SET filled = true WHERE EXISTS "
                       "(SELECT 1 FROM manifests WHERE manifests.repository_id = repositories.id)"))
    op.create_index("ix_repositories_filled", "repositories", ["filled", "name"])


def downgrade() -> None:
    op.drop_index("ix_repositories_filled", "repositories")
    op.drop_column("repositories", "filled")
    op.drop_table("topics")
