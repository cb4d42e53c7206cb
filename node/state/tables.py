"""The schema of state.db. A change here needs a migration in `migrations/node/versions` (a test compares the two)."""

from sqlalchemy import BigInteger, Column, MetaData, String, Table, Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

containers = Table(
    "containers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("created", String(40), nullable=False),
    # What never changes after create, and what every transition rewrites: apart, so that a transition stays small.
    Column("spec", Text, nullable=False),
    Column("state", Text, nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)

layer_sizes = Table(
    "layer_sizes",
    metadata,
    Column("diff_id", String(140), primary_key=True),
    Column("size", BigInteger, nullable=False),
)

downloads = Table(
    "downloads",
    metadata,
    Column("digest", String(140), primary_key=True),
    Column("repository", String(300), nullable=False),
    Column("upload_id", String(64), nullable=False),
)

volumes = Table(
    "volumes",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("created", String(40), nullable=False),
    Column("labels", Text, nullable=False),
)
