"""`seawall completion`."""

import click
from click.shell_completion import get_completion_class

from node.cli.main import cli


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion script.

    bash: `source <(seawall completion bash)`; zsh: the same; fish: `seawall completion fish | source`.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows bash, zsh and fish"
    click.echo(kind(cli, {}, "seawall", "_SEAWALL_COMPLETE").source())
