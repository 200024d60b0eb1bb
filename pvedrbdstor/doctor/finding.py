"""One thing that the doctor has found, and the catalogue's entry that it is of. No I/O here."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

_QUOTED = re.compile(r"(?<!\w)'([^']+)'(?!\w)")


PROGRAMS = frozenset(
    [
        "apt",
        "cat",
        "chattr",
        "chronyc",
        "dkms",
        "dmesg",
        "dpkg",
        "drbdadm",
        "drbdsetup",
        "echo",
        "ethtool",
        "filefrag",
        "findmnt",
        "fsck.ocfs2",
        "ip",
        "journalctl",
        "ls",
        "lsblk",
        "lsattr",
        "man",
        "mkdir",
        "mkfs.ocfs2",
        "mv",
        "nft",
        "o2cb",
        "pct",
        "proxmox-boot-tool",
        "pve-firewall",
        "pvecm",
        "pvedrbdstor",
        "pvesm",
        "qemu-img",
        "qm",
        "rm",
        "scp",
        "ss",
        "ssh",
        "systemctl",
        "tunefs.ocfs2",
    ]
)
"""That remedies tell to run."""


class Severity(enum.IntEnum):
    """HINT: works, and could be better. WARNING: will do harm one day, or was not looked at. ERROR: does harm, or will at the next failure."""

    HINT = 0
    WARNING = 1
    ERROR = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    id: of the catalogue, stays the same. title: one line. meaning: what follows from it. remedy: what helps, with each command in
    single quotes. nodes: where. storage: which, None where it is the node's. source: a public page on a fault that others have, too.
    """

    id: str
    severity: Severity
    title: str
    meaning: str
    remedy: str
    nodes: tuple[str, ...] = ()
    storage: str | None = None
    source: str | None = None

    @property
    def commands(self) -> tuple[str, ...]:
        """Those of the remedy, in their order: what it has in single quotes and begins with a program. An apostrophe in a word is no quote."""
        return tuple(
            quoted for quoted in _QUOTED.findall(self.remedy) if quoted.split()[:1] and quoted.split()[0] in PROGRAMS
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the catalogue, and of the table in docs/doctor.md.

    finds: what is found, one clause. severities: that it can have, the usual one first.
    """

    id: str
    severities: tuple[Severity, ...]
    finds: str
    source: str | None = field(default=None)

    def found(
        self,
        title: str,
        meaning: str,
        remedy: str,
        *,
        nodes: Iterable[str] = (),
        storage: str | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        grave = self.severities[0] if severity is None else severity
        assert grave in self.severities, f"{self.id} is never {grave.word}"
        return Finding(self.id, grave, title, meaning, remedy, tuple(nodes), storage, self.source)


def gathered(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst first; what is the same on several nodes is one finding."""
    together: dict[Finding, Finding] = {}
    for finding in found:
        key = replace(finding, nodes=())
        before = together.get(key)
        nodes = finding.nodes if before is None else tuple(dict.fromkeys((*before.nodes, *finding.nodes)))
        together[key] = replace(finding, nodes=nodes)
    return tuple(sorted(together.values(), key=lambda finding: -finding.severity))


def accepts(accepted: Collection[str], finding: Finding) -> bool:
    """Whether an administrator has said that it is as it is to be. accepted: `ID`, or `ID:STORAGE` for that of one storage."""
    return finding.id in accepted or f"{finding.id}:{finding.storage}" in accepted


def counted(found: Iterable[Finding], accepted: Collection[str]) -> list[Finding]:
    """Those that are not accepted."""
    return [finding for finding in found if not accepts(accepted, finding)]


def exit_status(found: Iterable[Finding]) -> int:
    """0: nothing but hints. 1: the worst is a warning. 2: an error."""
    return int(max((finding.severity for finding in found), default=Severity.HINT))
