"""Who may do what: users, robots, policies, and the keys and tokens they come with.

No secret stands here that could be used: passwords are argon2id hashes, tokens SHA-256 of what nobody can guess. The
exception is the signing key, which every replica needs; whoever reads it can make tokens (see docs/identity.md).
"""

from sqlalchemy import Boolean, Column, ForeignKey, Index, String, Table, Text, UniqueConstraint

from storage.metadata.tables.base import ROW_ID, Instant, ascii_string, metadata

users = Table(
    "users",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("name", ascii_string(255), nullable=False, unique=True),
    # None: this user logs in by other means.
    Column("password", String(255), nullable=True),
    Column("admin", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    # Drawn anew with each password: what was issued under another stamp is void, also after the name was given again.
    Column("stamp", String(32), nullable=False),
    Column("created", Instant, nullable=False),
)

memberships = Table(
    "memberships",
    metadata,
    Column("user_id", ROW_ID, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("group_name", ascii_string(255), primary_key=True),
)

robots = Table(
    "robots",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("name", ascii_string(255), nullable=False, unique=True),
    # The part of the token that finds the row; the hash of the whole token proves it.
    Column("key", String(32), nullable=False, unique=True),
    Column("secret", String(64), nullable=False),
    # The subject whose rights bound the robot's: `user:ann`, `group:dev`; None: its scope alone.
    Column("owner", ascii_string(300), nullable=True, index=True),
    # JSON; None: no limit but the owner's, or the policies'.
    Column("scope", Text, nullable=True),
    Column("admin", Boolean, nullable=False),
    Column("created", Instant, nullable=False),
    Column("expires", Instant, nullable=True),
)

policies = Table(
    "policies",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("pattern", ascii_string(255), nullable=False),
    Column("subject", ascii_string(300), nullable=False),
    Column("actions", String(100), nullable=False),
    Column("created", Instant, nullable=False),
    UniqueConstraint("pattern", "subject"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("secret", String(64), nullable=False),
    Column("subject", ascii_string(300), nullable=False),
    Column("stamp", String(64), nullable=False),
    Column("client", String(255), nullable=False),
    Column("created", Instant, nullable=False),
    Column("expires", Instant, nullable=False, index=True),
    Index(None, "subject", "created"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("algorithm", String(16), nullable=False),
    # A JWK with the private part, as JSON.
    Column("private", Text, nullable=False),
    Column("created", Instant, nullable=False),
    # From then on nothing is signed with it; what it signed stays good until that expires.
    Column("retired", Instant, nullable=True),
)
