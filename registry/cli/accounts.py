"""`user`, `token`, `policy`: who may do what. They work on the database itself, so whoever has its files needs no
password, or with `--server` on a registry elsewhere; a running registry takes every change at once."""

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from ocispec.errors import InvalidArgument
from ocispec.reference import RepositoryName
from registry import app
from registry.auth import subjects
from registry.auth.actions import parse_words
from registry.auth.identity import Identity
from registry.auth.policies import parse_file
from registry.auth.principal import ANONYMOUS, Grant, Kind, Principal
from registry.auth.robots import Robot, grant
from registry.cli.elsewhere import administering, chosen
from registry.cli.root import Command, main
from registry.client import open_remote
from registry.settings import Settings

T = TypeVar("T")

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1), "y": timedelta(days=365)}
PAGE = 1000


def _run(config: Path | None, flags: dict[str, Any], work: Callable[[Any], Awaitable[T]]) -> T:
    """`work` is given the services: `Identity`, or a `RemoteIdentity` that has the same."""
    server = chosen(dict(flags))

    async def once() -> T:
        if server is not None:
            async with open_remote(server) as there:
                return await work(there.identity)
        settings = Settings.load(config, os.environ, **{name: flags[name] for name in ("data", "database")})
        async with app.open_registry(settings) as registry:
            return await work(registry.identity)

    return asyncio.run(once())


@main.group()
def user() -> None:
    """Users: add, list, remove, password, set."""


@main.group()
def token() -> None:
    """Robot tokens: create, list, revoke; admin, rotate-key."""


@main.group()
def policy() -> None:
    """Policies by repository pattern: set, list, remove, check, load."""


