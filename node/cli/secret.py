"""`seawall secret` and `seawall config`: one set of verbs for both kinds."""

import base64
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import click

from node.cli.inspect import show
from node.cli.options import pairs
from node.cli.output import FORMAT_HELP, Column, ago, print_list
from node.cli.session import Session, each, parse_filters, session

_COLUMNS = [Column("ID", "ID"), Column("Name", "NAME"), Column("CreatedAt", "CREATED"), Column("UpdatedAt", "UPDATED")]


def _ls(kind: str) -> click.Command:
    @click.command("ls", help=f"List {kind}s.")
    @click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only those that match.")
    @click.option("--format", "format_text", default="", help=FORMAT_HELP)
    @click.option("-q", "--quiet", is_flag=True, help="Ids only.")
    @session
    def ls(session: Session, filters: Sequence[str], format_text: str, quiet: bool) -> None:
        found = session.client.json("GET", f"/{kind}s", {"filters": parse_filters(filters)})
        rows = [
            {
                "ID": held["ID"],
                "Name": held["Spec"]["Name"],
                "CreatedAt": _ago(held["CreatedAt"]),
                "UpdatedAt": _ago(held["UpdatedAt"]),
                "_labels": held["Spec"]["Labels"] or {},
            }
            for held in found
        ]
        print_list(rows, _COLUMNS, format_text=format_text, quiet="ID" if quiet else "")

    return ls


def _create(kind: str) -> click.Command:
    @click.command("create", help=f"Create a {kind} from a file, or from standard input (-).")
    @click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Metadata.")
    @click.argument("name")
    @click.argument("file")
    @session
    def create(session: Session, name: str, file: str, labels: Sequence[str]) -> None:
        try:
            data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        except OSError as error:
            raise click.ClickException(f"error reading content from {file!r}: {error.strerror}") from error
        body = {"Name": name, "Labels": pairs(labels), "Data": base64.b64encode(data).decode()}
        click.echo(session.client.json("POST", f"/{kind}s/create", body=body)["ID"])

    return create


def _inspect(kind: str) -> click.Command:
    @click.command("inspect", help=f"Show everything known of {kind}s{'' if kind == 'config' else ', but their data'}.")
    @click.option("-f", "--format", "format_text", default="", help=FORMAT_HELP)
    @click.option("--pretty", is_flag=True, help="For people.")
    @click.argument("names", nargs=-1, required=True, metavar=f"{kind.upper()}...")
    @session
    def inspect(session: Session, names: Sequence[str], format_text: str, pretty: bool) -> int:
        if not pretty:
            return show(session, names, [kind], format_text)
        return each(names, lambda name: _pretty(session, kind, name), say=False)

    return inspect


def _pretty(session: Session, kind: str, name: str) -> None:
    held = session.client.json("GET", f"/{kind}s/{name}")
    lines = [f"ID:\t\t\t{held['ID']}", f"Name:\t\t\t{held['Spec']['Name']}", "Labels:"]
    lines += [f" - {key}={value}" for key, value in (held["Spec"]["Labels"] or {}).items()]
    lines += [f"Created at:            {held['CreatedAt']}", f"Updated at:            {held['UpdatedAt']}"]
    if held["Spec"].get("Data"):
        lines += ["Data:", base64.b64decode(held["Spec"]["Data"]).decode(errors="replace")]
    click.echo("\n".join(lines))


def _rm(kind: str) -> click.Command:
    @click.command("rm", help=f"Remove {kind}s.")
    @click.argument("names", nargs=-1, required=True, metavar=f"{kind.upper()}...")
    @session
    def rm(session: Session, names: Sequence[str]) -> int:
        return each(names, lambda name: session.client.status("DELETE", f"/{kind}s/{name}"))

    return rm


def _label(kind: str) -> click.Command:
    @click.command("label", help=f"Replace the labels of a {kind}: nothing else of it can change.")
    @click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="One of the new labels.")
    @click.argument("name")
    @session
    def label(session: Session, name: str, labels: Sequence[str]) -> None:
        held = session.client.json("GET", f"/{kind}s/{name}")
        body = {"Name": held["Spec"]["Name"], "Labels": pairs(labels)}
        session.client.json("POST", f"/{kind}s/{held['ID']}/update", {"version": held["Version"]["Index"]}, body)

    return label


def _ago(text: str) -> str:
    return ago(datetime.fromisoformat(text).timestamp())


def _verbs(make: Callable[[str], click.Command]) -> tuple[click.Command, click.Command]:
    return make("secret"), make("config")


secret_ls, config_ls = _verbs(_ls)
secret_create, config_create = _verbs(_create)
secret_inspect, config_inspect = _verbs(_inspect)
secret_rm, config_rm = _verbs(_rm)
secret_label, config_label = _verbs(_label)
