"""Garbage collection at a word."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from registry.api.admin.operation import Asked, Operation, Strict
from storage.gc.report import GcReport, Item
from storage.gc.sweep import Collector

MAX_ITEMS = 10_000


class Collect(Strict, frozen=True):
    """`dry_run`: remove nothing, tell what would go and why."""

    dry_run: bool


class Removed(msgspec.Struct, frozen=True):
    """A `manifest`, a `membership` (a blob's place in a repository), a `blob`, or `bytes` that no row names; `size` in
    bytes."""

    kind: str
    why: str
    size: int
    repository: str
    digest: str
    key: str

    @classmethod
    def of(cls, item: Item) -> "Removed":
        return cls(item.kind, item.why, item.size, str(item.repository or ""), str(item.digest or ""), item.key or "")


class Collected(msgspec.Struct, frozen=True):
    """`removed` are the first of them, `counts` all by kind. `freed` bytes in all, `freed_in` by the repositories whose
    removals freed them. `longest_hold`: seconds for which others could not write at most."""

    dry_run: bool
    removed: list[Removed]
    counts: dict[str, int]
    kept: int
    freed: int
    freed_in: dict[str, int]
    longest_hold: float

    @classmethod
    def of(cls, report: GcReport) -> "Collected":
        return cls(report.dry_run, [Removed.of(item) for item in report.removed[:MAX_ITEMS]],
                   {str(kind): count for kind, count in report.counts.items()}, report.kept, report.freed,
                   dict(report.freed_in.most_common(MAX_ITEMS)), report.longest_hold)


class GarbageOperations:
    """`grace` is the registry's own: nobody can ask for less."""

    def __init__(self, collector: Collector, grace: timedelta) -> None:
        self._collector = collector
        self._grace = grace

    def operations(self) -> Sequence[Operation]:
        return (Operation("POST", "/garbage/collections", "Collect everything that can go, or tell what would",
                          self.collect, body=Collect, result=Collected),)

    async def collect(self, asked: Asked) -> Collected:
        report = await self._collector.run(dry_run=asked.body.dry_run, grace=self._grace)
        return Collected.of(report)
