"""`seawall save`, `load`, `import` and `commit`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from node.cli.files import store
from node.cli.session import Session, session
from node.client import Produce, Query
from ocispec.reference import Reference

_CHUNK = 1024 * 1024
platform_option = click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of an image for several platforms.")
change_option = click.option("-c", "--change", "changes", metavar="INSTRUCTION", multiple=True,
                             help="Carry out a Dockerfile's instruction on the image; may be repeated.")  # fmt: skip
message_option = click.option("-m", "--message", metavar="TEXT", help="What the image's history says of this.")


@click.command()
@click.option("-o", "--output", metavar="FILE", help="Write to a file, instead of standard output.")
@platform_option
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@session
def save(session: Session, output: str | None, platform: str | None, images: Sequence[str]) -> None:
    """Write images as a tar archive."""
    query = {"names": tuple(images), "platform": _json(platform)}
    store(session, "/images/get", query, output)


@click.command()
@click.option("-i", "--input", "source", metavar="FILE", help="Read from a file, instead of standard input.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say how far it is.")
@platform_option
@session
def load(session: Session, source: str | None, quiet: bool, platform: str | None) -> None:
    """Take in images from a tar archive."""
    if source is None and sys.stdin.isatty():
        raise click.UsageError("requested load from stdin, but stdin is empty")
    query = {"quiet": quiet or not sys.stdout.isatty(), "platform": _json(platform)}
    _show(session, "/images/load", query, _reading(source or "-"), quiet=quiet)


@click.command(name="import")
@change_option
@message_option
@platform_option
@click.argument("source", metavar="FILE|URL|-")
@click.argument("name", required=False, metavar="[NAME[:TAG]]")
@session
def import_image(session: Session, changes: Sequence[str], message: str | None, platform: str | None, source: str,
                 name: str | None) -> None:  # fmt: skip
    """Make an image of a tar archive of a file system."""
    remote = source.startswith(("http://", "https://"))
    query = {"fromSrc": source if remote else "-", "message": message, "changes": tuple(changes) or None,
             "platform": platform, **_named(name)}  # fmt: skip
    _show(session, "/images/create", query, (lambda _write: None) if remote else _reading(source), quiet=False)


@click.command()
@click.option("-a", "--author", metavar="TEXT", help="Who made the image.")
@change_option
@message_option
@click.option("--pause", type=click.BOOL, is_flag=False, flag_value=True, default=True, show_default=True,
              help="Pause the container meanwhile.")  # fmt: skip
@click.argument("container")
@click.argument("name", required=False, metavar="[NAME[:TAG]]")
@session
def commit(session: Session, author: str | None, changes: Sequence[str], message: str | None, pause: bool,
           container: str, name: str | None) -> None:  # fmt: skip
    """Make an image of what a container changed."""
    query = {"container": container, "author": author, "comment": message, "pause": pause,
             "changes": tuple(changes) or None, **_named(name)}  # fmt: skip
    click.echo(session.client.json("POST", "/commit", query)["Id"])


def _named(name: str | None) -> dict[str, str]:
    if name is None:
        return {}
    reference = Reference.parse(name)
    if reference.digest is not None:
        raise click.UsageError("cannot use digest reference")
    return {"repo": reference.familiar_name, "tag": str(reference.with_default_tag().tag)}


def _json(platform: str | None) -> dict[str, str] | None:
    if platform is None:
        return None
    os_name, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    return {"os": os_name, "architecture": architecture, **({"variant": variant} if variant else {})}


def _reading(source: str) -> Produce:
    if source == "-":
        return lambda write: _copy(sys.stdin.buffer, write)
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - closed where it was read to its end
    except OSError as error:
        raise click.ClickException(f"cannot read {source}: {error.strerror}") from error

    def produce(write: Callable[[bytes], None]) -> None:
        with file:
            _copy(file, write)

    return produce


def _copy(file: BinaryIO, write: Callable[[bytes], None]) -> None:
    while data := file.read(_CHUNK):
        write(data)


def _show(session: Session, path: str, query: Query, produce: Produce, *, quiet: bool) -> None:
    from node.cli.progress import show  # rich is loaded only where something is drawn

    del quiet  # the daemon heeds it; what it still says is the result
    show(session.client.upload("POST", path, query, produce))
