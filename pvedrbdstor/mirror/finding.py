"""What can be true of a mirror, the gravest first, and one thing found about it. Nothing in this file does I/O."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """The verdicts in the order of their gravity; docs/verdicts.md says what each means for guests."""

    UNKNOWN = "unknown"
    SPLIT_BRAIN = "split-brain"
    INCONSISTENT = "inconsistent"
    STALE = "stale"
    SUSPENDED = "suspended"
    READ_ONLY = "read-only"
    NOT_UP = "not-up"
    UNPROTECTED = "unprotected"
    DEGRADED = "degraded"
    HEALTHY = "healthy"

    @property
    def gravity(self) -> int:
        """0 is the gravest."""
        return list(Kind).index(self)


class Severity(enum.IntEnum):
    """How loud to be: nothing, a line in the log, a warning, an error, wake somebody."""

    OK = 0
    NOTICE = 1
    WARNING = 2
    ERROR = 3
    CRITICAL = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    cause: one sentence. remedy: the command that helps, with what must be known before it is run. usable: guests here
    still read and write the mirror's own data. active: PVE is to show the storage as active. admits: guests may be
    started here that were not running here, and migrated here. what: a short name of what was found, which stays the same
    while numbers in the sentences change.
    """

    kind: Kind
    cause: str
    remedy: str
    severity: Severity
    usable: bool = True
    active: bool = True
    admits: bool = True
    what: str = ""


def blocking(kind: Kind, cause: str, remedy: str, severity: Severity = Severity.ERROR, what: str = "") -> Finding:
    """A finding with which the storage is not usable on this node."""
    return Finding(kind, cause, remedy, severity, usable=False, active=False, admits=False, what=what)
