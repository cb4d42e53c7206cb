"""`seawall pull` and `push`."""

from typing import Any

import click

from node.cli.images import platform_json
from node.cli.registryauth import AuthStore, registry_of
from node.cli.session import Session, session
from ocispec.reference import Reference

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print only the image's name at the end.")


@click.command()
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository that the registry has.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of an image for several platforms.")
@quiet_option
@click.argument("image", metavar="NAME[:TAG|@DIGEST]")
@session
def pull(session: Session, all_tags: bool, platform: str | None, quiet: bool, image: str) -> None:
    """Download an image from a registry."""
    reference = Reference.parse(image)
    if all_tags:
        if reference.tag or reference.digest:
            raise click.UsageError("tag can't be used with --all-tags/-a")
        fetch(session, image, platform=platform, quiet=quiet, all_tags=True)
        click.echo(str(reference))
        return
    if not reference.tag and not reference.digest and not quiet:
        click.echo("Using default tag: latest")
    fetch(session, image, platform=platform, quiet=quiet)
    click.echo(str(reference.with_default_tag()))


def fetch(
    session: Session, image: str, *, platform: str | None, quiet: bool, to_stderr: bool = False, all_tags: bool = False
) -> None:
    """Raises DaemonError, TransferFailed."""
    from node.cli.progress import show  # rich is loaded only where something is drawn

    reference = Reference.parse(image).with_default_tag()
    query: dict[str, Any] = {"fromImage": reference.familiar_name, "platform": platform}
    if not all_tags:
        query["tag"] = str(reference.digest or reference.tag)
    headers = AuthStore.of_user().header(reference.domain)
    show(session.client.lines("POST", "/images/create", query, headers), quiet=quiet, to_stderr=to_stderr)


@click.command()
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository that the node holds.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of an image for several platforms this alone.")
@quiet_option
@click.argument("image", metavar="NAME[:TAG]")
@session
def push(session: Session, all_tags: bool, platform: str | None, quiet: bool, image: str) -> None:
    """Upload an image to a registry."""
    from node.cli.progress import show  # rich is loaded only where something is drawn

    reference = Reference.parse(image)
    if all_tags and reference.tag:
        raise click.UsageError("tag can't be used with --all-tags/-a")
    if not all_tags and not reference.tag and not quiet:
        click.echo("Using default tag: latest")
    tag = None if all_tags else str(reference.with_default_tag().tag)
    headers = AuthStore.of_user().header(registry_of(image))
    path = f"/images/{reference.familiar_name}/push"
    show(session.client.lines("POST", path, {"tag": tag, "platform": platform_json(platform)}, headers), quiet=quiet)
    if quiet:
        click.echo(str(reference.with_default_tag()))