@user.command("add", cls=Command)
@administering
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--no-password", is_flag=True, help="This user logs in by other means.")
@click.option("--admin", is_flag=True, help="May do everything, and administer.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="May be given several times.")
def add_user(config: Path | None, name: str, groups: tuple[str, ...], *, password_stdin: bool, no_password: bool,
             admin: bool, **flags: Any) -> None:
    """Make a user."""
    subjects.name(name)
    password = None if no_password else _password(password_stdin)
    _run(config, flags, lambda on: on.accounts.add(name, password, admin=admin, groups=groups))
    click.echo(f"made user {name}")


@user.command("list", cls=Command)
@administering
def list_users(config: Path | None, **flags: Any) -> None:
    """Show the users."""

    async def work(on: Identity) -> None:
        after = ""
        while page := await on.accounts.list(PAGE, after):
            for item in page:
                told = ["admin"] * item.admin + ["disabled"] * (not item.enabled)
                told += ["no password"] * (not item.has_password)
                click.echo("\t".join([item.name, ",".join(sorted(item.groups)) or "-", ", ".join(told) or "-"]))
            after = page[-1].name

    _run(config, flags, work)


@user.command("remove", cls=Command)
@administering
@click.argument("name")
@click.option("--force", is_flag=True, help="Also the last administrator.")
def remove_user(config: Path | None, name: str, *, force: bool, **flags: Any) -> None:
    """Remove a user with all tokens."""
    _run(config, flags, lambda on: on.accounts.remove(name, force=force))
    click.echo(f"removed user {name}")


@user.command("password", cls=Command)
@administering
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
def set_password(config: Path | None, name: str, *, password_stdin: bool, **flags: Any) -> None:
    """Set a user's password; logs the user out everywhere."""
    _run(config, flags, lambda on: on.accounts.get(name))
    password = _password(password_stdin)
    _run(config, flags, lambda on: on.accounts.set_password(name, password))
    click.echo(f"set the password of {name}")


@user.command("set", cls=Command)
@administering
@click.argument("name")
@click.option("--admin/--no-admin", default=None, help="May administer.")
@click.option("--enable/--disable", "enabled", default=None, help="May log in at all.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Exactly these groups; may be given several "
                                                                       "times.")
@click.option("--no-groups", is_flag=True, help="No group at all.")
@click.option("--force", is_flag=True, help="Also the last administrator.")
def set_user(config: Path | None, name: str, groups: tuple[str, ...], *, admin: bool | None, enabled: bool | None,
             no_groups: bool, force: bool, **flags: Any) -> None:
    """Change a user's flags or groups."""
    if groups and no_groups:
        raise InvalidArgument("--group and --no-groups exclude each other")

    async def work(on: Identity) -> None:
        await on.accounts.get(name)
        await on.accounts.set_flags(name, admin=admin, enabled=enabled, force=force)
        if groups or no_groups:
            await on.accounts.set_groups(name, groups)

    _run(config, flags, work)
    click.echo(f"changed user {name}")


@token.command("create", cls=Command)
@administering
@click.argument("name")
@click.option("--owner", metavar="SUBJECT", help="user:NAME or group:NAME, whose rights bound the token's.")
@click.option("--repository", "patterns", multiple=True, metavar="PATTERN[=ACTION,…]",
              help="What it may: pull unless said otherwise; may be given several times.")
@click.option("--expires", metavar="TIME", help="Like 12h, 30d, 8w, 1y; default: never.")
def create_token(config: Path | None, name: str, owner: str | None, patterns: tuple[str, ...], expires: str | None,
                 **flags: Any) -> None:
    """Make a robot token and show it, this once."""
    scope = [_grant(item) for item in patterns] or None
    lifetime = None if expires is None else _lifetime(expires)
    made, text = _run(config, flags, lambda on: on.robots.create(name, owner=owner, scope=scope, lifetime=lifetime))
    until = f"until {made.expires:%Y-%m-%d %H:%M} UTC" if made.expires else "without an end"
    click.echo(f"token of robot {name}, {until}, shown only now:", err=True)
    click.echo(text)


@token.command("list", cls=Command)
@administering
def list_tokens(config: Path | None, **flags: Any) -> None:
    """Show the robots."""

    async def work(on: Identity) -> None:
        after = ""
        while page := await on.robots.list(PAGE, after):
            for item in page:
                click.echo(_row(item))
            after = page[-1].name

    _run(config, flags, work)


@token.command("revoke", cls=Command)
@administering
@click.argument("name")
def revoke_token(config: Path | None, name: str, **flags: Any) -> None:
    """Make a robot's token void."""
    _run(config, flags, lambda on: on.robots.revoke(name))
    click.echo(f"revoked {name}")


@token.command("admin", cls=Command)
@administering
def admin_token(config: Path | None, **flags: Any) -> None:
    """Make an administrator's token and show it, this once."""
    made, text = _run(config, flags, lambda on: on.robots.new_admin())
    click.echo(f"administrator's token {made.name!r}, shown only now:", err=True)
    click.echo(text)


@token.command("rotate-key", cls=Command)
@administering
@click.option("--revoke", is_flag=True, help="Bearer tokens that the old keys signed are void at once.")
def rotate_key(config: Path | None, *, revoke: bool, **flags: Any) -> None:
    """Sign bearer tokens with a new key."""
    click.echo(f"new key {_run(config, flags, lambda on: on.keyring.rotate(revoke=revoke))}")


@policy.command("set", cls=Command)
@administering
@click.argument("pattern")
@click.argument("subject")
@click.argument("actions")
def set_policy(config: Path | None, pattern: str, subject: str, actions: str, **flags: Any) -> None:
    """Say what SUBJECT may in repositories of PATTERN.

    ACTIONS: pull, create (push without moving a tag), push, delete, admin, with commas; none: nothing. SUBJECT:
    anonymous, authenticated, user:NAME, group:NAME, robot:NAME.
    """
    words = frozenset[str]() if actions == "none" else parse_words(actions.split(","))
    _run(config, flags, lambda on: on.policies.set(pattern, subject, words))
    click.echo(f"{pattern}\t{subject}\t{','.join(sorted(words)) or 'none'}")


@policy.command("list", cls=Command)
@administering
def list_policies(config: Path | None, **flags: Any) -> None:
    """Show the policies."""
    for rule in _run(config, flags, lambda on: on.policies.all()):
        click.echo(f"{rule.pattern}\t{rule.subject}\t{','.join(sorted(rule.words)) or 'none'}")


@policy.command("remove", cls=Command)
@administering
@click.argument("pattern")
@click.argument("subject", required=False)
def remove_policy(config: Path | None, pattern: str, subject: str | None, **flags: Any) -> None:
    """Remove a pattern's policies, or one subject's of them."""
    click.echo(f"removed {_run(config, flags, lambda on: on.policies.remove(pattern, subject))}")


@policy.command("load", cls=Command)
@administering
@click.argument("file", type=click.File(encoding="utf-8"))
def load_policies(config: Path | None, file: Any, **flags: Any) -> None:
    """Replace all policies by those of a TOML file."""
    rules = parse_file(file.read())
    _run(config, flags, lambda on: on.policies.replace(rules))
    click.echo(f"{len(rules)} policies")


@policy.command("check", cls=Command)
@administering
@click.argument("repository")
@click.argument("subject")
def check_policy(config: Path | None, repository: str, subject: str, **flags: Any) -> None:
    """Show what SUBJECT may in REPOSITORY, and by which pattern."""
    name = RepositoryName.parse(repository)

    async def work(on: Identity) -> None:
        verdict = await on.policies.check(await _principal(on, subjects.parse(subject)), name)
        click.echo(f"{','.join(sorted(verdict.allowed)) or 'nothing'}\tby {verdict.pattern or 'no pattern'}")

    _run(config, flags, work)


async def _principal(on: Identity, subject: str) -> Principal:
    """Somebody whom the policies could mean by `subject`."""
    kind, _, name = subject.partition(":")
    match kind:
        case "anonymous":
            return ANONYMOUS
        case "authenticated":
            return Principal("\0somebody")
        case "group":
            return Principal("\0somebody", groups=frozenset({name}))
        case "robot":
            robot = await on.robots.get(name)
            return await _acting(on, robot)
        case "user":
            found = await on.accounts.get(name)
            return Principal(name, groups=found.groups, admin=found.admin)
    return Principal(name, Kind(kind))


async def _acting(on: Identity, robot: Robot) -> Principal:
    kind, _, owner = (robot.owner or "").partition(":")
    made = Principal(robot.name, Kind.ROBOT, scope=robot.scope, admin=robot.admin)
    if kind == "group":
        return Principal(made.name, made.kind, frozenset({owner}), scope=made.scope)
    if kind == "user":
        found = await on.accounts.get(owner)
        return Principal(made.name, made.kind, found.groups, admin=found.admin, scope=made.scope, owner=owner)
    return made


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _grant(text: str) -> Grant:
    pattern, _, actions = text.partition("=")
    return grant(pattern, parse_words((actions or "pull").split(",")))


def _lifetime(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hdwy])", text)
    if match is None:
        raise InvalidArgument(f"not a time: {text[:50]!r} (want like 12h, 30d, 8w, 1y)")
    return int(match[1]) * _UNITS[match[2]]


def _row(item: Robot) -> str:
    scope: Sequence[Grant] = item.scope or ()
    may = " ".join(f"{part.name}={','.join(sorted(part.actions))}" for part in scope)
    over = item.expires is not None and item.expires <= datetime.now(UTC)
    until = "never" if item.expires is None else f"{item.expires:%Y-%m-%d}{' (expired)' if over else ''}"
    return "\t".join([item.name, item.owner or "-", "admin" if item.admin else may or "by policies", until])
