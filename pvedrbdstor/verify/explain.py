"""What the ranges of an outcome mean and which repairs there are, for its report: asks the mounted file system, Proxmox and DRBD."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import devices, generation
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.errors import Error
from pvedrbdstor.verify import asked, guests, in_flight, meaning, repairs, where_text
from pvedrbdstor.verify.meaning import Meaning
from pvedrbdstor.verify.repairs import ALL, Mirror, Reach, Repair
from pvedrbdstor.verify.report import Outcome

_PROC_DRBD = "/proc/drbd"


@dataclass(frozen=True, slots=True)
class Explanation:
    """missing: why there is no meaning, None where there is one."""

    meaning: Meaning | None = None
    repairs: tuple[Repair, ...] = ()
    missing: str | None = None

    def lines(self) -> Iterator[str]:
        if self.meaning is not None:
            yield from where_text.lines(self.meaning)

    def advice(self) -> Iterator[str]:
        """What can be done, the commands with the nodes they are run on."""
        if self.missing is not None:
            yield f"What lies there could not be told: {self.missing}"
        if self.repairs:
            yield "What can be done (nothing was changed, and which copy is right is for you to find out):"
            yield from where_text.repair_lines(self.repairs)

    def as_json(self) -> dict[str, object]:
        return {
            "meaning": meaning.as_json(self.meaning) if self.meaning is not None else None,
            "repairs": [
                {
                    "title": one.title,
                    "text": one.text,
                    "commands": [{"where": at, "command": do} for at, do in one.commands],
                }
                for one in self.repairs
            ],
        }


def explain(outcome: Outcome, config: StorageConfig, ids: Collection[str], minor: int) -> Explanation:
    """Of what differs; nothing where nothing does. ids: by which Proxmox knows the storage."""
    if not outcome.diverged:
        return Explanation()
    try:
        evidence = in_flight.of_both(config, minor, outcome.there)
        found = asked.ask(
            config,
            outcome.diverged,
            devices.node(minor),
            guests=guests.guests(),
            storages=sorted(ids),
            modified=evidence.writes,
        )
        found = replace(found, remarks=(*found.remarks, *evidence.remarks), watched=evidence.watched)
    except Error as error:
        return Explanation(missing=error.message)
    except OSError as error:
        return Explanation(missing=f"{error.strerror or error}.")
    with open(_PROC_DRBD, encoding="ascii", errors="replace") as file:
        version = generation.from_proc_drbd(file.readline())
    about = Mirror(
        storage=config.id,
        path=config.path,
        resource=config.resource,
        volume=config.volume,
        generation=version or Generation.V9,
        verify_alg=outcome.verify_alg,
    )
    reach = reach_of(outcome)
    if not reach.exact:  # what is known of a snapshot then is only that of the blocks that were met
        found = replace(found, found=tuple(replace(one, intact=()) for one in found.found))
    return Explanation(found, repairs.repairs(found, about, reach))


def reach_of(outcome: Outcome) -> Reach:
    """Blocks that kept changing may differ as well, but are none of an image whose guest is off, or of a snapshot."""
    if outcome.mode == "sample":
        return Reach("Only a sample was compared", exact=False)
    if outcome.mode == "rejoin":
        return Reach("Only what was written while the nodes were apart was compared", exact=False)
    if outcome.much:
        return Reach("So much differs that the search was ended", exact=False)
    if outcome.stopped is not None:
        return Reach("The comparison did not come to its end", exact=False)
    if outcome.unreadable_here or outcome.unreadable_there:
        return Reach("Some of it cannot be read", exact=False)
    return Reach("Some of it kept changing and could not be compared") if outcome.unsettled else ALL
