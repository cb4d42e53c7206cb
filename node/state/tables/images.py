"""What pulling remembers: sizes of unpacked layers, downloads that were cut off; and when images were last used."""

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

image_uses = Table(
    "image_uses",
    metadata,
    Column("image_id", String(140), primary_key=True),
    Column("used", String(40), nullable=False),
)
