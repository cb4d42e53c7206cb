"""Pull-through: what is kept of other registries beside the content itself."""

from sqlalchemy import BigInteger, Column, ForeignKey, ForeignKeyConstraint, Index, String, Table

from storage.metadata.tables.base import ROW_ID, DigestText, Instant, ascii_string, metadata

# A tag with a row here came from an upstream. The row goes with its tag, whoever deletes that.
cached_tags = Table(
    "cached_tags",
    metadata,
    Column("repository_id", ROW_ID, ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("name", ascii_string(128), primary_key=True),
    Column("checked", Instant, nullable=False),
    Column("used", Instant, nullable=False, index=True),
    ForeignKeyConstraint(["repository_id", "name"], ["tags.repository_id", "tags.name"], ondelete="CASCADE",
                         name="fk_cached_tags_tag"),
)

# A blob on its way from an upstream. The repository by name: there may be no row of it yet.
fills = Table(
    "fills",
    metadata,
    Column("repository", ascii_string(511), primary_key=True),
    Column("digest", DigestText, primary_key=True),
    Column("owner", String(36), nullable=False),
    Column("expires", Instant, nullable=False),
    # The session that the bytes go to, so that another process can go on where this one ended.
    Column("upload_id", String(36), nullable=True),
    # Where they lie meanwhile: processes of the same machine read them while they come.
    Column("key", String(64), nullable=True),
    Column("size", BigInteger, nullable=True),
    Index("ix_fills_owner", "owner"),
)
