"""The command, its verbs in one table, and how errors end it."""

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from node.cli.session import HOST_HELP, Chosen, Session
from node.hosts import TlsFiles
from ocispec.errors import SeawallError


@dataclass(frozen=True, slots=True)
class Verb:
    """`where` is module:attribute in this package; `help` repeats the command's own first line (a test compares)."""

    where: str
    help: str


VERBS = {
    "attach": Verb("attach:attach", "Attach to a running container"),
    "build": Verb("build:build", "Build an image of a Dockerfile"),
    "commit": Verb("imagefiles:commit", "Make an image of what a container changed"),
    "completion": Verb("completion:completion", "Print the shell's completion script"),
    "cp": Verb("cp:cp", "Copy files between a container and this machine"),
    "create": Verb("run:create", "Create a container without starting it"),
    "diff": Verb("files:diff", "Show what a container changed in its file system"),
    "events": Verb("events:events", "Show what happens on the node"),
    "exec": Verb("exec:execute", "Run a command in a running container"),
    "export": Verb("files:export", "Write a container's file system as a tar archive"),
    "history": Verb("images:history", "Show the history of an image"),
    "images": Verb("images:images", "List images"),
    "import": Verb("imagefiles:import_image", "Make an image of a tar archive of a file system"),
    "info": Verb("info:info", "Show the node"),
    "inspect": Verb("inspect:inspect", "Show everything known of containers, images, networks or volumes"),
    "kill": Verb("lifecycle:kill", "Kill running containers"),
    "load": Verb("imagefiles:load", "Take in images from a tar archive"),
    "login": Verb("login:login", "Log in to a registry"),
    "logout": Verb("login:logout", "Log out from a registry"),
    "logs": Verb("logs:logs", "Show the output of a container"),
    "pause": Verb("lifecycle:pause", "Pause all processes of containers"),
    "port": Verb("port:port", "List the published ports of a container"),
    "ps": Verb("ps:ps", "List containers"),
    "pull": Verb("transfer:pull", "Download an image from a registry"),
    "push": Verb("transfer:push", "Upload an image to a registry"),
    "rename": Verb("lifecycle:rename", "Rename a container"),
    "restart": Verb("lifecycle:restart", "Restart containers"),
    "rm": Verb("lifecycle:rm", "Remove containers"),
    "rmi": Verb("images:rmi", "Remove images"),
    "run": Verb("run:run", "Create and run a container from an image"),
    "save": Verb("imagefiles:save", "Write images as a tar archive"),
    "search": Verb("search:search", "Search a registry for images"),
    "start": Verb("attach:start", "Start stopped containers"),
    "stats": Verb("stats:stats", "Show what containers use"),
    "stop": Verb("lifecycle:stop", "Stop running containers"),
    "tag": Verb("images:tag", "Give an image another name"),
    "top": Verb("top:top", "Show the processes of a container"),
    "unpause": Verb("lifecycle:unpause", "Let paused containers go on"),
    "update": Verb("update:update", "Change limits and restart policy of containers, also while they run"),
    "version": Verb("info:version", "Show the versions of client and node"),
    "wait": Verb("lifecycle:wait", "Wait until containers stop, then print their exit codes"),
}

GROUPS = {
    "container": (
        "Manage containers",
        {"ls": "ps", "list": "ps", "prune": "prune:containers"}
        | {name: name for name in (
            "attach", "commit", "cp", "create", "diff", "exec", "export",
            "inspect", "kill", "logs", "pause", "port", "rename", "restart", "rm", "run",
            "start", "stats", "stop", "top", "unpause", "update", "wait",
        )},
    ),
    "image": (
        "Manage images",
        {"ls": "images", "list": "images", "rm": "rmi"}
        | {name: name for name in ("build", "history", "import", "inspect", "load", "pull", "push", "save", "tag")}
        | {"prune": "system:prune_images"},
    ),
    "network": ("Manage networks", {
        "ls": "network:ls", "list": "network:ls", "inspect": "network:inspect", "create": "network:create",
        "rm": "network:rm", "remove": "network:rm", "prune": "network:prune", "connect": "network:connect",
        "disconnect": "network:disconnect",
    }),
    "volume": (
        "Manage volumes",
        {
            "create": "volume:create", "inspect": "volume:inspect", "ls": "volume:ls", "list": "volume:ls",
            "rm": "volume:rm", "remove": "volume:rm", "prune": "volume:prune",
        },
    ),
    "secret": (
        "Manage secrets",
        {name: f"secret:secret_{name}" for name in ("create", "inspect", "label", "ls", "rm")}
        | {"list": "secret:secret_ls", "remove": "secret:secret_rm"},
    ),
    "config": (
        "Manage configs",
        {name: f"secret:config_{name}" for name in ("create", "inspect", "label", "ls", "rm")}
        | {"list": "secret:config_ls", "remove": "secret:config_rm"},
    ),
    "context": (
        "Manage contexts",
        {name: f"context:{name}" for name in ("create", "inspect", "ls", "rm", "show", "update", "use")}
        | {"list": "context:ls"},
    ),
    "system": (
        "Manage the node",
        {"dial-stdio": "dialstdio:dial_stdio", "df": "system:df", "events": "events", "info": "info",
         "prune": "system:prune"},
    ),
}  # fmt: skip
"""Group to its verbs: each either one of VERBS or module:attribute."""


