"""From what an operator named to a source."""

from pathlib import Path

from ocispec.errors import InvalidArgument
from registry.importing.bucket import BucketTree
from registry.importing.distribution import DistributionSource
from registry.importing.folder import FolderTree
from registry.importing.journal import Damaged, printable
from registry.importing.layout import LayoutSource
from registry.importing.source import Source
from registry.importing.target import Bytes, Mode


def open_tree(source: str, endpoint: str | None, how: Bytes) -> FolderTree | BucketTree:
    """A folder or `s3://bucket/prefix`; close it. Raises InvalidArgument and Unavailable."""
    if not source.startswith("s3://"):
        return FolderTree(Path(source))
    if how.mode is not Mode.COPY:
        raise InvalidArgument("what is in a bucket can only be copied")
    return BucketTree.connect(source, endpoint)


def open_source(layout: str, tree: FolderTree | BucketTree, *, relink: bool) -> Source:
    """Raises InvalidArgument when the tree has another layout."""
    try:
        return LayoutSource(tree) if layout == "zot" else DistributionSource(tree, relink=relink)
    except Damaged as damage:
        raise InvalidArgument(f"nothing to import: {printable(damage.what)}") from damage
