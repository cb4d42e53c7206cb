"""Pull-through."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def ascii_string(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "cached_tags",
        sa.Column("repository_id", ROW_ID, sa.ForeignKey("repositories.id", ondelete="CASCADE",
                                                         name="fk_cached_tags_repository_id"), nullable=False),
        sa.Column("name", ascii_string(128), nullable=False),
        sa.Column("checked", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "name", name="pk_cached_tags"),
        sa.ForeignKeyConstraint(["repository_id", "name"], ["tags.repository_id", "tags.name"], ondelete="CASCADE",
                                name="fk_cached_tags_tag"),
    )
    op.create_index("ix_cached_tags_used", "cached_tags", ["used"])
    op.create_table(
        "fills",
        sa.Column("repository", ascii_string(511), nullable=False),
        sa.Column("digest", sa.String(140), nullable=False),
        sa.Column("owner", sa.String(36), nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("upload_id", sa.String(36), nullable=True),
        sa.Column("key", sa.String(64), nullable=True),
        sa.Column("size", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("repository", "digest", name="pk_fills"),
    )
    op.create_index("ix_fills_owner", "fills", ["owner"])


def downgrade() -> None:
    op.drop_table("fills")
    op.drop_table("cached_tags")
