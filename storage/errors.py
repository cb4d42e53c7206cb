"""Errors that more than one room of storage raises; the others stand beside their raiser."""

from ocispec.digest import Digest
from ocispec.errors import InvalidArgument, NotFound, ResourceExhausted
from ocispec.reference import RepositoryName


class RepositoryUnknown(NotFound):
    def __init__(self, name: RepositoryName) -> None:
        super().__init__(f"repository {name} is not known", detail={"name": str(name)})


class BlobUnknown(NotFound):
    def __init__(self, digest: Digest) -> None:
        super().__init__(f"blob {digest} is unknown to this repository", detail={"digest": str(digest)})


class DigestMismatch(InvalidArgument):
    """The bytes are not those that the digest promised."""

    def __init__(self, expected: Digest, actual: Digest) -> None:
        super().__init__(f"content has digest {actual}, not {expected}",
                         detail={"expected": str(expected), "actual": str(actual)})


class StoreFull(ResourceExhausted):
    """The disk (or bucket) took no more bytes; what was stored before is whole."""
