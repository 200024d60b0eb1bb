"""The ways in which QEMU reads and writes a disk, tried with qemu-io(1), which is QEMU's block layer without a guest. No I/O here."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pvedrbdstor.pve.drives import DIRECT

SIZE = 4 << 20
"""Of the file that is written to, in bytes. Its first half has its blocks already, the second is a hole."""
_SLOTS = 16
_LENGTHS = (512, 4096, 100 * 1024, 33 * 512)
_OFFSETS = (0, 512, 3 * 4096, 7 * 512)


@dataclass(frozen=True, slots=True)
class Mode:
    """As in a guest's configuration: aio=, cache=."""

    aio: str
    cache: str

    def __str__(self) -> str:
        return f"aio={self.aio},cache={self.cache}"


MODES = tuple(
    Mode(aio, cache)
    for aio in ("io_uring", "native", "threads")
    for cache in ("none", "directsync", "writeback", "writethrough")
    if aio != "native" or cache in DIRECT  # QEMU refuses Linux AIO through the page cache
)


class Result(enum.StrEnum):
    """What became of a mode. Only OK is good, and UNSUPPORTED harms nobody who does not use it."""

    OK = "ok"
    UNSUPPORTED = "not supported"
    DIFFERS = "wrong content"
    FAILED = "failed"
    SILENT = "did not answer"
    UNTRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Tried:
    """A mode on a node. detail: in words, empty where all is well."""

    node: str
    mode: Mode
    result: Result
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Stretch:
    offset: int
    length: int
    byte: int


def _stretches(mode: Mode) -> list[_Stretch]:
    """Sectors, blocks, and more than a block, aligned and not; each mode fills them with bytes of its own, 1 to 255."""
    first = MODES.index(mode) * _SLOTS + 1
    room = SIZE // _SLOTS
    return [_Stretch(slot * room + _OFFSETS[slot // 4 % 4], _LENGTHS[slot % 4], first + slot) for slot in range(_SLOTS)]


def command(mode: Mode, name: str) -> list[str]:
    """Write all of it with as many requests under way at once as there are stretches, flush, and read it back in the same mode."""
    done = _stretches(mode)
    words = [f"aio_write -q -P {part.byte} {part.offset} {part.length}" for part in done]
    words += ["aio_flush", "flush"]
    words += [f"read -q -P {part.byte} {part.offset} {part.length}" for part in done]
    options = ["-f", "raw", "-t", mode.cache, "-i", mode.aio]
    return ["qemu-io", *options, *(word for text in words for word in ("-c", text)), f"./{name}"]


def content(mode: Mode) -> bytes:
    """What the whole file holds afterwards."""
    whole = bytearray(SIZE)
    for part in _stretches(mode):
        whole[part.offset : part.offset + part.length] = bytes([part.byte]) * part.length
    return bytes(whole)


def judge(status: int, said: str) -> tuple[Result, str]:
    """From qemu-io's exit status and words. A request that fails says so, whatever the exit status."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if any("verification failed" in line for line in lines):
        return Result.DIFFERS, "QEMU itself reads back other content than it wrote"
    bad = [line for line in lines if "failed" in line or "error" in line.lower() or "can't open" in line]
    if status == 0 and not bad:
        return Result.OK, ""
    detail = _short((bad or lines or [f"qemu-io ended with {status}"])[0])
    refused = any(word in detail.lower() for word in ("io_uring", "io uring", "native aio", "aio=", "linux aio"))
    return (Result.UNSUPPORTED if refused else Result.FAILED), detail


def differing(expected: list[str], found: list[str]) -> int:
    """How many blocks are not what they should be."""
    return sum(1 for pair in zip(expected, found, strict=False) if pair[0] != pair[1]) + abs(len(expected) - len(found))


def _short(line: str) -> str:
    """Without the name of the program and the file, which say nothing."""
    text = line.removeprefix("qemu-io: ")
    if text.startswith("can't open"):
        text = text.partition(": ")[2] or text
    return "".join(letter for letter in text if letter.isprintable())[:200].rstrip(".")
