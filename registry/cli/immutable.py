"""`immutable`: tags that stay what they are."""

from pathlib import Path
from typing import Any

import click

from ocispec.pattern import Pattern
from ocispec.reference import RepositoryName, Tag
from registry.app import Registry
from registry.cli.elsewhere import administering
from registry.cli.retention import opened
from registry.cli.root import Command, main
from storage.metadata.rules import ALL, ImmutableRule, Kind


@main.group()
def immutable() -> None:
    """Forbid by pattern that tags are moved or deleted.

    In patterns `*` is anything but a slash, `**` anything, `?` one character.
    """


@immutable.command("set", cls=Command)
@click.argument("repositories")
@click.argument("tags", default=ALL)
@administering
def set_(config: Path | None, repositories: str, tags: str, **flags: Any) -> None:
    """Make tags immutable (without a tag pattern: all)."""
    rule = ImmutableRule(Pattern.parse(repositories), Pattern.parse(tags))

    async def work(registry: Registry) -> None:
        await registry.content.rules.put(rule)

    opened(config, flags, work)
    click.echo("set")


@immutable.command("list", cls=Command)
@administering
def list_(config: Path | None, **flags: Any) -> None:
    """Show the rules."""

    async def work(registry: Registry) -> None:
        for rule in (await registry.content.rules.current()).rules:
            if isinstance(rule, ImmutableRule):
                click.echo(f"{rule.repositories}:{rule.tags}")

    opened(config, flags, work)


@immutable.command(cls=Command)
@click.argument("repositories")
@click.argument("tags", default=ALL)
@administering
def remove(config: Path | None, repositories: str, tags: str, **flags: Any) -> None:
    """Drop a rule by its exact patterns."""

    async def work(registry: Registry) -> int:
        return await registry.content.rules.remove(Kind.IMMUTABLE, repositories, tags)

    if not opened(config, flags, work):
        raise click.ClickException(f"there is no such rule: {repositories}:{tags}")
    click.echo("removed")


@immutable.command(cls=Command)
@click.argument("references", nargs=-1, required=True, metavar="REPOSITORY:TAG...")
@administering
def check(config: Path | None, references: tuple[str, ...], **flags: Any) -> None:
    """Tell of each tag, there or not, whether it could be moved."""

    async def work(registry: Registry) -> None:
        book = await registry.content.rules.current()
        for reference in references:
            repository, _, tag = reference.rpartition(":")
            rule = book.immutable(RepositoryName.parse(repository), Tag.parse(tag))
            click.echo(f"{reference}  {f'immutable by {rule.repositories}:{rule.tags}' if rule else 'may be moved'}")

    opened(config, flags, work)
