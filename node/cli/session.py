"""What every verb needs: the daemon's client, made when it is first used."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from node.cli.contexts import DEFAULT, Contexts
from node.client import Client, DaemonError, parse_host
from node.hosts import Host, TlsFiles, tls_from_environment
from ocispec.errors import SeawallError

HOST_HELP = (
    "The node: a socket, unix://SOCKET, tcp://HOST:PORT or ssh://[USER@]HOST. [default: $SEAWALL_HOST, $DOCKER_HOST, "
    "the context, $SEAWALL_HOME/node.sock, ./.seawall/node.sock]"
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the flags say of where the node is."""

    host: str = ""
    context: str = ""
    tls: TlsFiles | None = None


class Session:
    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(self._host())
        return self._client

    @property
    def contexts(self) -> Contexts:
        return Contexts.of(os.environ)

    @property
    def context_name(self) -> str:
        """A host that is named wins over the current context, as in Docker."""
        environment = os.environ
        if self._chosen.context:
            return self._chosen.context
        if self._chosen.host or environment.get("SEAWALL_HOST") or environment.get("DOCKER_HOST"):
            return DEFAULT
        return environment.get("DOCKER_CONTEXT") or self.contexts.current

    @property
    def default_address(self) -> str:
        return parse_host(self._chosen.host or default_host(), self._tls()).address

    def _host(self) -> Host:
        name = self.context_name
        if name == DEFAULT:
            return parse_host(self._chosen.host or default_host(), self._tls())
        context = self.contexts.get(name)
        return parse_host(context.host, context.tls)

    def _tls(self) -> TlsFiles | None:
        return self._chosen.tls or tls_from_environment(os.environ)


session = click.make_pass_decorator(Session)


def default_host() -> str:
    environment = os.environ
    named = environment.get("SEAWALL_HOST") or environment.get("DOCKER_HOST")
    return named or str(Path(environment.get("SEAWALL_HOME", ".seawall")) / "node.sock")


def each(names: Iterable[str], act: Callable[[str], object], *, say: bool = True) -> int:
    """Do it to all of them, whatever becomes of one; 1 when one failed. The name is printed when it worked."""
    code = 0
    for name in names:
        try:
            act(name)
        except DaemonError as error:
            complain(error)
            code = 1
        else:
            if say:
                click.echo(name)
    return code


def complain(error: SeawallError) -> None:
    prefix = "Error response from daemon: " if isinstance(error, DaemonError) else "Error: "
    click.echo(prefix + error.message, err=True)


def parse_filters(values: Iterable[str]) -> dict[str, list[str]] | None:
    """`--filter name=value`, repeated, as the API wants them."""
    filters: dict[str, list[str]] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"bad format of filter {text!r} (expected name=value)", param_hint="--filter")
        filters.setdefault(name.strip().lower(), []).append(value.strip())
    return filters or None


class Command(click.Command):
    """`-h` is not help here (run's `-h` is the hostname, as in Docker); arguments after the first belong to the
    command that runs in the container."""

    def __init__(self, *args: object, **options: object) -> None:
        settings = {"help_option_names": ["--help"], "allow_interspersed_args": False}
        super().__init__(*args, **{"context_settings": settings, **options})  # type: ignore[arg-type]
