"""`import`: take over what another registry stored."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from registry import app
from registry.cli.root import Command, common, main
from registry.importing.journal import Entry, Journal, Outcome, Sink, json_report, printable
from registry.importing.progress import Counts
from registry.importing.service import Import, take_over
from registry.importing.target import Bytes, Mode
from registry.settings import Settings

DAMAGED = 3
"""Exit status when something was damaged, whether or not it could be healed."""

SHOWN = 50
EVERY_TTY, EVERY_LOG = 0.5, 30.0


@main.command("import", cls=Command)
@click.argument("layout", type=click.Choice(["distribution", "zot"]))
@click.argument("source", metavar="DIR|s3://BUCKET/PREFIX")
@common
@click.option("--copy", "mode", flag_value=Mode.COPY.value, default=True, help="Copy the bytes (default).")
@click.option("--in-place", "mode", flag_value=Mode.LINK.value,
              help="Link the files instead: no second copy; the source stays as it is and usable.")
@click.option("--clone", "mode", flag_value=Mode.CLONE.value, help="Share blocks where the file system can (reflink).")
@click.option("--or-copy", is_flag=True, help="Copy what cannot be linked or cloned, instead of stopping.")
@click.option("--trust", is_flag=True, help="Believe digests of blobs without reading them; sizes are compared.")
@click.option("--relink", is_flag=True, help="Take back what a repository's manifests and tags name and it lists no "
                                             "more, perhaps because it was deleted.")
@click.option("--overwrite-tags", is_flag=True, help="Move tags that name something else here.")
@click.option("--jobs", type=click.IntRange(1, 64), metavar="N", help="Blobs at a time. Default: two for each core.")
@click.option("--endpoint", metavar="URL", help="Of an S3 service that is not Amazon's.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, change nothing.")
@click.option("--report", "report_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write everything that was damaged, and what was done, as JSON.")
def import_(config: Path | None, report_file: Path | None, *, layout: str, source: str, mode: str, or_copy: bool,
            trust: bool, relink: bool, overwrite_tags: bool, jobs: int | None, endpoint: str | None, dry_run: bool,
            **flags: Any) -> None:
    """Take over the repositories of another registry; started again, it goes on where it was."""
    settings = Settings.load(config, os.environ, **flags)
    wanted = Import(
        layout, source, Bytes(Mode(mode), or_copy, verify=not trust), relink=relink, overwrite_tags=overwrite_tags,
        jobs=jobs or 2 * len(os.sched_getaffinity(0)), endpoint=endpoint, dry_run=dry_run)
    console = Console(sys.stderr)
    with ExitStack() as stack:
        report = stack.enter_context(json_report(report_file)) if report_file else None
        sinks: list[Sink] = [console, report] if report else [console]
        journal, counts = Journal(*sinks), Counts()
        asyncio.run(_run(settings, wanted, journal, counts, console))
        damage = {f"{kind.code} ({outcome.value})": count for (kind, outcome), count in sorted(
            journal.counts.items(), key=lambda item: (item[0][1].value, item[0][0].code))}
        if report:
            report.end({**counts.to_json(), "dry_run": dry_run, "damaged": journal.damaged, "classes": damage})
    for what, count in damage.items():
        click.echo(f"{count:8} {what}")
    click.echo(f"{'would take' if dry_run else 'took'} {counts.line()}; {journal.damaged} damaged")
    if journal.damaged:
        sys.exit(DAMAGED)


async def _run(settings: Settings, wanted: Import, journal: Journal, counts: Counts, console: "Console") -> None:
    async with app.open_registry(settings, migrate=False) as registry, console.following(counts):
        await take_over(wanted, registry.content.manifests, registry.intake, registry.leases, journal, counts)


class Console:
    """Sink: the first entries as lines, and one line that says how far it is."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lively = out.isatty()
        self._left = SHOWN

    def write(self, entry: Entry) -> None:
        if entry.outcome is Outcome.NOTED or self._left < 0:
            return
        self._left -= 1
        if self._left < 0:
            self._say("... more is damaged: --report FILE has it all")
            return
        done = f" ({entry.done})" if entry.done else ""
        self._say(printable(f"{entry.outcome.value:6} {entry.kind.code}  {entry.path}: {entry.what}{done}"))

    def _say(self, line: str) -> None:
        print(f"\r\x1b[K{line}" if self._lively else line, file=self._out, flush=True)

    @asynccontextmanager
    async def following(self, counts: Counts) -> AsyncIterator[None]:
        async def show() -> None:
            while True:
                await asyncio.sleep(EVERY_TTY if self._lively else EVERY_LOG)
                now = ", ".join(sorted(counts.current)[:2])
                if self._lively:
                    print(f"\r\x1b[K{counts.line()}  {now}"[:200], end="", file=self._out, flush=True)
                else:
                    self._say(f"so far: {counts.line()}  {now}")

        showing = asyncio.create_task(show())
        try:
            yield
        finally:
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing
            if self._lively:
                print("\r\x1b[K", end="", file=self._out, flush=True)
