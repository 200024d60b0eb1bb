"""`pvedrbdstor mirror`: bring a storage up on this node, take it down, say how it is."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import click

from pvedrbdstor.cli import mirror_adopt, mirror_peer, output, verify_rejoin
from pvedrbdstor.cli.options import StorageName, confirm, json_option, storage_argument, yes_option
from pvedrbdstor.cli.session import DEFAULT_CONFIG, Session, pass_session
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadConfig, Error, StillComingUp, SystemCallFailed
from pvedrbdstor.mirror import vendor
from pvedrbdstor.mirror.bringup import down as downing
from pvedrbdstor.mirror.bringup import job, join, paths, record
from pvedrbdstor.mirror.bringup.facts import WAIT_PEER_SECONDS, Options
from pvedrbdstor.mirror.bringup.record import Record, boot_clock
from pvedrbdstor.mirror.live.current import current_verdict
from pvedrbdstor.mirror.live.view import verdict_as_json
from pvedrbdstor.mirror.verdict import Verdict
from pvedrbdstor.pve import storage_cfg
from pvedrbdstor.sizes import format_size
from pvedrbdstor.verify import last as last_verify
from pvedrbdstor.verify.write_path import last as last_write_path

_PEER_SHARE = 2 / 3
"""Of the time that boot waits, for the other node; the rest is for the mount."""

_one_or_all = click.argument("storage", type=StorageName(), required=False)
_all_option = click.option("--all", "all_", is_flag=True, help="All storages of this node, as at boot and shutdown.")


@click.group()
def mirror() -> None:
    """Bring a storage's mirror up or down on this node, and say how it is.

    A mirror is a DRBD resource with an OCFS2 file system on it, mounted on the storage's path.
    """


mirror.add_command(mirror_adopt.adopt)
mirror.add_command(mirror_adopt.release)
mirror.add_command(mirror_peer.peer_off)


@mirror.command(short_help="Bring a storage up on this node.")
@_one_or_all
@_all_option
@click.option(
    "--without-peer",
    is_flag=True,
    help="Go on although the other node cannot be reached and nothing says that it does not write. If it does, both "
    "nodes make histories of their own, and one of them will have to be thrown away.",
)
@click.option(
    "--wait",
    type=click.FloatRange(1, 600),
    metavar="SECONDS",
    help="Wait this long at most; the work goes on. Default: until it is done.",
)
@click.option("--job", "as_job", is_flag=True, hidden=True, help="Be the job itself: for systemd and for the service.")
@click.option("--lock-fd", type=int, hidden=True, help="With --job: the storage's lock, held already.")
@yes_option
@json_option
@pass_session
def up(
    session: Session,
    storage: str | None,
    all_: bool,
    without_peer: bool,
    wait: float | None,
    as_job: bool,
    lock_fd: int | None,
    yes: bool,
) -> None:
    """Bring STORAGE up on this node: DRBD, the o2cb cluster, the mount. Each step that is already done is skipped.

    Proxmox does the same whenever it activates the storage. It never promotes by force and never mounts a copy that is
    out of date or has diverged: then it says which command resolves that. Ctrl-C stops the waiting, not the work.

    Example: pvedrbdstor mirror up ha
    """
    if all_ and without_peer:
        raise click.UsageError("--without-peer is decided for one storage at a time")
    configs = _chosen(session, storage, all_, as_job)
    if as_job:
        _be_the_job(session, str(storage), Options(without_peer=without_peer), lock_fd)
        return
    if without_peer:
        confirm(f"Bring {storage} up although the other node may be writing to its own copy?", yes)
    patience = WAIT_PEER_SECONDS if wait is None else max(WAIT_PEER_SECONDS, wait * _PEER_SHARE)
    options = Options(by_hand=not all_, without_peer=without_peer, wait_peer=patience)
    _each(session, configs, lambda config: _up(config, options, wait, session.as_json), "up")


@mirror.command(short_help="Take a storage down on this node.")
@_one_or_all
@_all_option
@click.option("--stop", is_flag=True, help="Take DRBD down as well: this node's copy then falls behind.")
@json_option
@pass_session
def down(session: Session, storage: str | None, all_: bool, stop: bool) -> None:
    """Unmount STORAGE on this node and make DRBD Secondary; it stays connected, so that this copy stays up to date.

    Refused while something uses it. It stays down, whatever Proxmox asks for, until 'pvedrbdstor mirror up' or a reboot.

    Example: pvedrbdstor mirror down ha
    """
    configs = _chosen(session, storage, all_, also_disabled=all_)
    _each(session, configs, lambda config: _down(config, stop), "down")


@mirror.command(short_help="Say how a storage is on this node.")
@storage_argument
@json_option
@pass_session
def status(session: Session, storage: str) -> None:
    """Say how STORAGE is on this node: the verdict, its cause, what helps, and what is being done to bring it up.

    Example: pvedrbdstor mirror status ha
    """
    config = session.storage(storage).config
    verdict, source = current_verdict(config)
    last = record.read(storage)
    running = last if last is not None and last.finished is None and job.is_running(storage) else None
    verified, verified_text = _last_verify(storage)
    write_path, write_path_text = _last_write_path(storage)
    rejoined, rejoined_text = verify_rejoin.status_of(config)
    document = {
        "storage": storage,
        "verdict": verdict_as_json(verdict),
        "source": source,
        "coming_up": None if running is None else {"step": running.step, "seconds": boot_clock() - running.started},
        "held_down": os.path.exists(paths.hold(storage)),
        "last_error": None if last is None or last.error is None else last.error.get("message"),
        "last_verify": verified,
        "last_rejoin": rejoined,
        "last_write_path": write_path,
    }
    told = "".join(f"  {line}\n" for line in (verified_text, rejoined_text, write_path_text) if line)
    session.answer(document, _status_text(storage, verdict, running, last) + told)


def _chosen(
    session: Session, storage: str | None, all_: bool, one: bool = False, also_disabled: bool = False
) -> list[StorageConfig]:
    """The storages a command is for. Disabled ones may be mounted all the same, which matters at shutdown."""
    if (storage is None) != all_:
        raise click.UsageError("name one STORAGE, or say --all")
    if one:
        return []
    if storage is not None:
        return [session.storage(storage).config]
    found = []
    for storage_id in _ids(session):
        try:
            found.append(session.storage(storage_id, also_disabled=also_disabled).config)
        except BadConfig as error:
            output.say(f"passed over: {error.message}")
    return found


def _ids(session: Session) -> list[str]:
    try:
        with open(session.config_path, encoding="utf-8", errors="replace") as file:
            return storage_cfg.storage_ids(file.read())
    except FileNotFoundError:  # Proxmox without any storage of its own making
        return []
    except OSError as error:
        raise BadConfig(storage="--all", detail=f"{session.config_path} cannot be read ({error.strerror})") from error


def _each(session: Session, configs: list[StorageConfig], work: Callable[[StorageConfig], str], state: str) -> None:
    """Do it for all at once; with several, one's failure is told and does not keep another from being done."""
    if len(configs) == 1:
        text = work(configs[0])
        session.answer({"storage": configs[0].id, "state": state}, f"{text}\n")
        return
    failed: list[Error] = []

    def attempt(config: StorageConfig) -> dict[str, str]:
        try:
            output.say(work(config))
        except Error as error:
            output.say(error.message)
            failed.append(error)
            return {"storage": config.id, "error": error.message}
        return {"storage": config.id, "state": state}

    with ThreadPoolExecutor(max(1, len(configs))) as pool:
        results = list(pool.map(attempt, configs))
    session.answer(results, "")
    if failed:
        raise click.exceptions.Exit(failed[0].exit_status)