class Lazy(click.Group):
    """A group whose commands are imported when they are used; the list of them needs no import."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted([*VERBS, *GROUPS])

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in GROUPS:
            text, verbs = GROUPS[cmd_name]
            return Subgroup(verbs, name=cmd_name, help=f"{text}.", no_args_is_help=True)
        return load(VERBS[cmd_name].where) if cmd_name in VERBS else None

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in sorted(VERBS.items())])
        with formatter.section("Groups"):
            formatter.write_dl([(name, text) for name, (text, _) in sorted(GROUPS.items())])


class Subgroup(click.Group):
    def __init__(self, verbs: dict[str, str], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._verbs = verbs

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(self._verbs)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = self._verbs.get(cmd_name)
        if where is None:
            return None
        return load(where if ":" in where else VERBS[where].where)


def load(where: str) -> click.Command:
    module, _, attribute = where.partition(":")
    command: click.Command = getattr(importlib.import_module(f"node.cli.{module}"), attribute)
    return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-H", "--host", metavar="HOST", default="", help=HOST_HELP)
@click.option("-c", "--context", "context_name", metavar="NAME", default="", help="Context that names the node.")
@click.option("--tls", is_flag=True, help="Accepted for Docker's sake: tcp:// is always TLS, verified.")
@click.option("--tlsverify", is_flag=True, help="Accepted for Docker's sake: tcp:// is always TLS, verified.")
@click.option("--tlscacert", metavar="FILE", help="Authority of the node's certificate. [default: ~/.docker/ca.pem]")
@click.option("--tlscert", metavar="FILE", help="Certificate to show. [default: ~/.docker/cert.pem]")
@click.option("--tlskey", metavar="FILE", help="Its key. [default: ~/.docker/key.pem]")
@click.version_option(None, "-v", "--version", package_name="seawall", message="Seawall version %(version)s")
@click.pass_context
def cli(context: click.Context, /, host: str, context_name: str, **tls: str | bool | None) -> None:
    """Run containers on this node: Docker's verbs and flags."""
    if host and context_name:
        raise click.UsageError("conflicting options: cannot specify both --host and --context")
    context.obj = Session(Chosen(host, context_name, _tls(tls)))


def _tls(flags: Mapping[str, str | bool | None]) -> TlsFiles | None:
    """None: nothing is said of it."""
    if not any(flags.values()):
        return None
    home = Path(os.environ.get("DOCKER_CONFIG") or Path(os.environ.get("HOME", "/root")) / ".docker")
    usual = TlsFiles.of_folder(home)
    named = [Path(str(flags[name])) if flags[name] else None for name in ("tlscacert", "tlscert", "tlskey")]
    return TlsFiles(named[0] or usual.authority, named[1] or usual.certificate, named[2] or usual.key)


def main() -> None:
    """Exit codes: the container's own for run, start -a, exec and attach; 125 when they could not be tried;
    otherwise 1 for an error, 2 for wrong usage (125 for run), 130 for Ctrl-C."""
    try:
        result = cli.main(standalone_mode=False, prog_name="seawall")
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(125 if _runs() and isinstance(error, click.UsageError) else error.exit_code)
    except SeawallError as error:
        click.echo(f"Error: {error.message}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has left (`seawall logs | head`): nothing to complain about.
        sys.stderr.close()
        sys.exit(141)


def _runs() -> bool:
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "") in ("run", "create")
