"""`pvedrbdstor rpc` and `serve` as commands, with their help."""

from __future__ import annotations

import click

from pvedrbdstor.cli import wire


@click.command()
@click.option("--stream", is_flag=True, help="For export and import: the data takes standard output or input.")
@click.option("--request", metavar="JSON", help="The request line, with --stream.")
@click.pass_context
def rpc(ctx: click.Context, stream: bool, request: str | None) -> None:
    """Answer one JSON-RPC request: a line on standard input, a line on standard output.

    Proxmox's plugin uses this where the service does not run. With --stream the request is an argument, and the answer
    is the last line on standard error. The exit status is 0 with a result, else the error's.
    """
    if stream != (request is not None):
        raise click.UsageError("--stream and --request belong together")
    ctx.exit(wire.answer_line() if request is None else wire.answer_stream(request))


@click.command()
@click.option("--socket", "socket_path", metavar="PATH", help="Listen on PATH. Default: the socket systemd passes.")
@click.pass_context
def serve(ctx: click.Context, socket_path: str | None) -> None:
    """Run the service that Proxmox's plugin talks to, in the foreground, until SIGTERM.

    systemd starts it: 'systemctl status pvedrbdstor'. By hand it is of use for tests.

    Example: pvedrbdstor serve --socket /run/pvedrbdstor/test.sock
    """
    ctx.exit(wire.serve(socket_path))
