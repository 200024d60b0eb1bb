"""What one node knows of a split: its copy, when the nodes parted, and which files it has changed. Values, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pvedrbdstor.drbd.generation_ids import Identifiers, parse
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import BadRequest

FORMAT = 3


@dataclass(frozen=True, slots=True)
class FileState:
    """path: relative to the mount. modified, status_changed: mtime and ctime, ns since 1970. used: bytes with data. changed: parts
    on blocks that this side has, or may have, written since the copies parted. sure: bytes of those that it has."""

    path: str
    size: int
    used: int
    modified: int
    changed: tuple[Range, ...] = ()
    sure: int = 0
    status_changed: int = 0
    inode: int = 0

    @property
    def touched(self) -> int:
        """When it was last changed in any way, ns since 1970: anybody may set the time of modification back, nobody the other
        one, which also punching holes, truncating and renaming move on (inode(7))."""
        return max(self.modified, self.status_changed)

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """What stays the same as long as nobody changes the file."""
        return (self.inode, self.size, self.modified, self.status_changed)


@dataclass(frozen=True, slots=True)
class Side:
    """One node. Times are seconds since 1970, None where nobody here knows.

    role, disk, connection: DRBD's words, None while the resource is down. identifiers: the line of `drbdadm get-gi`.
    met: DRBD has met the other node since they parted, and found a split brain. refused: the other node hung up before DRBD here
    could, perhaps because it has found one. since: when the copies parted. detected: when
    DRBD found it. mounted: the files were looked at. hint: the bitmap was read whole, else every file may have changed.
    blocks: ranges of the device that have, or may have, changed. digests: path -> one for each chunk of the file's changed parts. remarks: sentences.
    resource, volume: of DRBD. resolving: a resolution that discards this node's copy is open, and keeps that node's.
    """

    storage: str
    node: str
    at: float
    role: str | None = None
    disk: str | None = None
    connection: str | None = None
    peer_disk: str | None = None
    identifiers: str | None = None
    met: bool = False
    refused: bool = False
    since: float | None = None
    detected: float | None = None
    mounted: bool = False
    hint: bool = False
    blocks: tuple[Range, ...] = ()
    files: tuple[FileState, ...] = ()
    digests: Mapping[str, tuple[str, ...]] | None = None
    remarks: tuple[str, ...] = ()
    resource: str = ""
    volume: int = 0
    resolving: str | None = None

    @property
    def ids(self) -> Identifiers | None:
        return parse(self.identifiers) if self.identifiers is not None else None

    @property
    def connected(self) -> bool:
        return self.connection == "Connected"


def as_json(side: Side) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(side)}


def from_json(data: object) -> Side:
    """Raises BadRequest for what no `split-brain show --local --json` of this version wrote."""
    try:
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ValueError("its format is another one")
        values = {key: data[key] for key in Side.__slots__}
        values["blocks"] = _ranges(values["blocks"])
        values["files"] = tuple(file_from_json(file) for file in values["files"])
        values["at"], values["volume"] = float(values["at"]), int(values["volume"])
        if values["digests"] is not None:
            values["digests"] = {str(path): tuple(map(str, found)) for path, found in values["digests"].items()}
        values["remarks"] = tuple(map(str, values["remarks"]))
        return Side(**values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        detail = (
            f"this is not what 'pvedrbdstor split-brain show STORAGE --local --json' of this version prints ({error})"
        )
        raise BadRequest(detail=detail) from error


def file_from_json(file: Mapping[str, Any]) -> FileState:
    """Raises KeyError, TypeError, ValueError for what asdict() of none gave."""
    return FileState(
        path=str(file["path"]),
        size=int(file["size"]),
        used=int(file["used"]),
        modified=int(file["modified"]),
        changed=_ranges(file["changed"]),
        sure=int(file["sure"]),
        status_changed=int(file["status_changed"]),
        inode=int(file["inode"]),
    )


def _ranges(value: Any) -> tuple[Range, ...]:
    return tuple((int(start), int(length)) for start, length in value)
