"""The order of an import: repository by repository, several at once; in each blobs, then manifests, then tags.

Killed anywhere, what is in the store is consistent: bytes without a row go with the next collection, and blobs without
a manifest after the grace. Started again it finds from our rows what is done: a blob that is stored is linked, not
read; a manifest and a tag that are there stay.
"""

import asyncio
from collections.abc import Iterator

from ocispec.reference import RepositoryName
from registry.importing.content import RepositoryTakeover, Tools
from registry.importing.journal import Damaged
from registry.importing.progress import Counts

REPOSITORIES = 4
"""So many at once: enough that one with a single large blob does not hold up the others."""


class Takeover:
    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(self) -> Counts:
        """Take over everything that can be. Damage goes to the journal; what is raised (a full disk, a store that
        does not answer, a setting that cannot work) ends the import, and a later one continues it."""
        names = self._tools.source.repositories(self._tools.journal)
        turn = asyncio.Lock()

        async def worker() -> None:
            while True:
                async with turn:
                    name = await asyncio.to_thread(_next, names)
                if name is None:
                    return
                await self._repository(name)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(REPOSITORIES):
                    group.create_task(worker())
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        return self._tools.counts

    async def _repository(self, name: RepositoryName) -> None:
        counts = self._tools.counts
        counts.current.add(name.value)
        try:
            survey = await asyncio.to_thread(self._tools.source.survey, name, self._tools.journal)
            async with self._tools.target.working_on(name) as lease:
                await RepositoryTakeover(self._tools, survey, lease).run()
            counts.repositories += 1
        except Damaged as damage:
            self._tools.journal.add(damage.entry(repository=name))
        finally:
            counts.current.discard(name.value)


def _next(names: Iterator[RepositoryName]) -> RepositoryName | None:
    return next(names, None)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
