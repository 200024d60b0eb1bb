"""What could not be looked at: not known is not well."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator

from pvedrbdstor.doctor import storage_file
from pvedrbdstor.doctor.facts import UNKNOWN_NODE, Look, Node, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.doctor.sources import NAMES
from pvedrbdstor.nodes import asking, host_key

UNREAD = Entry("unread", (Severity.WARNING,), "a source that could not be read")
SILENT = Entry(
    "node-silent", (Severity.WARNING,), "the other node did not answer by ssh, or not in words that are understood"
)
VERSIONS = Entry("versions-differ", (Severity.WARNING,), "the nodes have different versions of pvedrbdstor")
UNUSABLE = Entry(
    "storage-unusable", (Severity.ERROR,), "a section of storage.cfg that is not right: its storage was not looked at"
)
BROKE = Entry(
    "check-broke", (Severity.WARNING,), "a check of the doctor failed by a bug: what it finds was not looked at"
)
ENTRIES = (UNREAD, SILENT, VERSIONS, UNUSABLE, BROKE)
_NOT_ROOT = ("Permission denied", "permission denied", "not permitted")

_WRITTEN = ("dump", "adjust")
"""Sources that fail where DRBD's configuration files are wrong."""


def check(look: Look) -> Iterator[Finding]:
    # Of this node's file alone: pmxcfs gives all nodes the same one. A section for others alone (`nodes`) is a matter of their doctor.
    for storage, why in look.unusable.items():
        yield UNUSABLE.found(
            f"The section of '{storage}' in storage.cfg cannot be used",
            f"{plain(why, 500).rstrip('.')}. Proxmox cannot use the storage, and nothing of it was looked at.",
            f"Correct the section in /etc/pve/storage.cfg; its properties are in 'man drbdocfs2'; then look again: 'pvedrbdstor doctor {storage}'",
            storage=storage,
        )
    for name, why in look.silent.items():
        yield SILENT.found(
            f"{name} could not be looked at",
            f"{'It' if name == UNKNOWN_NODE else f'Node {name}'} did not tell how it is: {why}. What is different there, and what is wrong there alone, is not known.",
            "See what is wrong with the configuration: 'drbdadm dump'"
            if name == UNKNOWN_NODE
            else f"See what '{asking(look.way(name), 'true')}' says: {name} and its sshd must run, and root of {look.here.name} may log in there without a password; "
            f"{host_key(name)}. Where it says nothing, run 'pvedrbdstor doctor' on {name}",
        )
    for node in look.nodes:
        for source, why in node.unread.items():
            yield UNREAD.found(
                f"Could not look at {called(source)}",
                f"{why[:1].upper()}{why[1:]}. Whatever is wrong there was not found.",
                _remedy(node, source, why),
                nodes=(node.name,),
            )
    for here, other in look.pairs:
        if here.version != other.version:
            yield VERSIONS.found(
                f"pvedrbdstor is {here.version} on {here.name} and {other.version} on {other.name}",
                "What one version writes the other may not understand. That is meant for the time of an upgrade alone.",
                _same_version(here, other),
                nodes=(here.name, other.name),
            )


def _same_version(here: Node, other: Node) -> str:
    older, newer = sorted(
        (here, other), key=lambda node: [int(part) for part in re.findall(r"[0-9]{1,9}", node.version)]
    )
    return f"Install the newer package on {older.name} as well (docs/upgrades.md): 'apt install ./pvedrbdstor_{plain(newer.version, 40)}_amd64.deb'"


def broke(check: str, error: Exception, here: Node) -> Finding:
    """Of a check that raised an exception, where it did, too: whoever gets the report needs that."""
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    place = f" It broke in {os.path.basename(places[-1][0])}, line {places[-1][1]}." if places else ""
    return BROKE.found(
        f"The check '{check}' of the doctor broke: {type(error).__name__}: {plain(str(error))}",
        f"That is a bug of pvedrbdstor. What this check finds was not looked at, or not all of it.{place}",
        "Report it with the archive that 'pvedrbdstor report' writes; what the other checks found counts all the same",
        nodes=(here.name,),
    )


def _remedy(node: Node, source: str, why: str) -> str:
    if source == storage_file.SOURCE:
        return storage_file.SEE
    if source in _WRITTEN:
        return f"Correct the files in /etc/drbd.d/ on {node.name}: 'drbdadm dump' says what is wrong"
    if any(word in why for word in _NOT_ROOT):
        return "Run it as root"
    return f"If it hangs, look at 'cat /proc/drbd' and 'dmesg' on {node.name}"


def called(source: str) -> str:
    """A source's name in sentences."""
    name, colon, storage = source.partition(":")
    what = NAMES.get(name, name)
    return f"{what} of storage '{storage}'" if colon else what
