"""`pvedrbdstor verify`: what a comparison of a rejoin waits for, what the other node is answered, and what `mirror status` says of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from pvedrbdstor import command, files
from pvedrbdstor.cli.interrupt import EXIT_STATUS
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import generation_ids
from pvedrbdstor.errors import CommandFailed, CommandTimeout, Error, SystemCallFailed, VerifyRefused
from pvedrbdstor.sizes import format_size
from pvedrbdstor.verify import last, rejoin, rejoin_status

_WAIT_SECONDS = 86400.0
_LOOK_SECONDS = 5.0
_AGAIN_SECONDS = 20.0
_TOOL_SECONDS = 10.0


def when_ready(config: StorageConfig, compare: Callable[[], tuple[int, bool]], say: Callable[[str], None]) -> int:
    """Compare once both nodes have it up; again where it was stopped before its end, as long as something is to be compared, and where the nodes
    have met anew meanwhile. The worst exit status; 0 where all has been compared already. compare: gives that, and whether it is all. Raises what
    ``compare`` does after a day, and VerifyRefused where nothing is to be compared."""
    deadline = time.monotonic() + _WAIT_SECONDS
    if not _pending(config) and judged(config):
        say("what this node has noted has been compared already")
        return 0
    if not _pending(config):
        raise VerifyRefused(
            storage=config.id,
            cause="this node has noted nothing that has not been compared yet",
            remedy=f"See what 'pvedrbdstor mirror status {config.id}' says; without --wait the last list is compared again",
        )
    worst = 0
    while True:
        while time.monotonic() < deadline and not _up_on_both(config):
            time.sleep(_LOOK_SECONDS)
        began_with = _pending(config)
        try:
            status, done = compare()
        except (VerifyRefused, CommandFailed, CommandTimeout) as error:
            if not _pending(config) and judged(config):  # by the other node, or by hand
                return worst
            if time.monotonic() > deadline or not _pending(config) or _of_another(config):
                raise
            say(f"not yet: {error.message}")
        else:
            worst = _worse(worst, status) if done else worst
            pending = _pending(config)
            if status == EXIT_STATUS or time.monotonic() > deadline or not pending or (done and pending == began_with):
                return _worse(worst, status)
            if done:
                say("the nodes have met anew meanwhile, and that is compared now")
                continue
        time.sleep(_AGAIN_SECONDS)


def judged(config: StorageConfig) -> bool:
    """Whether all that this node has noted has been compared, so that no failure must take the verdict's place."""
    try:
        kept = rejoin.read(config.resource, config.volume)
    except rejoin.Unknown:
        return False
    return kept is not None and kept.note.checked is not None


def keeps_failure(config: StorageConfig, error: Error | OSError) -> bool:
    """Whether `mirror status` is to tell that a rejoin could not be compared: not while another comparison runs, and not after one."""
    return not (isinstance(error.__cause__, files.Held) or judged(config))


def last_of(config: StorageConfig) -> last.Record | None:
    """For Prometheus, as it is for `mirror status`. Raises last.Unknown."""
    record = last.read(config.id, rejoin=True)
    try:
        return rejoin_status.fresh(rejoin.read(config.resource, config.volume), record)
    except rejoin.Unknown:
        return None


def _worse(one: int, two: int) -> int:
    """Of exit statuses: 1, something differs, is the worst, and 0 the best."""
    return next((status for status in (1, 2, EXIT_STATUS) if status in (one, two)), 0)


def answer(config: StorageConfig, word: str) -> None:
    """For the other node. Raises SystemCallFailed."""
    from pvedrbdstor.verify import rejoined

    try:
        click.echo(rejoined.answer(config, word))
    except (rejoin.Unknown, OSError, ValueError) as error:
        raise SystemCallFailed(
            operation="Reading",
            path=rejoin.path(config.resource, config.volume),
            reason=str(error),
            remedy="The next rejoin writes it anew",
        ) from error


def tell_modified(config: StorageConfig) -> None:
    """For the other node: writes whose memory was changed meanwhile, by this node's kernel log. Raises CommandFailed, CommandTimeout, OSError."""
    from pvedrbdstor.verify import in_flight

    minor = _minor(config)
    click.echo(in_flight.as_text(in_flight.own(minor) if minor is not None else ()))


def status_of(config: StorageConfig) -> tuple[dict[str, object] | None, str]:
    """Of the last rejoin, for --json and as a line, which is empty where nothing was ever noted."""
    try:
        kept = rejoin.read(config.resource, config.volume)
        if kept is None:
            return None, ""
        found = rejoin_status.status(kept, _identifiers(config), last.read(config.id, rejoin=True), config.id)
    except (rejoin.Unknown, last.Unknown) as error:
        return {"unknown": str(error)}, f"last rejoin: not known, as {error}"
    assert found is not None
    return found.as_json(), found.line(format_size)


def _identifiers(config: StorageConfig) -> generation_ids.Identifiers | None:
    try:
        line = ["drbdadm", "get-gi", f"{config.resource}/{config.volume}"]
        return generation_ids.parse(command.run(line, timeout=_TOOL_SECONDS).stdout)
    except (CommandFailed, CommandTimeout):
        return None


def _pending(config: StorageConfig) -> float | None:
    """When it was noted what has not been compared yet, None where there is nothing of that."""
    try:
        kept = rejoin.read(config.resource, config.volume)
    except rejoin.Unknown:
        return None
    return kept.note.noted if kept is not None and kept.note.size and kept.note.checked is None else None


def _of_another(config: StorageConfig) -> bool:
    """Whether the nodes have met again since, and nobody has noted it: then no waiting helps."""
    try:
        found = rejoin_status.status(rejoin.read(config.resource, config.volume), _identifiers(config), None)
    except rejoin.Unknown:
        return True
    return found is None or found.stage is rejoin_status.Stage.NOT_NOTED


def _up_on_both(config: StorageConfig) -> bool:
    """Whether a look is worth while: by DRBD's words, 8.4's only, as only that one's metadata are noted."""
    from pvedrbdstor.drbd import proc_drbd
    from pvedrbdstor.verify.copy import PROC_DRBD

    try:
        minor = _minor(config)
        with open(PROC_DRBD, encoding="ascii", errors="replace") as file:
            device = proc_drbd.parse(file.read(1 << 18)).devices.get(-1 if minor is None else minor)
    except (CommandFailed, CommandTimeout, OSError):
        return False
    return (
        device is not None
        and device.connection == "Connected"
        and (device.role, device.peer_role) == ("Primary", "Primary")
        and (device.disk, device.peer_disk) == ("UpToDate", "UpToDate")
    )


def _minor(config: StorageConfig) -> int | None:
    from pvedrbdstor.drbd import commands
    from pvedrbdstor.drbd.events2 import parse_now

    text = command.run(commands.events2_now(config.resource), timeout=_TOOL_SECONDS).stdout
    return parse_now(text).minor_of(config.resource, config.volume)
