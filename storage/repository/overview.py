"""Repositories as an operator looks at them."""

from collections.abc import Sequence

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.errors import RepositoryUnknown
from storage.metadata import overview as rows
from storage.metadata.engine import Database
from storage.metadata.overview import RepositoryRow, TaggedRow


class Overview:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def named(self, names: Sequence[str]) -> Sequence[RepositoryRow]:
        """Those of these names that there are, by name."""
        async with self._database.read() as tx:
            return await rows.named(tx, names)

    async def repository(self, name: RepositoryName) -> RepositoryRow:
        """Raises RepositoryUnknown."""
        async with self._database.read() as tx:
            found = await rows.repository(tx, name)
        if found is None:
            raise RepositoryUnknown(name)
        return found

    async def tags(self, name: RepositoryName, *, limit: int, after: str = "") -> Sequence[TaggedRow]:
        """With what they name, by name, after `after`; none for a repository that is not known."""
        async with self._database.read() as tx:
            return await rows.tagged(tx, name, limit, after)

    async def tags_of(self, name: RepositoryName, digest: Digest) -> Sequence[Tag]:
        async with self._database.read() as tx:
            return await rows.tags_of(tx, name, digest)

    async def digests(self, name: RepositoryName, limit: int) -> Sequence[Digest]:
        """Some of its manifests, the newest first; none when it is empty or not known."""
        async with self._database.read() as tx:
            return await rows.digests(tx, name, limit)
