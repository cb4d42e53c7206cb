"""`seawall system df` and `prune`."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from node.cli.images import image_rows
from node.cli.output import FORMAT_HELP, Column, human_size, print_list
from node.cli.ps import row as container_row
from node.cli.session import Session, parse_filters, session
from node.client import DaemonError

_COLUMNS = [Column("Type", "TYPE"), Column("TotalCount", "TOTAL"), Column("Active", "ACTIVE"), Column("Size", "SIZE"),
            Column("Reclaimable", "RECLAIMABLE")]  # fmt: skip
_IMAGES = [Column("Repository", "REPOSITORY"), Column("Tag", "TAG"), Column("ID", "IMAGE ID"),
           Column("CreatedSince", "CREATED"), Column("Size", "SIZE"), Column("SharedSize", "SHARED SIZE"),
           Column("UniqueSize", "UNIQUE SIZE"), Column("Containers", "CONTAINERS")]  # fmt: skip
_CONTAINERS = [Column("ID", "CONTAINER ID"), Column("Image", "IMAGE"), Column("Command", "COMMAND"),
               Column("LocalVolumes", "LOCAL VOLUMES"), Column("Size", "SIZE"), Column("RunningFor", "CREATED"),
               Column("Status", "STATUS"), Column("Names", "NAMES")]  # fmt: skip
_VOLUMES = [Column("Name", "VOLUME NAME"), Column("Links", "LINKS"), Column("Size", "SIZE")]

Json = Mapping[str, Any]


@click.command()
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@click.option("-v", "--verbose", is_flag=True, help="Each image, container and volume.")
@session
def df(session: Session, format_text: str, verbose: bool) -> None:
    """Show how much images, containers and volumes take."""
    usage = session.client.json("GET", "/system/df")
    if verbose and not format_text:
        _show_all(usage)
        return
    images, containers, volumes = usage["Images"], usage["Containers"], usage["Volumes"]
    kept = sum(image["Size"] - image["SharedSize"] for image in images if image["Containers"] > 0)
    running = [one for one in containers if one["State"] in ("running", "paused", "restarting")]
    mounted = [one for one in volumes if one["UsageData"]["RefCount"] > 0]
    written, held = _sum(containers, "SizeRw"), sum(one["UsageData"]["Size"] for one in volumes)
    used = [image for image in images if image["Containers"] > 0]
    rows = [
        _row("Images", images, used, usage["LayersSize"], usage["LayersSize"] - kept),
        _row("Containers", containers, running, written, written - _sum(running, "SizeRw")),
        _row("Local Volumes", volumes, mounted, held, held - sum(one["UsageData"]["Size"] for one in mounted)),
        _row("Build Cache", usage["BuildCache"], [], 0, 0),
    ]
    print_list(rows, _COLUMNS, format_text=format_text, quiet="")


def _sum(items: Sequence[Json], name: str) -> int:
    return sum(item[name] for item in items)


def _row(kind: str, items: Sequence[Json], active: Sequence[Json], size: int, free: int) -> dict[str, Any]:
    share = f" ({100 * free // size}%)" if size > 0 else ""
    return {"Type": kind, "TotalCount": len(items), "Active": len(active), "Size": human_size(size),
            "Reclaimable": f"{human_size(free)}{share}"}  # fmt: skip


def _show_all(usage: Json) -> None:
    click.echo("Images space usage:\n")
    print_list([
        row | {"SharedSize": human_size(image["SharedSize"]),
               "UniqueSize": human_size(image["Size"] - image["SharedSize"])}
        for image in usage["Images"] for row in image_rows(image, whole=False)
    ], _IMAGES, format_text="", quiet="")  # fmt: skip
    click.echo("\nContainers space usage:\n")
    print_list([
        container_row(one, whole=False) | {
            "Size": human_size(one["SizeRw"]),
            "LocalVolumes": sum(mount["Type"] == "volume" for mount in one["Mounts"]),
        } for one in usage["Containers"]
    ], _CONTAINERS, format_text="", quiet="")  # fmt: skip
    click.echo("\nLocal Volumes space usage:\n")
    print_list([
        {"Name": one["Name"], "Links": one["UsageData"]["RefCount"], "Size": human_size(one["UsageData"]["Size"])}
        for one in usage["Volumes"]
    ], _VOLUMES, format_text="", quiet="")  # fmt: skip
    click.echo("\nBuild cache usage: 0B\n")


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Every image that no container was made from.")
@click.option("--volumes", is_flag=True, help="Anonymous volumes too.")
@click.option("--filter", "filters", multiple=True, metavar="NAME=VALUE", help="until=TIME, label=KEY[=VALUE].")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@session
def prune(session: Session, everything: bool, volumes: bool, filters: Sequence[str], force: bool) -> int:
    """Remove what nothing uses."""
    wanted = parse_filters(filters) or {}
    if volumes and "until" in wanted:
        raise click.UsageError('The "until" filter is not supported with "--volumes"')
    if not force and not click.confirm(_warning(everything=everything, volumes=volumes), prompt_suffix=" "):
        return 0
    images = wanted | {"dangling": ["false"]} if everything else wanted
    steps = [("/containers/prune", wanted, "Containers"), ("/networks/prune", wanted, "Networks")]
    steps += [("/volumes/prune", wanted, "Volumes")] if volumes else []
    total, code = 0, 0
    for path, query, title in [*steps, ("/images/prune", images, "Images")]:
        try:
            answer = session.client.json("POST", path, {"filters": query or None})
        except DaemonError as error:
            if error.status != 501:
                raise
            click.echo(f"Skipped {title.lower()}: {error.message}", err=True)
            code = 1
            continue
        _show_gone(title, answer)
        total += answer.get("SpaceReclaimed", 0)
    click.echo(f"Total reclaimed space: {human_size(total)}")
    return code


def _show_gone(title: str, answer: Json) -> None:
    if title == "Images":
        lines = deleted_lines(answer)
    else:
        lines = answer.get(f"{title}Deleted") or []
    if lines:
        click.echo(f"Deleted {title}:\n" + "\n".join(lines) + "\n")


def deleted_lines(answer: Json) -> list[str]:
    """Of an image prune, as Docker prints them."""
    return [f"{kind.lower()}: {text}" for line in answer["ImagesDeleted"] or () for kind, text in line.items()]


def _warning(*, everything: bool, volumes: bool) -> str:
    lines = ["WARNING! This will remove:", "  - all stopped containers",
             "  - all networks not used by at least one container"]  # fmt: skip
    if volumes:
        lines.append("  - all anonymous volumes not used by at least one container")
    lines.append("  - all images without at least one container associated to them" if everything
                 else "  - all dangling images")  # fmt: skip
    return "\n".join(lines) + "\n\nAre you sure you want to continue?"


@click.command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Every image that no container was made from.")
@click.option("--filter", "filters", multiple=True, metavar="NAME=VALUE", help="until=TIME, label=KEY[=VALUE].")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@session
def prune_images(session: Session, everything: bool, filters: Sequence[str], force: bool) -> int:
    """Remove images that nothing uses."""
    what = "all images without at least one container associated to them" if everything else "all dangling images"
    question = f"WARNING! This will remove {what}.\nAre you sure you want to continue?"
    if not force and not click.confirm(question, prompt_suffix=" "):
        return 0
    wanted = parse_filters(filters) or {}
    if everything:
        wanted["dangling"] = ["false"]
    answer = session.client.json("POST", "/images/prune", {"filters": wanted or None})
    if lines := deleted_lines(answer):
        click.echo("Deleted Images:\n" + "\n".join(lines) + "\n")
    click.echo(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")
    return 0
