"""`quota`: how many bytes a namespace may hold."""

from pathlib import Path
from typing import Any

import click

from registry.app import Registry
from registry.cli.amounts import shown, size
from registry.cli.elsewhere import administering
from registry.cli.retention import opened
from registry.cli.root import Command, main
from storage.metadata.rules import Kind, QuotaRule
from storage.rules.accounting import Usage
from storage.rules.book import RuleBook
from storage.rules.service import check as check_rule


@main.group()
def quota() -> None:
    """Limit the bytes of namespaces.

    A namespace is a repository and all below it; `*` is each first component that has no quota of its own, `**` the
    whole registry. A blob counts once for a namespace, a manifest for each repository.
    """


@quota.command("set", cls=Command)
@click.argument("namespace")
@click.argument("limit", type=size)
@click.option("--dry-run", is_flag=True, help="Set nothing; tell who would be refused.")
@administering
def set_(config: Path | None, namespace: str, limit: int, *, dry_run: bool, **flags: Any) -> None:
    """Set a limit. What is held already stays, also above it."""
    rule = QuotaRule(namespace, limit)
    check_rule(rule)

    async def work(registry: Registry) -> None:
        if dry_run:
            known = (await registry.content.rules.current()).rules
            others = [one for one in known if not (isinstance(one, QuotaRule) and one.namespace == namespace)]
            _show(await registry.housekeeping.accounting.usage(RuleBook([*others, rule]), count=True))
            return
        await registry.content.rules.put(rule)
        await registry.housekeeping.accounting.repair()
        click.echo("set")

    opened(config, flags, work)


@quota.command("list", cls=Command)
@administering
def list_(config: Path | None, **flags: Any) -> None:
    """Show the limits (`check` also counts what is used of them)."""

    async def work(registry: Registry) -> None:
        for rule in (await registry.content.rules.current()).rules:
            if isinstance(rule, QuotaRule):
                click.echo(f"{rule.namespace}  {rule.limit}")

    opened(config, flags, work)


@quota.command(cls=Command)
@click.argument("namespace")
@administering
def remove(config: Path | None, namespace: str, **flags: Any) -> None:
    """Drop a limit."""

    async def work(registry: Registry) -> int:
        return await registry.content.rules.remove(Kind.QUOTA, namespace)

    if not opened(config, flags, work):
        raise click.ClickException(f"there is no such quota: {namespace}")
    click.echo("removed")


@quota.command(cls=Command)
@administering
def check(config: Path | None, **flags: Any) -> None:
    """Count what each namespace holds, and tell who is refused."""

    async def work(registry: Registry) -> None:
        _show(await registry.housekeeping.accounting.usage(count=True))

    opened(config, flags, work)


def _show(found: Any) -> None:
    item: Usage
    for item in found:
        holds = item.used if item.actual is None else item.actual
        verdict = "refused" if item.full else f"{shown(item.quota.limit - holds)} left"
        off = f", charged {item.used}" if holds != item.used else ""
        click.echo(f"{item.quota.namespace or '**'}  {shown(holds)} of {shown(item.quota.limit)}{off}: {verdict}")
