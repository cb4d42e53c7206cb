"""Retention, immutability, quotas and pulls; what the collector has yet to look at."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def ascii_string(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    _rules()
    _pulls()
    _reviews()


def downgrade() -> None:
    for column in ("reviewing", "dirty"):
        op.drop_index(f"ix_repositories_{column}", "repositories")
        op.drop_column("repositories", column)
    for table in ("duties", "blob_reviews", "pulls", "usage", "rules"):
        op.drop_table(table)


def _rules() -> None:
    op.create_table(
        "rules",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("repositories", ascii_string(255), nullable=False),
        sa.Column("tags", ascii_string(255), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rules"),
        sa.UniqueConstraint("kind", "repositories", "tags", name="uq_rules_kind_repositories_tags"),
    )
    op.create_table(
        "usage",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("namespace", ascii_string(511), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage"),
    )
    op.create_index("ix_usage_namespace", "usage", ["namespace"])


def _pulls() -> None:
    op.create_table(
        "pulls",
        sa.Column("repository_id", ROW_ID, nullable=False),
        sa.Column("reference", ascii_string(140), nullable=False),
        sa.Column("pulled", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], ondelete="CASCADE",
                                name="fk_pulls_repository_id"),
        sa.PrimaryKeyConstraint("repository_id", "reference", name="pk_pulls"),
    )


def _reviews() -> None:
    for column in ("dirty", "reviewing"):
        op.add_column("repositories", sa.Column(column, sa.BigInteger(), nullable=True))
        op.create_index(f"ix_repositories_{column}", "repositories", [column])
    op.create_table(
        "blob_reviews",
        sa.Column("blob_id", ROW_ID, nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], ondelete="CASCADE", name="fk_blob_reviews_blob_id"),
        sa.PrimaryKeyConstraint("blob_id", name="pk_blob_reviews"),
    )
    op.create_index("ix_blob_reviews_since", "blob_reviews", ["since"])
    op.create_table(
        "duties",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_duties"),
    )
