"""What a difference harms, the worst first, and what that means for whoever reads it at night. Pure."""

from __future__ import annotations

from enum import StrEnum


class Harm(StrEnum):
    """In their order: the first is the worst."""

    METADATA = "metadata"
    RUNNING = "running-guest"
    GUEST = "guest"
    SNAPSHOT = "snapshot"
    UNKNOWN = "unknown-image-data"
    CONTENT = "content"
    WORK = "work"
    IN_FLIGHT = "in-flight"
    SWAP = "swap"
    FREE = "free"

    @property
    def rank(self) -> int:
        return _ORDER.index(self)

    @property
    def heading(self) -> str:
        return _WORDS[self][0]

    @property
    def meaning(self) -> str:
        return _WORDS[self][1]

    @property
    def harmless(self) -> bool:
        """Nobody reads what is there."""
        return self is Harm.FREE


_ORDER = tuple(Harm)
_WORDS = {
    Harm.METADATA: (
        "Metadata of the storage's own file system",
        "The two nodes see different folders, files or free space: what one node writes next may land on the other's "
        "data, and a file system that finds it out goes read-only. Repair this first.",
    ),
    Harm.RUNNING: (
        "Data in a file system of a guest that runs",
        "The guest reads one node's copy now, and the other one after a migration or the loss of this node: a file, "
        "or the guest's own file system, may be damaged.",
    ),
    Harm.GUEST: (
        "Data in a file system of a guest that does not run",
        "Which of the two copies the guest gets depends on the node it is started on.",
    ),
    Harm.SNAPSHOT: (
        "Data in a snapshot",
        "The snapshot is not the same on both nodes: a rollback or a clone of it may bring back damaged data. The "
        "guest as it runs now is not touched by it, unless its own image is named above.",
    ),
    Harm.UNKNOWN: (
        "Data in an image, of unknown kind",
        "It belongs to no partition or to one without a known file system: a boot loader, a database on a bare disk, "
        "a machine's memory or nothing at all. Take it for data.",
    ),
    Harm.CONTENT: (
        "Backups, ISO images, templates and other files",
        "The file may be damaged on one of the nodes: a restore from it may fail, or bring back damaged data, "
        "depending on where it is done.",
    ),
    Harm.WORK: (
        "Work in progress, or files that are being removed",
        "What is unfinished is written anew or thrown away: it matters only if it is still there the next time.",
    ),
    Harm.IN_FLIGHT: (
        "Memory that was changed while it was written, as DRBD's log says",
        "A program changed its data while a write that has these blocks was under way, and the nodes were given different ones. The "
        "difference is real, and as a rule harmless: such a program writes them again before it counts on them, and then they are the "
        "same. That the same blocks have been damaged by something else as well cannot be ruled out: if they still differ the next "
        "time, take them for data.",
    ),
    Harm.SWAP: (
        "Swap of a guest",
        "As a rule harmless: a program that changes its memory while that is being swapped out leaves just such "
        "differences, and the guest writes that memory again before it reads it. A restart forgets all of it, unless "
        "the guest hibernates. Where other data differ too, have the guest forget it (swapoff and swapon, or a restart) "
        "before it migrates.",
    ),
    Harm.FREE: (
        "Free or never written",
        "Nobody reads it: what is there is written before it is read. Harmless.",
    ),
}
