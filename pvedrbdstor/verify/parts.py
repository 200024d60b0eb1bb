"""Parts of a file that differ, summed up: the first ones are kept, of all others they are counted. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from pvedrbdstor.verify.image import Part

_PARTS_MAX = 1000


@dataclass(slots=True)
class Sum:
    """The first parts; count and bytes of all."""

    parts: list[Part] = field(default_factory=list)
    count: int = 0
    bytes: int = 0

    def add(self, part: Part) -> None:
        """In their order; a part that continues the last one is one with it."""
        if self.parts and _continues(self.parts[-1], part) and self.count <= len(self.parts):
            last = self.parts[-1]
            self.parts[-1] = Part(last.offset, last.device, last.length + part.length, last.guest)
        else:
            self.count += 1
            if len(self.parts) < _PARTS_MAX:
                self.parts.append(part)
        self.bytes += part.length


def _continues(last: Part, part: Part) -> bool:
    step = last.length
    same_guest = part.guest is None if last.guest is None else part.guest == last.guest + step
    return same_guest and (part.offset, part.device) == (last.offset + step, last.device + step)


def cut(part: Part, at: int, length: int) -> Part:
    """The bytes of a part from one of the device on."""
    step = at - part.device
    return Part(part.offset + step, at, length, None if part.guest is None else part.guest + step)
