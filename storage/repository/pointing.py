"""Pointing a tag at a manifest: the one place that lets a tag move."""

from collections.abc import Callable
from datetime import datetime

from ocispec.digest import Digest
from ocispec.errors import FailedPrecondition
from ocispec.reference import RepositoryName, Tag
from storage.metadata import manifests as manifest_rows
from storage.metadata import tags as rows
from storage.metadata.engine import Transaction
from storage.rules.book import RuleBook
from storage.rules.refusals import TagExists, TagImmutable

Condition = Callable[[Digest | None], bool]
"""Whether a tag that names this (None: nothing) may be written."""


def always(_named: Digest | None) -> bool:
    return True


class TagChanged(FailedPrecondition):
    """The tag names something else than the request's condition says: somebody was faster."""

    def __init__(self, repo: RepositoryName, tag: Tag) -> None:
        super().__init__(f"tag {tag} of {repo} is not as the request's condition wants it", detail={"tag": tag.value})


async def point(tx: Transaction, repo: RepositoryName, repository: int, tag: Tag, manifest: int, now: datetime, *,
                book: RuleBook, overwrite: bool, condition: Condition = always) -> bool:
    """Point the tag at a manifest (a row) of the same repository; whether it named another one before, which then has
    the grace to live on: clients that resolved the tag a moment ago are still pulling it.

    `overwrite` False: the tag must not move. Naming again what it names is no move, and is always allowed.
    `condition` is asked about what the tag names now. Raises TagChanged, TagExists, TagImmutable.
    """
    before = await rows.target(tx, repository, tag)
    if not condition(before[1] if before else None):
        raise TagChanged(repo, tag)
    moves = before is not None and before[0] != manifest
    if before is not None and moves:
        rule = book.immutable(repo, tag)
        if rule is not None:
            raise TagImmutable(repo, tag, rule)
        if not overwrite:
            raise TagExists(repo, tag)
        await manifest_rows.touch_rows(tx, [before[0]], now)
    await rows.write(tx, repository, tag, manifest, now)
    return moves
