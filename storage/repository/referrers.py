"""Who refers to a manifest: signatures, attestations, SBOMs (distribution-spec, "Listing Referrers")."""

from dataclasses import dataclass, replace

from ocispec.reference import RepositoryName
from storage.metadata import referrers as rows
from storage.metadata.engine import Database
from storage.metadata.referrers import Referrer, Wanted

BATCH = 500
"""Rows that are made into values at a time, so that a long page does not keep the event loop from others."""


@dataclass(frozen=True, slots=True)
class Page:
    """`found` in the order of digests; `more`: there are others after the last."""

    found: list[Referrer]
    more: bool


class Referrers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, repo: RepositoryName, wanted: Wanted, *, limit: int, room: int) -> Page:
        """What refers to the subject in `repo`, whether or not the subject exists: at most `limit`, and as far as
        their descriptors take no more than `room` bytes of JSON, but at least one. A `limit` of 0 gives nothing."""
        found: list[Referrer] = []
        more = limit > 0
        async with self._database.read() as tx:
            while more and len(found) < limit and (not found or room > 0):
                some, more = await rows.page(tx, repo, wanted, min(BATCH, limit - len(found)), room)
                room -= sum(item.weight(len(item.annotations)) for item in some)
                if found and room < 0:
                    return Page(found, more=True)  # its first did not fit, and comes as the next page's first
                found += some
                wanted = replace(wanted, after=found[-1].digest) if found else wanted
        return Page(found, more)
