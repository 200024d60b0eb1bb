"""What differences mean, as values and as JSON; made by where.py, told by where_text.py, judged by repairs.py. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pvedrbdstor.verify.guests import Guest
from pvedrbdstor.verify.harm import Harm
from pvedrbdstor.verify.image import Part


@dataclass(frozen=True, slots=True)
class Found:
    """Differences of one kind in one file, or in no file.

    path: fit to be shown, empty in no file. region: where in it, in words. parts: the first ones; count, bytes: of
    all. shared: other files that have some of the same blocks, the first ones. intact: the newest snapshots of the
    image that are known to have none of the differing blocks, oldest first. used: which guests name the image, in words.
    partition, holds: as in Region. perhaps_in_flight: it may be memory that was changed while it was written, as the disk of a VM that runs
    is written with O_DIRECT; nothing proves it.
    """

    harm: Harm
    path: str
    what: str
    region: str
    parts: tuple[Part, ...]
    count: int
    bytes: int
    vmid: int | None = None
    guest: Guest | None = None
    snapshot: str = ""
    shared: tuple[str, ...] = ()
    intact: tuple[str, ...] = ()
    used: str = ""
    partition: int | None = None
    holds: str = ""
    perhaps_in_flight: bool = False


@dataclass(frozen=True, slots=True)
class Meaning:
    """found: the worst first. ranges, bytes: that were asked for. remarks: what could not be looked at. watched: whether DRBD looks for memory
    that is changed while it is written (`data-integrity-alg`), None where that is not known."""

    found: tuple[Found, ...]
    ranges: int
    bytes: int
    remarks: tuple[str, ...] = ()
    watched: bool | None = None

    @property
    def worst(self) -> Harm | None:
        """None where nothing differs."""
        return self.found[0].harm if self.found else None

    def of(self, *harms: Harm) -> Iterator[Found]:
        return (found for found in self.found if found.harm in harms)


def from_plain(value: Mapping[str, Any]) -> Meaning:
    """Of what dataclasses.asdict() has made of one, also by way of JSON."""
    return Meaning(
        tuple(_found_from(found) for found in value["found"]),
        value["ranges"],
        value["bytes"],
        tuple(value["remarks"]),
        value["watched"],
    )


def _found_from(value: Mapping[str, Any]) -> Found:
    found = {
        **value,
        "harm": Harm(value["harm"]),
        "parts": tuple(Part(**part) for part in value["parts"]),
        "guest": Guest(**value["guest"]) if value["guest"] is not None else None,
        "shared": tuple(value["shared"]),
        "intact": tuple(value["intact"]),
    }
    return Found(**found)


def as_json(meaning: Meaning, most: int = 100) -> dict[str, object]:
    """most: of the parts of each. All offsets and lengths are bytes."""
    return {
        "ranges": meaning.ranges,
        "bytes": meaning.bytes,
        "worst": meaning.worst,
        "found": [_found_as_json(found, most) for found in meaning.found],
        "remarks": list(meaning.remarks),
    }


def _found_as_json(found: Found, most: int) -> dict[str, object]:
    guest = found.guest
    return {
        "harm": found.harm.value,
        "path": found.path or None,
        "what": found.what,
        "region": found.region or None,
        "partition": found.partition,
        "holds": found.holds or None,
        "vmid": found.vmid,
        "guest": {"kind": guest.kind, "name": guest.name, "node": guest.node, "runs": guest.runs} if guest else None,
        "used-by": found.used or None,
        "snapshot": found.snapshot or None,
        "perhaps-in-flight": found.perhaps_in_flight,
        "shared-with": list(found.shared),
        "intact-snapshots": list(found.intact),
        "count": found.count,
        "bytes": found.bytes,
        "parts": [
            {"offset": part.offset, "length": part.length, "device-offset": part.device, "guest-offset": part.guest}
            for part in found.parts[:most]
        ],
    }