def _up(config: StorageConfig, options: Options, wait: float | None, quiet: bool) -> str:
    """Start or join the job and tell its steps."""
    if options.by_hand:
        downing.release(config.id)
    began = boot_clock()
    told = ""

    def watch(current: Record | None) -> None:
        nonlocal told
        step = current.step if current is not None and current.finished is None else told
        if step != told and not quiet:
            output.say(f"{config.id}: {step} ...")
        told = step
        if wait is not None and boot_clock() - began > wait:
            raise StillComingUp(storage=config.id, step=told or "starting", seconds=round(boot_clock() - began))

    join.join(config, options, watch).raise_error()
    return f"{config.id} is up after {boot_clock() - began:.0f} s."


def _down(config: StorageConfig, stop: bool) -> str:
    try:
        downing.take_down(config, stop=stop, report=lambda step: output.say(f"{config.id}: {step} ..."))
    except OSError as error:
        raise _no_files(error) from error
    left = "DRBD is down" if stop else "DRBD is Secondary and stays connected"
    return f"{config.id} is down on this node: {left}. 'pvedrbdstor mirror up {config.id}' brings it up again."


def _be_the_job(session: Session, storage: str, options: Options, lock_fd: int | None) -> None:
    """End with 0 also when another job is at it, and when the storage is refused: that is for those who asked, and no
    unit has failed. The log tells a new refusal once."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)6.0f ms  %(message)s")
    if session.config_path == DEFAULT_CONFIG:
        vendor.mask_for(storage)
    try:
        done = job.run(storage, lambda: session.storage(storage).config, options, lock_fd)
    except OSError as error:
        raise _no_files(error) from error
    if done is not None and not done.refused:
        done.raise_error()


def _status_text(storage: str, verdict: Verdict, running: Record | None, last: Record | None) -> str:
    lines = [f"{storage}: {verdict.kind.value}", f"  {verdict.cause}", f"  {verdict.remedy}"]
    for finding in verdict.also:
        lines += [f"  also {finding.kind.value}: {finding.cause}", f"    {finding.remedy}"]
    lines += [f"  {note}" for note in verdict.notes]
    if running is not None:
        lines.append(f"  Coming up: {running.step} ({boot_clock() - running.started:.0f} s so far).")
    elif os.path.exists(paths.resolution(storage)):
        lines.append(
            "  Its split brain is being resolved, and this node's copy is the one to be discarded: it stays down until "
            f"'pvedrbdstor split-brain resolve {storage}' has ended."
        )
    elif os.path.exists(paths.hold(storage)):
        lines.append(f"  Taken down by an administrator. 'pvedrbdstor mirror up {storage}' brings it up again.")
    elif last is not None and last.error is not None and not verdict.active:
        lines.append(f"  Last try: {last.error.get('message')}")
    return "\n".join(lines) + "\n"


def _last_verify(storage: str) -> tuple[dict[str, object] | None, str]:
    """What `pvedrbdstor verify` has found last, when it led on this node: for --json, and a line for people."""
    try:
        record = last_verify.read(storage)
    except last_verify.Unknown as error:
        return {"unknown": str(error)}, f"last verify: not known, as {error}"
    return last_verify.as_json(record), last_verify.line(record, format_size)


def _last_write_path(storage: str) -> tuple[dict[str, object] | None, str]:
    """What `pvedrbdstor verify --write-path` has found last, in the same way."""
    try:
        record = last_write_path.read(storage)
    except last_write_path.Unknown as error:
        return {"unknown": str(error)}, f"last write path check: not known, as {error}"
    return last_write_path.as_json(record), last_write_path.line(record)


def _no_files(error: OSError) -> SystemCallFailed:
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else paths.FOLDER
    remedy = "Is this run as root? Is there room in /run?"
    return SystemCallFailed(operation="Writing", path=where, reason=error.strerror or str(error), remedy=remedy)
