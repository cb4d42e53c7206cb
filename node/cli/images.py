"""Images held by the node: images, rmi, tag, history."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from node.cli.output import FORMAT_HELP, Column, ago, human_size, local_time, print_list, short_id, shorten
from node.cli.session import Session, each, parse_filters, session
from ocispec.descriptor import Platform

_COLUMNS = [Column("Repository", "REPOSITORY"), Column("Tag", "TAG"), Column("ID", "IMAGE ID"),
            Column("CreatedSince", "CREATED"), Column("Size", "SIZE")]  # fmt: skip
_NONE = "<none>"


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Accepted for Docker's sake: there are no hidden ones.")
@click.option("--digests", is_flag=True, help="Show digests.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only those that match.")
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.argument("repository", required=False, metavar="[REPOSITORY[:TAG]]")
@session
def images(
    session: Session,
    everything: bool,
    digests: bool,
    filters: Sequence[str],
    format_text: str,
    no_trunc: bool,
    quiet: bool,
    repository: str | None,
) -> None:
    """List images."""
    values = parse_filters(filters) or {}
    if repository:
        values.setdefault("reference", []).append(repository)
    found = session.client.json("GET", "/images/json", {"all": everything, "filters": values or None})
    rows = [row for image in found for row in image_rows(image, whole=no_trunc)]
    if quiet:
        rows = list({row["ID"]: row for row in rows}.values())
    columns = [*_COLUMNS[:2], Column("Digest", "DIGEST"), *_COLUMNS[2:]] if digests else _COLUMNS
    print_list(rows, columns, format_text=format_text, quiet="ID" if quiet else "")


def image_rows(image: Mapping[str, Any], *, whole: bool) -> Iterator[dict[str, Any]]:
    """One a tag; an image known by digest only has one without."""
    digests = {name.partition("@")[0]: name.partition("@")[2] for name in image.get("RepoDigests") or ()}
    tags = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
    names = [tag.rpartition(":")[::2] for tag in tags] or [(name, _NONE) for name in digests] or [(_NONE, _NONE)]
    for repository, tag in names:
        yield {
            "Repository": repository,
            "Tag": tag,
            "Digest": digests.get(repository, _NONE),
            "ID": short_id(image["Id"], whole=whole),
            "CreatedSince": ago(image["Created"]),
            "CreatedAt": local_time(image["Created"]),
            "Size": human_size(image["Size"]),
            "Containers": image.get("Containers", -1),
            "_labels": image.get("Labels") or {},
        }


@click.command()
@click.option("-f", "--force", is_flag=True, help="Even when stopped containers use it, or it has several names.")
@click.option("--no-prune", is_flag=True, help="Keep layers that nothing uses any more.")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH[/VARIANT]", help="These of its platforms.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@session
def rmi(session: Session, images: Sequence[str], force: bool, no_prune: bool, platforms: Sequence[str]) -> int:
    """Remove images."""
    query: dict[str, Any] = {"force": force, "noprune": no_prune}
    if platforms:
        query["platforms"] = tuple(platform_json(text) for text in platforms)

    def remove(name: str) -> None:
        for line in session.client.json("DELETE", f"/images/{name}", query) or ():
            for kind, text in line.items():
                click.echo(f"{kind}: {text}")

    return each(images, remove, say=False)


@click.command()
@click.argument("source", metavar="SOURCE[:TAG]")
@click.argument("target", metavar="TARGET[:TAG]")
@session
def tag(session: Session, source: str, target: str) -> None:
    """Give an image another name."""
    name, colon, text = target.rpartition(":")
    if not colon or "/" in text:
        name, text = target, ""
    session.client.status("POST", f"/images/{source}/tag", {"repo": name, "tag": text or None})


@click.command()
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@click.option("-H", "--human/--no-human", default=True, help="Sizes and times for people, or bytes and dates.")
@click.option("--no-trunc", is_flag=True, help="Whole commands.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of an image for several platforms.")
@click.argument("image")
@session
def history(
    session: Session, image: str, format_text: str, human: bool, no_trunc: bool, quiet: bool, platform: str | None
) -> None:
    """Show the history of an image."""
    rows = [
        {
            "ID": entry["Id"] if entry["Id"] == "<missing>" else short_id(entry["Id"], whole=no_trunc),
            "CreatedSince": ago(entry["Created"]) if human else local_time(entry["Created"]),
            "CreatedAt": local_time(entry["Created"]),
            "CreatedBy": entry["CreatedBy"] if no_trunc else shorten(entry["CreatedBy"].replace("\t", " "), 45),
            "Size": human_size(entry["Size"]) if human else str(entry["Size"]),
            "Comment": entry["Comment"],
        }
        for entry in session.client.json("GET", f"/images/{image}/history", {"platform": platform_json(platform)})
    ]
    columns = [Column("ID", "IMAGE"), Column("CreatedSince", "CREATED"), Column("CreatedBy", "CREATED BY"),
               Column("Size", "SIZE"), Column("Comment", "COMMENT")]  # fmt: skip
    print_list(rows, columns, format_text=format_text, quiet="ID" if quiet else "")


def platform_json(text: str | None) -> str | None:
    """As the API takes it since 1.48."""
    if not text:
        return None
    platform = Platform.parse(text)
    document = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    return json.dumps({key: value for key, value in document.items() if value})
