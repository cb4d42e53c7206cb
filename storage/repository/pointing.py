"""Pointing a tag at a manifest: the one place that lets a tag move."""

from datetime import datetime

from ocispec.reference import RepositoryName, Tag
from storage.metadata import manifests as manifest_rows
from storage.metadata import tags as rows
from storage.metadata.engine import Transaction
from storage.rules.book import RuleBook
from storage.rules.refusals import TagExists, TagImmutable


async def point(tx: Transaction, repo: RepositoryName, repository: int, tag: Tag, manifest: int, now: datetime, *,
                book: RuleBook, overwrite: bool) -> bool:
    """Point the tag at a manifest (a row) of the same repository; whether it named another one before, which then has
    the grace to live on: clients that resolved the tag a moment ago are still pulling it.

    `overwrite` False: the tag must not move. Naming again what it names is no move, and is always allowed.
    Raises TagExists, TagImmutable.
    """
    before = await rows.target(tx, repository, tag)
    if before is not None and before[0] != manifest:
        rule = book.immutable(repo, tag)
        if rule is not None:
            raise TagImmutable(repo, tag, rule)
        if not overwrite:
            raise TagExists(repo, tag)
        await manifest_rows.touch_rows(tx, [before[0]], now)
    return await rows.put(tx, repository, tag, manifest, now)
