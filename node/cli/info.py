"""`seawall version` and `info`."""

from importlib import metadata
from typing import Any

import click

from node.cli.output import FORMAT_HELP, binary_size, print_one
from node.cli.session import Session, complain, session
from node.client import API_VERSION
from node.hosts import DaemonUnreachable

format_option = click.option("-f", "--format", "format_text", default="", help=FORMAT_HELP)


@click.command()
@format_option
@session
def version(session: Session, format_text: str) -> int:
    """Show the versions of client and node."""
    client = {"Version": metadata.version("seawall"), "ApiVersion": API_VERSION}
    try:
        server = session.client.json("GET", "/version")
    except DaemonUnreachable as error:
        if format_text:
            raise
        click.echo(f"Client: Seawall\n Version:      {client['Version']}\n API version:  {API_VERSION}\n")
        complain(error)
        return 1
    if format_text:
        print_one({"Client": client, "Server": server}, format_text)
        return 0
    click.echo(f"Client: Seawall\n Version:      {client['Version']}\n API version:  {API_VERSION}\n")
    click.echo(f"Server: {server['Platform']['Name']}")
    click.echo(f" Version:      {server['Version']}")
    click.echo(f" API version:  {server['ApiVersion']} (minimum version {server['MinAPIVersion']})")
    click.echo(f" Runs on:      {server['GoVersion']}")
    click.echo(f" OS/Arch:      {server['Os']}/{server['Arch']}, kernel {server['KernelVersion']}")
    return 0


@click.command()
@format_option
@session
def info(session: Session, format_text: str) -> None:
    """Show the node."""
    document = session.client.json("GET", "/info")
    if format_text:
        print_one(document, format_text)
        return
    for label, value in _lines(document):
        click.echo(f"{label}: {value}")
    for warning in document.get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)


def _lines(info: dict[str, Any]) -> list[tuple[str, Any]]:
    insecure = [*info["RegistryConfig"]["IndexConfigs"], *info["RegistryConfig"]["InsecureRegistryCIDRs"]]
    return [
        ("Containers", info["Containers"]),
        (" Running", info["ContainersRunning"]),
        (" Paused", info["ContainersPaused"]),
        (" Stopped", info["ContainersStopped"]),
        ("Images", info["Images"]),
        ("Server Version", info["ServerVersion"]),
        ("Storage Driver", info["Driver"]),
        ("Logging Driver", info["LoggingDriver"]),
        ("Cgroup Driver", info["CgroupDriver"]),
        ("Cgroup Version", info["CgroupVersion"]),
        ("Default Runtime", info["DefaultRuntime"]),
        ("Security Options", ", ".join(option.removeprefix("name=") for option in info["SecurityOptions"])),
        ("Kernel Version", info["KernelVersion"]),
        ("Operating System", info["OperatingSystem"]),
        ("OSType", info["OSType"]),
        ("Architecture", info["Architecture"]),
        ("CPUs", info["NCPU"]),
        ("Total Memory", binary_size(info["MemTotal"])),
        ("Name", info["Name"]),
        ("ID", info["ID"]),
        ("Root Dir", info["DockerRootDir"]),
        ("Insecure Registries", ", ".join(insecure)),
        ("Live Restore Enabled", "true" if info["LiveRestoreEnabled"] else "false"),
    ]
