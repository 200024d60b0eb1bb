"""Tell people of a change of verdict: one line in the log, and PVE's notification system where it exists."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from pvedrbdstor import command
from pvedrbdstor.mirror.finding import Kind, Severity
from pvedrbdstor.mirror.helper import Helper
from pvedrbdstor.mirror.verdict import Verdict

log = logging.getLogger(__name__)

TEMPLATES = "/usr/share/pve-manager/templates/default"
TEMPLATE = "drbdocfs2"
_SYSTEMD = "/run/systemd/system"  # sd_booted(3)
_NOTIFY_SECONDS = 30.0
_SETTLED_SECONDS = 10.0
"""A verdict that does not last so long is in the log, and wakes nobody; but for a split brain, which does not pass."""

_LEVELS = {
    Severity.OK: logging.INFO,
    Severity.NOTICE: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
    Severity.CRITICAL: logging.CRITICAL,
}
_PVE_SEVERITIES = {
    Severity.OK: "info",
    Severity.NOTICE: "notice",
    Severity.WARNING: "warning",
    Severity.ERROR: "error",
    Severity.CRITICAL: "error",
}

# PVE::Notify of libpve-notify-perl: notify(SEVERITY, TEMPLATE, DATA, FIELDS) since templates exist; it reads its
# configuration from /etc/pve and may send mail, so it runs in a process of its own, with a deadline.
NOTIFY_PERL = r"""
my ($severity, $template, %text) = @ARGV;
eval {
    require PVE::Notify;
    my $data = { %{ PVE::Notify::common_template_data() }, %text };
    my $fields = { type => $template, hostname => $data->{hostname}, storage => $text{storage} };
    PVE::Notify::notify($severity, $template, $data, $fields);
    1;
} or do { print STDERR $@; exit 1 };
"""


class Announcer:
    """Of one storage. first: the verdict already announced by an earlier monitor, None when there was none."""

    def __init__(self, storage: str, first: Verdict | None = None) -> None:
        self._storage = storage
        self._told = None if first is None else _key(first)
        self._notified = self._told
        self._since = 0.0
        self._helper = Helper(notify)

    def changed(self, verdict: Verdict, now: float) -> bool:
        """Log a verdict that is not the last one's; True when it is another."""
        if _key(verdict) == self._told:
            return False
        self._told, self._since = _key(verdict), now
        log.log(_LEVELS[verdict.severity], "%s", sentence(self._storage, verdict))
        return True

    def notify_settled(self, verdict: Verdict, now: float) -> None:
        """Notify of a verdict that has lasted, unless it is the one notified of last."""
        self._helper.answer()
        settled = verdict.kind is Kind.SPLIT_BRAIN or now - self._since >= _SETTLED_SECONDS
        if _key(verdict) == self._notified or not settled:
            return
        if not available() or self._helper.ask(message(self._storage, verdict)):
            self._notified = _key(verdict)

    def close(self) -> None:
        self._helper.close()


def _key(verdict: Verdict) -> tuple[object, ...]:
    """What makes two verdicts different ones: not a resync's progress, nor for how long something has lasted."""
    return (verdict.found, verdict.severity, verdict.active, verdict.admits)


def sentence(storage: str, verdict: Verdict) -> str:
    """One line for the log."""
    state = "active" if verdict.active else "inactive"
    also = "".join(f" Also {finding.kind.value}: {finding.cause} {finding.remedy}" for finding in verdict.also)
    return f"Storage '{storage}' is {verdict.kind.value} ({state}): {verdict.cause} {verdict.remedy}{also}"


def message(storage: str, verdict: Verdict) -> dict[str, str]:
    """What the templates in notify/ name."""
    return {
        "severity": _PVE_SEVERITIES[verdict.severity],
        "storage": storage,
        "verdict": verdict.kind.value,
        "state": "active" if verdict.active else "inactive",
        "cause": " ".join([verdict.cause, *(finding.cause for finding in verdict.also)]),
        "remedy": " ".join([verdict.remedy, *(finding.remedy for finding in verdict.also)]),
        "node": socket.gethostname().partition(".")[0],
    }


def available() -> bool:
    """Whether this PVE renders notifications from templates, and ours are there."""
    return all(os.path.exists(f"{TEMPLATES}/{name}-subject.txt.hbs") for name in ("vzdump", TEMPLATE))


def notify(text: Mapping[str, str]) -> dict[str, str]:
    """Work of a Helper: hand a message() to PVE. A failure is logged, and is no reason to try again."""
    words = [word for key, value in text.items() if key != "severity" for word in (key, value)]
    argv = ["perl", "-e", NOTIFY_PERL, text["severity"], TEMPLATE, *words]
    done = command.run([*_unconfined(), *argv], timeout=_NOTIFY_SECONDS, check=False)
    if done.status != 0:
        log.warning("PVE's notification system did not take a message: %s", done.stderr.strip()[-500:])
    return {}


def _unconfined() -> list[str]:
    """The service may not speak to other machines, and a mail server or webhook is one: let systemd start it."""
    if not os.path.isdir(_SYSTEMD):
        return []
    return ["systemd-run", "--quiet", "--collect", f"--property=RuntimeMaxSec={_NOTIFY_SECONDS:.0f}"]
