"""From files and the bytes they hold to what people ask: per guest, image and snapshot, and all of it adding up. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pvedrbdstor.space.look import File, plain
from pvedrbdstor.space.places import Held, by_label, members, of_group, set_of
from pvedrbdstor.space.whose import Top, is_image, whose
from pvedrbdstor.verify.owners import Kind
from pvedrbdstor.volumes.names import is_snapshot


@dataclass(frozen=True, slots=True)
class Snapshot:
    """allocated, shared, exclusive, frees: bytes, None for one inside a qcow2 image, which does not tell.

    created: seconds since 1970. stray: of an earlier image of that name, which nobody sees.
    """

    name: str
    created: int | None
    apparent: int
    allocated: int | None = None
    shared: int | None = None
    exclusive: int | None = None
    frees: int | None = None
    inside: bool = False
    stray: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """apparent to exclusive: bytes of the image's file alone. frees: what goes with it and all its snapshots, as
    'volume free' removes both. snapshots_free: what goes with all of its snapshots while it stays."""

    volume: str
    format: str
    backing: str | None
    apparent: int
    allocated: int
    shared: int
    exclusive: int
    frees: int
    snapshots_free: int
    snapshots: tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True)
class Guest:
    """All files of one guest, bytes that several of them hold counted once. shared: with anybody else, who holds on to
    them; shares_with: the guests among those. frees: what goes with all of it, of which snapshots_only no image has."""

    vmid: int
    apparent: int
    allocated: int
    shared: int
    exclusive: int
    frees: int
    snapshots_only: int
    shares_with: tuple[int, ...]
    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """A template's guest, and the guests that hold blocks of its images or are backed by them; what goes with all."""

    template: int
    clones: tuple[int, ...]
    allocated: int
    frees: int


@dataclass(frozen=True, slots=True)
class Other:
    """Files that are no guest's, by what they are."""

    what: str
    files: int
    apparent: int
    allocated: int
    shared: int
    exclusive: int
    frees: int


@dataclass(frozen=True, slots=True)
class Account:
    """in_files: bytes of the device that any file has. between: those that files of several guests, or of a guest and
    what is no guest's, hold: in_files is that and what each guest and each of the others frees."""

    guests: tuple[Guest, ...] = ()
    families: tuple[Family, ...] = ()
    others: tuple[Other, ...] = ()
    between: int = 0
    in_files: int = 0
    extents: int = 0


