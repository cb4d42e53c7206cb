"""`seawall login` and `logout`."""

import sys

import click

from node.cli.registryauth import AuthStore
from node.cli.session import Session, session

_DEFAULT = "docker.io"


@click.command()
@click.option("-u", "--username", metavar="NAME", help="Asked for when missing.")
@click.option("-p", "--password", metavar="PASSWORD", help="Others can see it in the process list: prefer asking.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.argument("server", required=False, default=_DEFAULT)
@session
def login(session: Session, username: str | None, password: str | None, password_stdin: bool, server: str) -> None:
    """Log in to a registry."""
    if password is not None and password_stdin:
        raise click.UsageError("--password and --password-stdin are mutually exclusive")
    if password is not None:
        click.echo("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", err=True)
    if password_stdin:
        if not username:
            raise click.UsageError("Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    username = username or click.prompt("Username")
    password = password if password is not None else click.prompt("Password", hide_input=True)
    body = {"username": username, "password": password, "serveraddress": server}
    answer = session.client.json("POST", "/auth", body=body)
    where = AuthStore.of_user().put(server, username, password, answer.get("IdentityToken", ""))
    if not where.startswith("credential helper"):
        click.echo(f"WARNING! Your password is stored unencrypted in {where}.", err=True)
    click.echo(answer["Status"])


@click.command()
@click.argument("server", required=False, default=_DEFAULT)
def logout(server: str) -> None:
    """Log out from a registry."""
    if AuthStore.of_user().remove(server):
        click.echo(f"Removing login credentials for {server}")
    else:
        click.echo(f"Not logged in to {server}")
