"""`pvedrbdstor report`: one archive for a support request."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import click

from pvedrbdstor.cli import configuration
from pvedrbdstor.cli.options import json_option
from pvedrbdstor.cli.session import Session, pass_session
from pvedrbdstor.errors import BadConfig, SystemCallFailed
from pvedrbdstor.pve.storage_cfg import Storage
from pvedrbdstor.sizes import format_size


@click.command(short_help="Write one archive for a support request.")
@click.option("--local", is_flag=True, help="Of this node alone.")
@click.option("--texts", is_flag=True, hidden=True, help="Print this node's texts, for the other node.")
@json_option
@pass_session
def report(session: Session, local: bool, texts: bool) -> None:
    """Write one archive for a support request into the current folder: what the doctor finds, configurations, states and logs of both nodes.

    Passwords, keys and shared secrets are left out; only root may read it. Names and addresses are in it: look through it before
    you give it away. It takes some seconds where everything answers, and a minute at most.

    Example: pvedrbdstor report
    """
    from pvedrbdstor.doctor import look, storage_file
    from pvedrbdstor.report import archive, both, sources
    from pvedrbdstor.report.secrets import without_secrets

    if texts:
        clean = without_secrets(sources.gather(session.config_path, session.nodes_path))
        click.echo(json.dumps({name: sources.cut(text) for name, text in clean.items()}))
        return
    chosen, unusable, unread = _storages(session)
    configs = [storage.config for storage in chosen]
    peers = look.Peers()
    if not local:
        peers = look.peers_of(session.node, configs) if unread is None else look.peers_of_any_storage(session.node)
    deadline = time.monotonic() + both.PEER_SECONDS
    helpers = both.of_other_nodes(peers.names)
    aliases = {storage.config.id: configuration.ids(storage) for storage in chosen}
    seen = replace(look.look(session.node, configs, session.nodes_path, aliases, peers), unusable=unusable)
    if unread is not None:
        here = replace(
            seen.here, unread={**seen.here.unread, storage_file.SOURCE: unread.removesuffix(f". {storage_file.SEE}")}
        )
        seen = replace(seen, here=here)
    own = {
        f"{session.node}/{name}": text for name, text in sources.gather(session.config_path, session.nodes_path).items()
    }
    now = time.time()
    packed = archive.packed({**both.of_look(seen), **own, **both.told(helpers, deadline), **_not_read(unread)}, now)
    top = f"pvedrbdstor-report-{session.node}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
    if os.path.lexists(f"{top}.tar.gz"):  # of the same second
        top = f"{top}-{os.getpid()}"
    path = os.path.abspath(f"{top}.tar.gz")
    try:
        size = archive.write(path, top, packed, now)
    except OSError as error:
        remedy = "Run it in a folder that can be written to and has room"
        reason = error.strerror or str(error)
        raise SystemCallFailed(operation="Writing", path=path, reason=reason, remedy=remedy) from error
    names = sorted(packed)
    listed = "".join(f"  {name}\n" for name in names)
    session.answer({"path": path, "bytes": size, "contents": names}, f"{path} ({format_size(size)}) holds:\n{listed}")


def _storages(session: Session) -> tuple[list[Storage], dict[str, str], str | None]:
    """All of this node, and why others of it are unusable; where storage.cfg cannot be read, none, and why: the rest is wanted the more then."""
    try:
        return *configuration.chosen(session, ()), None
    except BadConfig as error:
        return [], {}, str(error.fields["detail"])


def _not_read(why: str | None) -> dict[str, str]:
    return {} if why is None else {"STORAGES-NOT-READ.txt": f"{why}\n"}