def account(files: Sequence[File], sets: Mapping[int, int]) -> Account:
    """sets: of these files, by their place in the sequence (places.sets_of_files)."""
    images = {file.owner.path: file for file in files if is_image(file.owner)}
    tops = [whose(file.owner, images) for file in files]
    units = [file.owner.image or file.owner.path for file in files]
    held = _Held(
        file=by_label(sets, range(len(files))),
        image=by_label(sets, list(zip(tops, units, strict=True))),
        part=by_label(sets, [(unit, _is_snapshot_of(f, images)) for f, unit in zip(files, units, strict=True)]),
        snapshots=by_label(sets, [(top, is_image(f.owner)) for f, top in zip(files, tops, strict=True)]),
        top=by_label(sets, tops),
    )
    groups: dict[Top, list[int]] = {}
    for at, top in enumerate(tops):
        groups.setdefault(top, []).append(at)
    partners = _partners(sets, tops)
    guests = sorted(top for top in groups if isinstance(top, int))
    words = sorted(top for top in groups if isinstance(top, str))
    in_files = sum(sets.values())
    return Account(
        guests=tuple(_guest(vmid, files, groups[vmid], held, partners.get(vmid, ())) for vmid in guests),
        families=tuple(_families(files, sets, tops, groups, images)),
        others=tuple(_other(word, files, groups[word], held.top.get(word, Held())) for word in words),
        between=in_files - sum(group.alone for group in held.top.values()),
        in_files=in_files,
        extents=sum(len(file.places) for file in files),
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """What files hold together, by ever larger groups of them."""

    file: Mapping[int, Held] = field(default_factory=dict)
    image: Mapping[tuple[Top, str], Held] = field(default_factory=dict)
    part: Mapping[tuple[str, bool], Held] = field(default_factory=dict)
    snapshots: Mapping[tuple[Top, bool], Held] = field(default_factory=dict)
    top: Mapping[Top, Held] = field(default_factory=dict)


def _is_snapshot_of(file: File, images: Mapping[str, File]) -> bool:
    """Whether it belongs to the image there is, and not to an earlier one of that name."""
    image = images.get(file.owner.image) if file.owner.kind is Kind.SNAPSHOT else None
    return image is not None and file.mark is not None and file.mark.image == image.id


def _guest(vmid: int, files: Sequence[File], own: Sequence[int], held: _Held, partners: Iterable[int]) -> Guest:
    together = held.top.get(vmid, Held())
    return Guest(
        vmid=vmid,
        apparent=sum(files[at].apparent for at in own),
        allocated=together.held,
        shared=together.shared,
        exclusive=together.alone,
        frees=together.alone,
        snapshots_only=held.snapshots.get((vmid, False), Held()).alone,
        shares_with=tuple(partners),
        images=tuple(_image(vmid, at, files, own, held) for at in own if is_image(files[at].owner)),
    )


def _image(vmid: int, at: int, files: Sequence[File], own: Sequence[int], held: _Held) -> Image:
    file, alone = files[at], held.file.get(at, Held())
    path = file.owner.path
    mine = [other for other in own if files[other].owner.image == path and other != at]
    snapshots = [
        _snapshot(files[other], held.file.get(other, Held()), not _is_snapshot_of(files[other], {path: file}))
        for other in mine
    ]
    snapshots += [Snapshot(plain(inner.name), inner.timestamp, inner.virtual_size, inside=True) for inner in file.inner]
    return Image(
        volume=f"{vmid}/{posixpath.basename(path)}",
        format=file.owner.format,
        backing=None if file.backing is None else plain(file.backing),
        apparent=file.apparent,
        allocated=alone.held,
        shared=alone.shared,
        exclusive=alone.alone,
        frees=held.image.get((vmid, path), Held()).alone,
        snapshots_free=held.part.get((path, True), Held()).alone,
        snapshots=tuple(sorted(snapshots, key=lambda snapshot: (snapshot.created or 0, snapshot.name))),
    )


def _snapshot(file: File, held: Held, stray: bool) -> Snapshot:
    mark, name = file.mark, file.owner.snapshot
    return Snapshot(
        name=name if is_snapshot(name) else plain(name),
        created=mark.created if mark else None,
        apparent=file.apparent,
        allocated=held.held,
        shared=held.shared,
        exclusive=held.alone,
        frees=held.alone,
        stray=stray,
    )


def _other(what: str, files: Sequence[File], own: Sequence[int], held: Held) -> Other:
    apparent = sum(files[at].apparent for at in own)
    return Other(what, len(own), apparent, held.held, held.shared, held.alone, held.alone)


def _partners(sets: Mapping[int, int], tops: Sequence[Top]) -> dict[Top, tuple[int, ...]]:
    """With which other guests each guest shares bytes."""
    found: dict[Top, set[int]] = {}
    for files in sets:
        holders = {top for at in members(files) if isinstance(top := tops[at], int)}
        if len(holders) > 1:
            for top in holders:
                found.setdefault(top, set()).update(holders - {top})
    return {top: tuple(sorted(others)) for top, others in found.items()}


def _families(
    files: Sequence[File],
    sets: Mapping[int, int],
    tops: Sequence[Top],
    groups: Mapping[Top, Sequence[int]],
    images: Mapping[str, File],
) -> Iterable[Family]:
    bases: dict[int, list[int]] = {}
    for at, file in enumerate(files):
        if (
            is_image(file.owner)
            and posixpath.basename(file.owner.path).startswith("base-")
            and file.owner.vmid is not None
        ):
            bases.setdefault(file.owner.vmid, []).append(at)
    backed = _backed(files, images)
    for vmid, own in sorted(bases.items()):
        base = set_of(own)
        clones = {tops[at] for shared in sets if shared & base for at in members(shared)}
        clones |= {tops[at] for path in (files[number].owner.path for number in own) for at in backed.get(path, ())}
        guests = sorted(top for top in clones if isinstance(top, int) and top != vmid)
        if guests:
            held = of_group(sets, set_of(at for guest in (vmid, *guests) for at in groups[guest]))
            yield Family(vmid, tuple(guests), held.held, held.alone)


def _backed(files: Sequence[File], images: Mapping[str, File]) -> dict[str, list[int]]:
    """The files that read from an image of the storage, by that image's path."""
    found: dict[str, list[int]] = {}
    for at, file in enumerate(files):
        if file.backing is not None and file.backing in images:
            found.setdefault(file.backing, []).append(at)
    return found
