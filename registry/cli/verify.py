"""`verify`: read everything that is stored and compare it with what it is called."""

import asyncio
import json
import os
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from registry import app
from registry.cli.root import Command, common, main
from registry.settings import Settings
from storage.scrub import Damage, Found, ScrubOptions, ScrubReport

DAMAGED = 3
UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3}
TIMES = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _rate(_ctx: click.Context, _option: click.Parameter, value: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12})([KMG]?)B?(?:/s)?", value, re.IGNORECASE)
    if not found:
        raise click.BadParameter(f"{value!r} is no rate (want bytes a second, for instance 50M)")
    return int(found[1]) * UNITS[found[2].upper()]


def _age(_ctx: click.Context, _option: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", value)
    if not found:
        raise click.BadParameter(f"{value!r} is no time (want for instance 12h or 7d)")
    return timedelta(**{TIMES[found[2]]: int(found[1])})


@main.command(cls=Command)
@common
@click.option("--rate", callback=_rate, default="0", metavar="BYTES", help="At most so much a second, e.g. 50M.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, metavar="N", help="Blobs at a time. Default: 2.")
@click.option("--since", callback=_age, metavar="TIME", help="Spare what was found whole within this time, e.g. 7d.")
@click.option("--restart", is_flag=True, help="Begin anew instead of continuing a pass that was interrupted.")
@click.option("--quarantine", is_flag=True, help="Serve damaged blobs no more until somebody pushes them again.")
@click.option("--report", "report_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write what is damaged, with the repositories and tags that it hits, as JSON.")
def verify(config: Path | None, report_file: Path | None, *, rate: int, jobs: int, since: timedelta | None,
           restart: bool, quarantine: bool, **flags: Any) -> None:
    """Compare stored bytes with their digests; a running registry goes on serving."""
    settings = Settings.load(config, os.environ, **flags)
    damages: list[Damage] = []

    def found(damage: Damage) -> None:
        damages.append(damage)
        click.echo(_line(damage))

    report = asyncio.run(_scrub(settings, ScrubOptions(rate, jobs, since, restart, quarantine), found))
    if report_file:
        report_file.write_text(json.dumps(_document(report, damages), indent=1) + "\n", encoding="utf-8")
    click.echo(f"{report.blobs} blobs ({report.bytes / 1e6:.1f} MB) and {report.manifests} manifests read; "
               f"{report.damaged} damaged")
    if report.damaged:
        sys.exit(DAMAGED)


async def _scrub(settings: Settings, options: ScrubOptions, found: Found) -> ScrubReport:
    async with app.open_registry(settings, migrate=False) as registry:
        return await registry.scrubber.run(options, found, _begun)


def _begun(report: ScrubReport) -> None:
    what = "continuing the pass of" if report.continued else "pass of"
    click.echo(f"{what} {report.started:%Y-%m-%d %H:%M}: {report.to_read} blobs, {report.to_read_bytes / 1e6:.1f} MB",
               err=True)


def _line(damage: Damage) -> str:
    hit = [f"{item.repository}{''.join(f' :{tag}' for tag in item.tags[:5])}" for item in damage.affected]
    kept = " (quarantined)" if damage.quarantined else ""
    where = f" [{damage.where}]" if damage.where else ""
    return (f"{damage.fault.value}  {damage.digest}{where}: {damage.what}{kept}; hits "
            f"{', '.join(dict.fromkeys(hit)) or 'no manifest'}")


def _document(report: ScrubReport, damages: list[Damage]) -> dict[str, Any]:
    return {
        "started": report.started.isoformat(), "continued": report.continued, "blobs": report.blobs,
        "bytes": report.bytes, "manifests": report.manifests, "gone": report.gone,
        "damaged": [{
            "fault": damage.fault.value, "digest": str(damage.digest), "what": damage.what, "size": damage.size,
            "key": damage.where, "quarantined": damage.quarantined,
            "repositories": [str(name) for name in damage.repositories],
            "manifests": [{"repository": str(item.repository), "digest": str(item.manifest),
                           "tags": [str(tag) for tag in item.tags]} for item in damage.affected],
        } for damage in damages],
    }
