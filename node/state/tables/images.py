"""What pulling remembers: sizes of unpacked layers, downloads that were cut off."""

from sqlalchemy import BigInteger, Column, String, Table

from node.state.tables.naming import metadata

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
