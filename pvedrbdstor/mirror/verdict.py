"""One verdict on a storage on this node, from facts alone: what is not known is `unknown`, never healthy. No I/O here.

docs/verdicts.md tells administrators what each verdict means and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pvedrbdstor.mirror import copies, protection
from pvedrbdstor.mirror.facts import Facts
from pvedrbdstor.mirror.finding import Finding, Kind, Severity, blocking


@dataclass(frozen=True, slots=True)
class Verdict:
    """kind: the gravest of what was found, and its cause, remedy and severity (the loudest of all).

    usable_here: guests on this node read and write the mirror's own data, as far as is known for certain. active: what
    PVE is to show; differs from usable_here only when it is this node's knowledge, not the storage, that fails. admits:
    guests that did not run here may be started or migrated here. also: the other findings, the gravest first. what: see
    Finding.
    """

    kind: Kind
    usable_here: bool
    active: bool
    admits: bool
    cause: str
    remedy: str
    severity: Severity
    also: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    what: str = ""

    @property
    def found(self) -> tuple[tuple[Kind, str], ...]:
        """All that was found, by kind and name, the gravest first: what makes it another verdict than the last."""
        return ((self.kind, self.what), *((finding.kind, finding.what) for finding in self.also))

    @property
    def merely_down(self) -> bool:
        """Nothing is against using the storage but that it is not mounted."""
        return self.kind is Kind.NOT_UP and all(found.admits or found.kind is Kind.NOT_UP for found in self.also)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All that was found, each kind once, the gravest first."""
        return tuple(dict.fromkeys((self.kind, *(finding.kind for finding in self.also))))


def verdict_of(facts: Facts) -> Verdict:
    """The one verdict. Each finding can only take away: the storage is usable when none says otherwise."""
    found = sorted(_findings(facts), key=lambda finding: (finding.kind.gravity, -finding.severity))
    notes = _notes(facts)
    if not found:
        cause = "Both copies are up to date, and the file system is mounted here."
        return Verdict(Kind.HEALTHY, True, True, True, cause, "Nothing needs to be done.", Severity.OK, notes=notes)
    gravest = found[0]
    return Verdict(
        kind=gravest.kind,
        usable_here=all(finding.usable for finding in found),
        active=all(finding.active for finding in found),
        admits=all(finding.admits for finding in found),
        cause=gravest.cause,
        remedy=gravest.remedy,
        severity=max(finding.severity for finding in found),
        also=tuple(found[1:]),
        notes=notes,
        what=gravest.what,
    )


def _findings(facts: Facts) -> Iterator[Finding]:
    yield from _knowledge(facts)
    if facts.drbd is None and facts.view.good:
        yield _down(facts)
    yield from _mount(facts)
    if facts.drbd is not None:
        yield from copies.copies(facts, facts.drbd)
    yield from protection.protection(facts)


def _notes(facts: Facts) -> tuple[str, ...]:
    return tuple(copies.notes(facts.drbd)) if facts.drbd is not None else ()


def _knowledge(facts: Facts) -> Iterator[Finding]:
    """What this node does not know, or what contradicts itself."""
    view, name = facts.view, facts.resource
    look = f"Run 'drbdsetup events2 --now {name}'; if it answers, restart the service: 'systemctl restart pvedrbdstor'."
    if not view.complete or view.age is None:
        yield _unknown(facts, "DRBD's state has not been read yet.", look)
    elif view.stale:
        yield _unknown(facts, f"DRBD's state was last known {view.age:.0f} s ago.", look)
    elif facts.drbd is not None and (missing := facts.drbd.missing) is not None:
        yield _unknown(facts, f"DRBD did not tell {missing}.", look)
    elif facts.drbd is not None and facts.drbd.role != "Primary" and facts.mount.good:
        cause = "A file system is mounted here although DRBD is not Primary: one of the two is not what it was."
        yield blocking(Kind.UNKNOWN, cause, f"Look at 'drbdadm status {name}', 'findmnt -t ocfs2' and 'dmesg'.")
    if facts.mount.mounted is None:
        cause = "It is not known whether the file system is mounted."
        yield blocking(
            Kind.UNKNOWN,
            cause,
            "Run 'findmnt -t ocfs2'; if it answers, restart the service: 'systemctl restart pvedrbdstor'.",
        )


def _unknown(facts: Facts, cause: str, remedy: str) -> Finding:
    """A mount that answers stays shown: a watcher that lost its pipe must not take forty guests' storage away."""
    return Finding(Kind.UNKNOWN, cause, remedy, Severity.ERROR, usable=False, active=facts.mount.good, admits=False)


def _mount(facts: Facts) -> Iterator[Finding]:
    mount, volume = facts.mount, f"{facts.resource}/{facts.volume}"
    up = f"Run 'pvedrbdstor mirror up {facts.storage}'."
    if mount.mounted is False:
        yield blocking(Kind.NOT_UP, "The file system is not mounted on this node.", up)
    elif mount.wrong is not None:
        yield blocking(Kind.NOT_UP, mount.wrong, f"Unmount what is there, then: {up[:1].lower()}{up[1:]}")
    if mount.mounted is not True:
        return
    if mount.read_only:
        yield blocking(
            Kind.READ_ONLY,
            "The file system is read-only, as OCFS2 makes it after an error.",
            f"Look at 'dmesg'; move or stop the guests, then 'pvedrbdstor mirror down {facts.storage}' on all nodes; on one "
            f"'drbdadm primary {facts.resource}', 'fsck.ocfs2 -f $(drbdadm sh-dev {volume})', 'drbdadm secondary {facts.resource}'; and "
            f"'pvedrbdstor mirror up {facts.storage}' on all.",
            Severity.CRITICAL,
        )
    if mount.silent is not None:
        yield blocking(
            Kind.SUSPENDED,
            f"The file system has not answered for {mount.silent:.0f} s: I/O hangs, or the cluster's locks are being recovered.",
            f"Wait a minute; then look at 'drbdadm status {facts.resource}' and 'dmesg' on both nodes.",
            Severity.CRITICAL,
            what="silent",
        )


def _down(facts: Facts) -> Finding:
    up = f"Run 'pvedrbdstor mirror up {facts.storage}'."
    if facts.generation is None:
        return blocking(
            Kind.NOT_UP,
            "The DRBD module is not loaded, or is of a version other than 8.4 and 9.",
            f"Look at 'drbdadm --version'. {up}",
        )
    return blocking(Kind.NOT_UP, f"DRBD resource '{facts.resource}' volume {facts.volume} is down on this node.", up)
