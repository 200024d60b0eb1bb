"""What of the device the mounted file system uses: its own map of clusters, and where each image lies. Reads only."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import ExitStack
from typing import NamedTuple

from pvedrbdstor import native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.errors import NotOcfs2, VerifyRefused
from pvedrbdstor.mirror.extents import Ranges, pieces
from pvedrbdstor.mirror.mount import mirror
from pvedrbdstor.mirror.walk import walk
from pvedrbdstor.ocfs2.inodes import BadBlock
from pvedrbdstor.ocfs2.superblock import READ_SIZE, parse_superblock
from pvedrbdstor.verify.direct import Reader
from pvedrbdstor.verify.space import Space

_EVERYWHERE = Ranges([(0, 1 << 63)])


class Places(NamedTuple):
    """at: bytes of the device, one of each file. failed: files and folders that could not be looked into."""

    at: tuple[int, ...]
    failed: int = 0


def finding_what_is_in_use(config: StorageConfig, device: str) -> Generator[None, None, tuple[Range, ...]]:
    """Every cluster that has a file or metadata of the file system, in order; what is allocated later is not among them.

    In small steps, so that one can tell what is slow from what hangs. Raises VerifyRefused where the map cannot be
    read, NotMounted, WrongMount, OSError.
    """
    with mirror(config) as opened, ExitStack() as stack:
        native.fstatfs(opened.root_fd)  # lets the other node bring its map of clusters to the disk (space.py)
        views = [stack.enter_context(Reader(device, buffered=buffered)) for buffered in (False, True)]
        yield
        found = []
        try:
            superblock = parse_superblock(views[0].read(0, READ_SIZE), device)
            for part in Space(superblock, [view.read for view in views], ()).in_use():
                found.append(part)
                yield
        except (BadBlock, NotOcfs2) as error:
            raise VerifyRefused(
                storage=config.id,
                cause=f"what is allocated cannot be told ({str(error).rstrip('.')})",
                remedy=f"Compare all of it: 'pvedrbdstor verify {config.id} --mode full'",
            ) from error
        return merged(found)


def finding_one_byte_of_each(config: StorageConfig, dice: random.Random) -> Generator[None, None, Places]:
    """A place on the device at random out of each file of the storage that has any: images, their snapshots, whatever else is there.

    A step for each file. What cannot be looked into is passed over and counted: it is no reason to compare nothing.
    Raises NotMounted, WrongMount.
    """
    failures: list[OSError] = []
    found = []
    with mirror(config) as opened:
        for entry in walk(opened.root_fd, failed=failures.append):
            try:
                chosen = _one_of(entry.fd, entry.path, dice)
            except OSError as error:
                failures.append(error)
                chosen = None
            if chosen is not None:
                found.append(chosen)
            yield
    return Places(tuple(found), len(failures))


def _one_of(fd: int, path: str, dice: random.Random) -> int | None:
    """Each written byte of the file with the same chance, in one pass over its extents."""
    seen, chosen = 0, None
    for piece in pieces(native.fiemap(fd, path=path), _EVERYWHERE):
        if not piece.unwritten:
            seen += piece.length
            if dice.randrange(seen) < piece.length:
                chosen = piece.physical + dice.randrange(piece.length)
    return chosen
