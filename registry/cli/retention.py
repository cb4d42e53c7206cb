"""`retention`: which tags stay, and how long manifests without a tag do."""

import asyncio
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from ocispec.pattern import Pattern
from registry import app
from registry.app import Registry
from registry.cli.amounts import duration
from registry.cli.elsewhere import administering, chosen
from registry.cli.root import Command, main
from registry.client import open_remote
from registry.settings import Settings
from storage.metadata.rules import ALL, Kind, RetentionRule, Rule, UntaggedRule
from storage.rules.book import RuleBook
from storage.rules.retention import span


def opened(config: Path | None, flags: dict[str, Any], work: Callable[[Any], Any]) -> Any:
    """What `work` gives on the registry's database, beside a running registry, or on one elsewhere (`--server`), which
    has the same services."""
    server = chosen(flags)

    async def once() -> Any:
        if server is not None:
            async with open_remote(server) as there:
                return await work(there)
        async with app.open_registry(Settings.load(config, os.environ, **flags), migrate=False) as registry:
            return await work(registry)

    return asyncio.run(once())


@main.group()
def retention() -> None:
    """Decide by pattern which tags stay; the most precise repository pattern decides.

    In patterns `*` is anything but a slash, `**` anything, `?` one character.
    """


@retention.command("set", cls=Command)
@click.argument("repositories")
@click.option("--tags", default=ALL, metavar="PATTERN", help="Tags this clause is about. Default: all.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Keep the last N pushed.")
@click.option("--pushed-within", type=duration, metavar="SPAN", help="Keep what was pushed within 30d, 12h, …")
@click.option("--pulled-within", type=duration, metavar="SPAN", help="Keep what was pulled (or first pushed) within.")
@click.option("--yes", is_flag=True, help="Also if tags would go by it.")
@click.option("--dry-run", is_flag=True, help="Set nothing; tell which tags would go.")
@administering
def set_(config: Path | None, repositories: str, tags: str, last: int | None, pushed_within: timedelta | None,
         pulled_within: timedelta | None, *, yes: bool, dry_run: bool, **flags: Any) -> None:
    """Keep the tags that meet a condition (without any: all that match); every tag that no clause for these
    repositories keeps goes."""
    rule = RetentionRule(Pattern.parse(repositories), Pattern.parse(tags), last, pushed_within, pulled_within)

    async def work(registry: Registry) -> None:
        book = _with(await registry.content.rules.current(), rule)
        if dry_run:
            await _explain(registry, book, Pattern.parse(ALL), everything=False)
            return
        await _refuse_surprise(registry, book, yes=yes)
        await registry.content.rules.put(rule)

    opened(config, flags, work)
    if not dry_run:
        click.echo("set")


@retention.command(cls=Command)
@click.argument("repositories")
@click.argument("keep", metavar="keep|SPAN")
@administering
def untagged(config: Path | None, repositories: str, keep: str, **flags: Any) -> None:
    """Keep manifests that nothing names until they are deleted, or for a time."""
    span_ = None if keep == "keep" else duration(keep)
    rule = UntaggedRule(Pattern.parse(repositories), span_)

    async def work(registry: Registry) -> None:
        await registry.content.rules.put(rule)

    opened(config, flags, work)
    click.echo("set")


@retention.command("list", cls=Command)
@administering
def list_(config: Path | None, **flags: Any) -> None:
    """Show the rules."""

    async def work(registry: Registry) -> None:
        for rule in (await registry.content.rules.current()).rules:
            if isinstance(rule, RetentionRule):
                click.echo(f"tags      {rule.repositories}:{rule.tags}  {_conditions(rule)}")
            elif isinstance(rule, UntaggedRule):
                click.echo(f"untagged  {rule.repositories}  {span(rule.keep) if rule.keep else 'keep'}")

    opened(config, flags, work)


@retention.command(cls=Command)
@click.argument("repositories")
@click.option("--tags", metavar="PATTERN", help="Only the clause about these. Default: all clauses.")
@click.option("--untagged", "about_untagged", is_flag=True, help="The rule about untagged manifests instead.")
@click.option("--yes", is_flag=True, help="Also if tags would go without it.")
@administering
def remove(config: Path | None, repositories: str, tags: str | None, *, about_untagged: bool, yes: bool,
           **flags: Any) -> None:
    """Drop rules by their exact pattern."""
    kind = Kind.UNTAGGED if about_untagged else Kind.RETENTION

    async def work(registry: Registry) -> int:
        if kind is Kind.RETENTION:
            known = (await registry.content.rules.current()).rules
            left = [rule for rule in known if not (
                isinstance(rule, RetentionRule) and rule.repositories.text == repositories
                and tags in (None, rule.tags.text))]
            await _refuse_surprise(registry, RuleBook(left), yes=yes)
        return await registry.content.rules.remove(kind, repositories, tags)

    if not opened(config, flags, work):
        raise click.ClickException(f"there is no such rule: {repositories}")
    click.echo("removed")


@retention.command(cls=Command)
@click.option("--repositories", default=ALL, metavar="PATTERN", help="Only these. Default: all that a rule is for.")
@click.option("--all", "everything", is_flag=True, help="Also the tags that stay.")
@administering
def check(config: Path | None, repositories: str, *, everything: bool, **flags: Any) -> None:
    """Tell of each tag whether it would go, and why. Changes nothing."""
    pattern = Pattern.parse(repositories)

    async def work(registry: Registry) -> None:
        await _explain(registry, None, pattern, everything=everything)

    opened(config, flags, work)


async def _explain(registry: Registry, book: RuleBook | None, repositories: Pattern, *, everything: bool) -> None:
    kept = gone = 0
    async for name, verdicts in registry.housekeeping.retention.explain(book):
        for verdict in verdicts if repositories.matches(name.value) else ():
            kept, gone = kept + verdict.lives, gone + (not verdict.lives)
            if everything or not verdict.lives:
                click.echo(f"{'keep  ' if verdict.lives else 'remove'} {name}:{verdict.tag.name}  {verdict.why}")
    click.echo(f"{gone} would go, {kept} stay")


async def _refuse_surprise(registry: Registry, book: RuleBook, *, yes: bool) -> None:
    """Raises ClickException when tags would go by these rules that stay by those of now."""
    more = len(await _going(registry, book) - await _going(registry, None))
    if more and not yes:
        raise click.ClickException(f"{more} tags would go that stay now (see them with `retention set --dry-run`); "
                                   "--yes does it")


async def _going(registry: Registry, book: RuleBook | None) -> set[tuple[str, str]]:
    return {(name.value, verdict.tag.name)
            async for name, verdicts in registry.housekeeping.retention.explain(book)
            for verdict in verdicts if not verdict.lives}


def _with(book: RuleBook, added: RetentionRule) -> RuleBook:
    def same(rule: Rule) -> bool:
        return (isinstance(rule, RetentionRule) and rule.repositories == added.repositories
                and rule.tags == added.tags)

    return RuleBook([*(rule for rule in book.rules if not same(rule)), added])


def _conditions(rule: RetentionRule) -> str:
    if rule.unconditional:
        return "keep"
    found = [f"last {rule.last}"] if rule.last else []
    found += [f"{word} within {span(age)}" for word, age in (
        ("pushed", rule.pushed_within), ("pulled", rule.pulled_within)) if age]
    return " or ".join(found)
