"""`pvedrbdstor completion`: the script that teaches a shell to complete our commands and storages."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_PVEDRBDSTOR_COMPLETE"
_PROGRAM = "pvedrbdstor"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL. The Debian package brings those for all three.

    Example: eval "$(pvedrbdstor completion bash)"
    """
    from pvedrbdstor.cli.app import app

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(app, {}, _PROGRAM, _VARIABLE)
    # Not script.source(): click's starts the shell to ask its version, and a package is built without one.
    click.echo(script.source_template % script.source_vars())
