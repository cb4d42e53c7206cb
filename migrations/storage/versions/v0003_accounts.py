"""Users, groups, robots, policies, refresh tokens, signing keys; whose an upload is."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def ascii_string(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    _users()
    _robots()
    _policies()
    _tokens()
    op.add_column("uploads", sa.Column("owner", ascii_string(300), nullable=True))


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("name", ascii_string(255), nullable=False),
        sa.Column("password", sa.String(255), nullable=True),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("stamp", sa.String(32), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )
    op.create_table(
        "memberships",
        sa.Column("user_id", ROW_ID, nullable=False),
        sa.Column("group_name", ascii_string(255), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE", name="fk_memberships_user_id"),
        sa.PrimaryKeyConstraint("user_id", "group_name", name="pk_memberships"),
    )


def _robots() -> None:
    op.create_table(
        "robots",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("name", ascii_string(255), nullable=False),
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("owner", ascii_string(300), nullable=True),
        sa.Column("scope", sa.Text(), nullable=True),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_robots"),
        sa.UniqueConstraint("name", name="uq_robots_name"),
        sa.UniqueConstraint("key", name="uq_robots_key"),
    )
    op.create_index("ix_robots_owner", "robots", ["owner"])


def _policies() -> None:
    op.create_table(
        "policies",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("pattern", ascii_string(255), nullable=False),
        sa.Column("subject", ascii_string(300), nullable=False),
        sa.Column("actions", sa.String(100), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_policies"),
        sa.UniqueConstraint("pattern", "subject", name="uq_policies_pattern_subject"),
    )


def _tokens() -> None:
    op.create_table(
        "refresh_tokens",
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("subject", ascii_string(300), nullable=False),
        sa.Column("stamp", sa.String(64), nullable=False),
        sa.Column("client", sa.String(255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_refresh_tokens"),
    )
    op.create_index("ix_refresh_tokens_expires", "refresh_tokens", ["expires"])
    op.create_index("ix_refresh_tokens_subject_created", "refresh_tokens", ["subject", "created"])
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("private", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("retired", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("kid", name="pk_signing_keys"),
    )


def downgrade() -> None:
    op.drop_column("uploads", "owner")
    for table in ("signing_keys", "refresh_tokens", "policies", "robots", "memberships", "users"):
        op.drop_table(table)
