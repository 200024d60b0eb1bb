"""`pvedrbdstor verify --metrics`: the last checks of all storages, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pvedrbdstor.cli import output, verify_rejoin
from pvedrbdstor.cli.session import Session
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadConfig, SystemCallFailed
from pvedrbdstor.pve import storage_cfg

_F = TypeVar("_F", bound=Callable[..., Any])


def metrics_options(command: _F) -> _F:
    """Both stand for the whole command: they need no STORAGE, and check nothing."""
    printed = click.option(
        "--metrics",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print,
        help="Print when each storage was checked last and what came of it, for Prometheus, and check nothing.",
    )
    written = click.option(
        "--metrics-to",
        type=click.Path(exists=True, file_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_write,
        metavar="FOLDER",
        help="The same into a file of that folder: node_exporter's textfile collector reads it.",
    )
    return printed(written(command))


def _print(ctx: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(_text(ctx.ensure_object(Session)), nl=False)
        ctx.exit(0)


def _write(ctx: click.Context, _parameter: click.Parameter, folder: str | None) -> None:
    if folder is None or ctx.resilient_parsing:
        return
    from pvedrbdstor.verify import metrics

    content = _text(ctx.ensure_object(Session))
    try:
        metrics.write(folder, content)
    except OSError as error:
        raise SystemCallFailed(
            operation="Writing",
            path=f"{folder}/{metrics.FILE}",
            reason=error.strerror or str(error),
            remedy="Is this run as root? Is there room?",
        ) from error
    ctx.exit(0)


def _text(session: Session) -> str:
    from pvedrbdstor.verify import last, metrics

    records, rejoins = {}, {}
    for config in _storages(session):
        try:
            records[config.id] = last.read(config.id)
            if last.read(config.id, rejoin=True) is not None:
                rejoins[config.id] = verify_rejoin.last_of(config)
        except last.Unknown as error:  # no value is better than a wrong one
            output.say(f"left out: {error}")
    return metrics.text(records, rejoins)


def _storages(session: Session) -> list[StorageConfig]:
    """Those that this node may use. Raises BadConfig."""
    try:
        with open(session.config_path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError as error:
        raise BadConfig(
            storage="--metrics", detail=f"{session.config_path} cannot be read ({error.strerror})"
        ) from error
    found = []
    for storage in storage_cfg.storage_ids(text):
        try:
            one = storage_cfg.find_storage(text, storage)
            one.check_usable_on(session.node)
        except BadConfig:
            continue
        found.append(one.config)
    return found
