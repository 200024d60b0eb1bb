"""`pvedrbdstor monitor`: the process that watches the storages, in the foreground."""

from __future__ import annotations

import click

from pvedrbdstor.cli import wire


@click.command()
@click.option("--of-service", is_flag=True, hidden=True, help="End when the process that started this one does.")
def monitor(of_service: bool) -> None:
    """Watch the storages and keep what `pvedrbdstor mirror status` shows, in the foreground, until SIGTERM.

    The service runs one of its own: this is of use where the service is stopped, and for tests.
    """
    wire.monitor(of_service=of_service)
