"""Tags of a repository, and the lists over all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.errors import RepositoryUnknown
from storage.events import Action, Event, Origin
from storage.metadata import events, repositories
from storage.metadata import manifests as manifest_rows
from storage.metadata import tags as rows
from storage.metadata.engine import Database, retried
from storage.metadata.repositories import Region, RepositorySummary
from storage.metadata.tags import TagRow
from storage.repository.manifests import ManifestUnknown
from storage.repository.pointing import Condition, TagChanged, always, point
from storage.rules.refusals import TagImmutable
from storage.rules.service import Rules


@dataclass(frozen=True, slots=True)
class Page:
    """`names` in order of code points; `more`: there are others after the last."""

    names: list[str]
    more: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """Whose names may be listed: `decide` is asked for each, `region` says where to look (None: everywhere)."""

    decide: Callable[[RepositoryName], bool]
    region: Region | None = None


BATCH = 1000
"""Names that are read and decided about at a time."""

SEARCHED = 2000


class Tags:
    def __init__(self, database: Database, rules: Rules) -> None:
        self._database = database
        self._rules = rules

    @retried
    async def put(self, repo: RepositoryName, tag: Tag, digest: Digest, *, overwrite: bool = True,
                  origin: Origin | None = None) -> None:
        """Point the tag at a manifest of the repository. `overwrite` False: it must not move. Raises ManifestUnknown,
        TagExists, TagImmutable."""
        now = self._database.now()
        async with self._database.write(beside=True, about=repo.value) as tx:
            repository = await repositories.lock(tx, repo)
            number = None if repository is None else await manifest_rows.find_id(tx, repository, digest)
            if repository is None or number is None:
                raise ManifestUnknown(repo, digest)
            moved = await point(tx, repo, repository, tag, number, now, book=await self._rules.book(tx),
                                overwrite=overwrite)
            await manifest_rows.touch(tx, repository, [digest], now)
            if moved:
                await repositories.outdate(tx, repository, since=now)
            if origin is not None:
                await events.record(tx, Event(Action.TAG_PUT, origin, repo, digest, tag), now)

    @retried
    async def delete(self, repo: RepositoryName, tag: Tag, *, force: bool = False, condition: Condition = always,
                     origin: Origin | None = None) -> Digest:
        """The tag alone; gives what it named. `force`: also where it is immutable. `condition` must hold for what it
        names now. Raises ManifestUnknown, TagChanged, TagImmutable."""
        async with self._database.write(beside=True, about=repo.value) as tx:
            repository = await repositories.lock(tx, repo)
            named = None if repository is None else await rows.target(tx, repository, tag)
            if repository is None or named is None:
                raise ManifestUnknown(repo, tag)
            if not condition(named[1]):
                raise TagChanged(repo, tag)
            rule = None if force else (await self._rules.book(tx)).immutable(repo, tag)
            if rule is not None:
                raise TagImmutable(repo, tag, rule)
            now = self._database.now()
            await rows.delete(tx, repository, tag)
            await manifest_rows.touch_rows(tx, [named[0]], now)  # a grace for those who resolved the tag just before
            await repositories.outdate(tx, repository, since=now)
            if origin is not None:
                await events.record(tx, Event(Action.TAG_DELETE, origin, repo, named[1], tag), now)
        return named[1]

    async def catalog(self, *, limit: int | None, last: str | None, shown: Shown | None = None) -> Page:
        """Repositories that hold a manifest, after `last`; of those `shown` says yes to a page is full, or the last,
        however many others lie between."""
        if shown is None or limit == 0:
            async with self._database.read() as tx:
                names = await repositories.catalog(tx, _one_more(limit), last)
            return _page(list(names), limit)
        found: list[str] = []
        while limit is None or len(found) <= limit:
            async with self._database.read() as tx:
                names = await repositories.catalog(tx, BATCH, last, shown.region)
            found += [name for name in names if shown.decide(RepositoryName(name))]
            if len(names) < BATCH:
                break
            last = names[-1]
        return _page(found, limit)

    async def search(self, text: str, *, limit: int, offset: int,
                     shown: Shown | None = None) -> tuple[list[RepositorySummary], int]:
        """Repositories whose name contains `text`, the best first, and how many there are. What `shown` says no to is
        not counted; of more than `SEARCHED` matches the worst are not looked at then."""
        async with self._database.read() as tx:
            if shown is None:
                return await repositories.search(tx, text, limit, offset)
            return await repositories.search_among(tx, text, limit, offset, SEARCHED, shown.region, shown.decide)

    async def all(self) -> list[TagRow]:
        async with self._database.read() as tx:
            return [*await rows.rows(tx)]

    async def by_digest(self, digest: Digest) -> list[TagRow]:
        """In every repository."""
        async with self._database.read() as tx:
            return [*await rows.rows(tx, digest)]

    async def list(self, repo: RepositoryName, *, limit: int | None, last: str | None) -> Page:
        """Tags after `last`. Raises RepositoryUnknown."""
        async with self._database.read() as tx:
            repository = await repositories.find(tx, repo)
            if repository is None:
                raise RepositoryUnknown(repo)
            names = await rows.names(tx, repository, _one_more(limit), last)
        return _page(list(names), limit)


def _one_more(limit: int | None) -> int | None:
    return None if limit is None else limit + 1


def _page(names: list[str], limit: int | None) -> Page:
    if limit == 0:
        return Page([], more=False)  # distribution-spec: n=0 gives an empty list and no Link
    return Page(names[:limit], more=limit is not None and len(names) > limit)
