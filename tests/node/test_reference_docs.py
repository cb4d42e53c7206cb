"""The tables of docs/engine-api.md and docs/cli.md say what the code does. SEAWALL_WRITE_DOCS=1 writes them."""

import os
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import click
import pytest

from node.api.routes import Groups, routes
from node.api.version import NEWEST, OLDEST
from node.cli.main import GROUPS, VERBS, load

DOCS = Path(__file__).resolve().parents[2] / "docs"


class Anything:
    def __getattr__(self, name: str) -> "Anything":
        return self


def operations() -> str:
    table = routes(Groups(*[Anything()] * len(fields(Groups))))  # type: ignore[arg-type]
    served = sum(route.handler is not None for route in table)
    lines = [
        f"API versions {OLDEST} to {NEWEST}; {served} of {len(table)} operations are served.", "",
        "| operation | request | |", "|---|---|---|",
    ]  # fmt: skip
    for route in table:
        path = route.path.replace("...", "")
        lines.append(f"| {route.operation} | `{route.method} {path}` | {'served' if route.handler else '501'} |")
    return "\n".join(lines)


def verbs() -> str:
    parts = []
    for name, verb in sorted(VERBS.items()):
        parts.append(describe(f"seawall {name}", load(verb.where)))
    for group, (_, members) in sorted(GROUPS.items()):
        for name, where in sorted(members.items()):
            if ":" in where and name not in ("list", "remove"):
                parts.append(describe(f"seawall {group} {name}", load(where)))
    return "\n\n".join(parts)


def describe(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = command.collect_usage_pieces(context)
    lines = [f"### {name}", "", (command.help or "").strip().splitlines()[0], "", f"`{name} {' '.join(usage)}`"]
    rows = [
        record for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
    ]  # fmt: skip
    if rows:
        lines += ["", "| option | |", "|---|---|"]
        lines += [f"| `{option.replace('|', chr(92) + '|')}` | {text.replace('|', chr(92) + '|')} |"
                  for option, text in rows]  # fmt: skip
    return "\n".join(lines)


def aliases() -> str:
    lines = ["| group | verbs |", "|---|---|"]
    for group, (_, members) in sorted(GROUPS.items()):
        texts = [name if name == where or ":" in where else f"{name} (= {where})" for name, where in members.items()]
        lines.append(f"| {group} | {', '.join(sorted(texts))} |")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("page", "table", "make"),
    [("engine-api.md", "operations", operations), ("cli.md", "verbs", verbs), ("cli.md", "groups", aliases)],
)
def test_tables_are_true(page: str, table: str, make: Callable[[], str]) -> None:
    path = DOCS / page
    text = path.read_text()
    pattern = re.compile(rf"(<!-- generated: {table} -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)
    match = pattern.search(text)
    assert match, f"{page} has no place for the table {table}"
    wanted = make()
    if os.environ.get("SEAWALL_WRITE_DOCS"):
        path.write_text(text[: match.start(2)] + wanted + text[match.end(2) :])
    else:
        assert match[2] == wanted, f"{page} is out of date: run SEAWALL_WRITE_DOCS=1 pytest {Path(__file__).name}"
