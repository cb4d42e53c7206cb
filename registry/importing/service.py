"""A whole import, for whoever asks for one: the command line, or the administration API."""

import asyncio
from dataclasses import dataclass

from registry.importing.content import Tools
from registry.importing.flights import Flights
from registry.importing.journal import Journal
from registry.importing.opening import open_source, open_tree
from registry.importing.progress import Counts
from registry.importing.takeover import Takeover
from registry.importing.target import Bytes, DryRun, Store, Target
from storage.gc.leases import Leases
from storage.repository.intake import Intake
from storage.repository.manifests import Manifests


@dataclass(frozen=True, slots=True)
class Import:
    """What to take over and how. `layout` is `distribution` or `zot`; `source` a folder or `s3://bucket/prefix`."""

    layout: str
    source: str
    how: Bytes
    relink: bool = False
    overwrite_tags: bool = False
    jobs: int = 4
    endpoint: str | None = None
    dry_run: bool = False


async def take_over(wanted: Import, manifests: Manifests, intake: Intake, leases: Leases, journal: Journal,
                    counts: Counts) -> None:
    """Import another registry's store, also beside a running registry. `journal` hears of damage, `counts` say how far
    it is. Raises InvalidArgument for a source that is none, and what ends an import until it is started again:
    StoreFull, Unavailable, FailedPrecondition (files that cannot be linked)."""
    tree = await asyncio.to_thread(open_tree, wanted.source, wanted.endpoint, wanted.how)
    try:
        source = await asyncio.to_thread(open_source, wanted.layout, tree, relink=wanted.relink)
        target: Target = DryRun(intake, wanted.how) if wanted.dry_run else Store(intake, manifests, leases, wanted.how)
        flights = Flights(source, target, counts, wanted.jobs)
        await Takeover(Tools(source, target, intake, journal, counts, flights, wanted.overwrite_tags)).run()
    finally:
        tree.close()
