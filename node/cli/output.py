"""Tables, JSON and templates on the terminal; the words for sizes and times."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from node.cli.template import Template, show

SHORT_ID = 12


@dataclass(frozen=True, slots=True)
class Column:
    """`field` is the name in templates and in JSON."""

    field: str
    title: str


def print_list(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, format_text: str, quiet: str) -> None:
    """`quiet`: the only field to print, or "". Rows may hold more fields than there are columns."""
    if quiet:
        for row in rows:
            click.echo(row[quiet])
    elif format_text == "json":
        for row in rows:
            click.echo(_document(row))
    elif format_text in ("", "table"):
        _print_table([column.title for column in columns], [[row[c.field] for c in columns] for row in rows])
    elif format_text.startswith("table"):
        template = Template(format_text.removeprefix("table").lstrip())
        separated = [template.render(row).split("\t") for row in rows]
        _print_table(template.headers(), separated)
    else:
        template = Template(format_text)
        for row in rows:
            click.echo(template.render(row))


def print_one(document: Any, format_text: str) -> None:
    """json, a template, or (by default) indented JSON."""
    if format_text in ("", "json"):
        click.echo(json.dumps(document, indent=4 if not format_text else None, ensure_ascii=False))
    else:
        click.echo(Template(format_text).render(document))


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    lines = [list(titles), *([show(cell) if cell is not None else "" for cell in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines if at < len(line)) for at in range(len(titles))]
    for line in lines:
        cells = [cell.ljust(widths[at]) if at < len(widths) else cell for at, cell in enumerate(line)]
        click.echo("   ".join(cells).rstrip())


def _document(row: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in row.items() if not key.startswith("_")}, ensure_ascii=False)


def short_id(full: str, *, whole: bool = False) -> str:
    return full if whole else full.removeprefix("sha256:")[:SHORT_ID]


def human_size(size: float) -> str:
    """Decimal, three digits: 1.23MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.3g}PB"


def binary_size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.4g}{unit}"
        size /= 1024
    return f"{size:.4g}PiB"


def ago(seconds: float) -> str:
    """How long ago that moment (seconds since the epoch) was."""
    if seconds <= 0:
        return "N/A"
    return f"{span(time.time() - seconds)} ago"


def span(seconds: float) -> str:
    whole, hours = int(seconds), int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if whole < 3600:
        return "About a minute" if whole < 120 else f"{whole // 60} minutes"
    if hours < 48:
        return "About an hour" if hours <= 1 else f"{hours} hours"
    for limit, length, unit in ((336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // length} {unit}"
    return f"{hours // 8760} years"


def local_time(seconds: float) -> str:
    """2026-11-24 09:30:00 +0100 CET"""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z")


def shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


FORMAT_HELP = "table, json, or a Go template: '{{.ID}}', 'table {{.ID}}\\t{{.Names}}'."
