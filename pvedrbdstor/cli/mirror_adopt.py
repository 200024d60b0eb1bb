"""`pvedrbdstor mirror adopt` and `release`: a `dir` storage on a hand-made OCFS2 mount becomes ours, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping

import click

from pvedrbdstor.cli import output
from pvedrbdstor.cli.options import confirm, json_option, yes_option
from pvedrbdstor.cli.session import DEFAULT_CONFIG, Session, pass_session
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadConfig, Error, TypeStays
from pvedrbdstor.mirror.identify import volume_under
from pvedrbdstor.mirror.vendor import Vendor
from pvedrbdstor.pve import adopt as plan
from pvedrbdstor.pve.adopt import Change
from pvedrbdstor.pve.section_config import Section
from pvedrbdstor.pve.storage_cfg import FOLDER_TYPE, STORAGE_TYPE, Storage

_dry_run = click.option("--dry-run", is_flag=True, help="Check everything and show the change, but change nothing.")
_SURVEY_SECONDS = 300.0
_ADOPTED = """\
Storage {id} is of type {type} now. Its id, content and volumes are what they were; guests that run go on.
From now on it comes up by itself, at boot and whenever Proxmox needs it. Whatever mounted it until now, such as a line in
/etc/fstab or a unit of your own, is not needed any more: remove that on every node.
Next: 'pvesm status', and 'pvedrbdstor mirror status {id}' on every node.
"""
_RELEASED = """\
Storage {id} is of type {type} now. Its id, content and volumes are what they were; guests that run go on.
From now on nobody brings it up: mount it yourself at each boot, on every node, before guests start. Nothing checks any more that
the right file system is mounted and that both copies are the same.
"""


@click.command("adopt", short_help="Turn a 'dir' storage on an OCFS2 mount into this type.")
@click.argument("storage")
@_dry_run
@yes_option
@json_option
@pass_session
def adopt(session: Session, storage: str, dry_run: bool, yes: bool) -> None:
    """Turn STORAGE, of type 'dir' on an OCFS2 file system that you mounted by hand, into type 'drbdocfs2'.

    Only its entry in storage.cfg changes: nothing on the disk is moved or renamed, and guests may run. It must be mounted, from a
    DRBD device, on this node; which resource that is, is found out. 'pvedrbdstor mirror release' goes back.

    pvedrbdstor must be installed on every node first: one without it would drop the storage's entry.

    Example: pvedrbdstor mirror adopt ha --dry-run
    """
    section = _section(session, storage, STORAGE_TYPE)
    if section is None:
        return
    path = section.properties.get("path", "")
    resource, volume = volume_under(path if path == "/" else path.rstrip("/"), storage)
    config = plan.config_as_ours(section, resource, volume)
    options = plan.options_as_ours(config, _verified_uuid(session, config))
    plan.refuse_adoption(storage, _survey(session, config))
    question = f"Change {storage} to type {STORAGE_TYPE}? pvedrbdstor must be installed on every node{_others(session)}"
    _carry_out(session, section, STORAGE_TYPE, options, question, _ADOPTED, dry_run=dry_run, yes=yes)


@click.command("release", short_help="Turn a storage of this type into a 'dir' storage.")
@click.argument("storage")
@_dry_run
@yes_option
@json_option
@pass_session
def release(session: Session, storage: str, dry_run: bool, yes: bool) -> None:
    """Turn STORAGE into a storage of type 'dir' on the same mount, for which you care yourself again.

    Only its entry in storage.cfg changes: nothing on the disk is moved or renamed, and guests may run. Refused while raw images
    have snapshots, which a 'dir' storage does not know.

    Example: pvedrbdstor mirror release ha --dry-run
    """
    section = _section(session, storage, FOLDER_TYPE)
    if section is None:
        return
    plan.refuse_release(storage, _survey(session, session.storage(storage).config))
    question = f"Change {storage} to type {FOLDER_TYPE}, and bring it up yourself from now on?"
    _carry_out(
        session, section, FOLDER_TYPE, plan.options_as_folder(section), question, _RELEASED, dry_run=dry_run, yes=yes
    )


def _section(session: Session, storage: str, to: str) -> Section | None:
    """The section to change; None, and said so, when there is nothing to change."""
    try:
        with open(session.config_path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError as error:
        detail = f"{session.config_path} cannot be read ({error.strerror}). Look at 'systemctl status pve-cluster'"
        raise BadConfig(storage=storage, detail=detail) from error
    section = plan.section_to_change(text, storage, session.node, to=to)
    if section is None:
        document = {"storage": storage, "type": to, "changed": False}
        session.answer(document, f"Storage {storage} is of type {to} already: nothing to change.\n")
    return section


def _verified_uuid(session: Session, config: StorageConfig) -> str:
    """The UUID of what is mounted, after every check that the backend makes of a mount of its own."""
    return str(session.call("get_identity", _storage(config), {}))


def _survey(session: Session, config: StorageConfig) -> Mapping[str, object]:
    found: Mapping[str, object] = session.call(
        "survey", _storage(config), {}, timeout=_SURVEY_SECONDS, label="Looking through the guests' folders"
    )
    return found


def _storage(config: StorageConfig) -> Storage:
    nothing: frozenset[str] = frozenset()
    return Storage(config, content=nothing, nodes=nothing, disabled=False, aliases=frozenset({config.id}))


def _carry_out(
    session: Session,
    section: Section,
    to: str,
    options: Mapping[str, str],
    question: str,
    done: str,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Show the change, ask, have Proxmox do it, and look after the vendors' start scripts."""
    change = plan.change_type(section, to, options)
    if change.digest is None:
        raise TypeStays(
            storage=section.id,
            type=section.type,
            cause="Proxmox does not say which state of storage.cfg it has read",
            remedy="Look at 'systemctl status pve-cluster', and try again",
        )
    if not session.as_json:
        click.echo(_shown(change), nl=False)
    if not dry_run:
        confirm(question, yes)
        plan.change_type(section, to, options, digest=change.digest)
        _look_after_vendor_units(session)
    text = "Nothing was changed.\n" if dry_run else done.format(id=section.id, type=to)
    session.answer(_document(section.id, to, change, changed=not dry_run), text)


def _document(storage: str, to: str, change: Change, *, changed: bool) -> dict[str, object]:
    return {
        "storage": storage,
        "type": to,
        "changed": changed,
        "before": change.before,
        "after": change.after,
        "dropped": list(change.dropped),
    }


def _shown(change: Change) -> str:
    """The section as it is and as it will be, line by line: what goes with -, what comes with +."""
    before, after = change.before.splitlines(), change.after.splitlines()
    gone = [line for line in before if line not in after]
    lines = [f"- {line}" for line in gone]
    lines += [f"{' ' if line in before else '+'} {line}" for line in after if line]
    return "In storage.cfg:\n" + "".join(f"{line}\n" for line in lines)


def _others(session: Session) -> str:
    """The cluster's nodes by name, where they can be told."""
    try:
        names = sorted(name for name in os.listdir(session.nodes_path) if name != session.node)
    except OSError:
        names = []
    return f" (also on {', '.join(names)})." if names else "."


def _look_after_vendor_units(session: Session) -> None:
    """The storage is changed already: what fails here is told, and made up for at the next boot."""
    if session.config_path != DEFAULT_CONFIG:
        return
    try:
        Vendor(node=session.node).follow()
    except Error as error:
        output.say(error.message)
