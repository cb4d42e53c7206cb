"""The lines of a pull or push drawn: bars that move on a terminal, one line a change of status elsewhere."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from ocispec.errors import SeawallError


class TransferFailed(SeawallError):
    """The daemon's last line said why."""


def show(lines: Iterable[Mapping[str, Any]], *, quiet: bool = False, to_stderr: bool = False) -> None:
    """Draw until the stream ends. Raises TransferFailed."""
    stream = sys.stderr if to_stderr else sys.stdout
    if quiet:
        for line in lines:
            _check(line)
    elif stream.isatty():
        _draw(lines, Console(file=stream))
    else:
        _print(lines, to_stderr=to_stderr)


def _print(lines: Iterable[Mapping[str, Any]], *, to_stderr: bool) -> None:
    seen: dict[str, str] = {}
    for line in lines:
        _check(line)
        if "stream" in line:
            click.echo(line["stream"], nl=False, err=to_stderr)
        item, status = line.get("id", ""), line.get("status", "")
        if not status or ("progressDetail" in line and seen.get(item) == status):
            continue
        seen[item] = status
        click.echo(f"{item}: {status}" if item else status, err=to_stderr)


def _draw(lines: Iterable[Mapping[str, Any]], console: Console) -> None:
    columns = (
        TextColumn("{task.fields[item]}:", style="cyan", markup=False),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=10) as progress:
        tasks: dict[str, TaskID] = {}
        for line in lines:
            _check(line)
            item, status = line.get("id", ""), line.get("status", "")
            if "stream" in line:
                progress.console.print(line["stream"], end="", markup=False, highlight=False)
            if "progressDetail" not in line or not item:
                if status:
                    progress.console.print(f"{item}: {status}" if item else status, markup=False, highlight=False)
                continue
            if item not in tasks:
                tasks[item] = progress.add_task(status, item=item, total=None, start=False)
            _update(progress, tasks[item], status, line["progressDetail"] or {})


def _update(progress: Progress, task: TaskID, status: str, detail: Mapping[str, Any]) -> None:
    total = detail.get("total")
    if total:
        progress.start_task(task)
        progress.update(task, description=status, completed=detail.get("current", 0), total=total)
    elif status in ("Pull complete", "Already exists", "Pushed", "Layer already exists", "Download complete"):
        held = progress.tasks[progress.task_ids.index(task)].total or 1
        progress.update(task, description=status, completed=held, total=held)
    else:
        progress.update(task, description=status)


def _check(line: Mapping[str, Any]) -> None:
    if "error" in line or "errorDetail" in line:
        detail = line.get("errorDetail")
        message = detail.get("message") if isinstance(detail, dict) else None
        raise TransferFailed(str(message or line.get("error")))
