"""What was measured of the link that replicates, and what follows from it: DRBD's rates, what to know, what is in the way. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pvedrbdstor.setup.network import Link
from pvedrbdstor.setup.steps import Refusal

_DIGITS = 2
_AS_TOLD = 0.9
"""What is left for data beside the headers: 0.94 of a full link at an MTU of 1500, 0.99 at 9000."""
_SLOW = 0.5
_LATE = 1000  # µs


@dataclass(frozen=True, slots=True)
class Measured:
    """rates: node -> Mbit/s that it received over one TCP connection, as DRBD has one for its data. round_trip: µs, the median.

    passes: whether segments of the full MTU came through, both ways; None where that was not tried. problem, remedy: why there are no
    rates, a clause, and what to do, a sentence without the full stop. All numbers are rounded, so that a plan made again is the same.
    """

    rates: Mapping[str, int]
    round_trip: int | None = None
    passes: bool | None = None
    problem: str | None = None
    remedy: str | None = None

    @property
    def rate(self) -> int | None:
        """Of the slower direction."""
        return min(self.rates.values(), default=None)


def rounded(number: float) -> int:
    """To two digits."""
    whole = round(number)
    return round(whole, min(0, _DIGITS - len(str(whole))))


def speed(link: Link, measured: Measured | None) -> int | None:
    """Mbit/s to go by: what was measured, unless that is all that the driver tells, but for headers; None where neither is known."""
    rate = None if measured is None else measured.rate
    if rate is None or link.speed is None:
        return link.speed if rate is None else rate
    return link.speed if rate >= link.speed * _AS_TOLD else rate


def refusals(link: Link, measured: Measured | None) -> Iterator[Refusal]:
    """DRBD's connection would come up, and hang with its first block."""
    if measured is not None and measured.passes is False:
        mtu = min(link.mtus.values())
        yield Refusal(
            f"packets as long as the MTU of {link.network} allows, {mtu} bytes, do not come through between {' and '.join(link.addresses.values())}",
            f"Let every switch between them pass {mtu} bytes, or give both interfaces what it does pass, such as 'mtu 1500' in "
            "/etc/network/interfaces, then plan again",
        )


def words(link: Link, measured: Measured | None) -> str:
    """The link in one line, such as `9.4 Gbit/s measured (10 Gbit/s told), 0.09 ms, MTU 9000 passes`."""
    told = f"{_speed(link.speed)} told" if link.speed is not None else "the driver tells no speed"
    mtu = f"MTU {' and '.join(str(mtu) for mtu in sorted(set(link.mtus.values())))}"
    if measured is None or measured.rate is None:
        return f"{told}, {mtu}, not measured"
    parts = [f"{_speed(measured.rate)} measured ({told})"]
    if measured.round_trip is not None:
        parts.append(f"{measured.round_trip / 1000:.2g} ms")
    return ", ".join([*parts, f"{mtu} passes" if measured.passes else mtu])


def notes(link: Link, measured: Measured | None, opened: bool) -> Iterator[str]:
    """What to know before, a sentence each. opened: the plan opens a firewall for DRBD's port."""
    goes_by = "go by what the driver tells" if link.speed is not None else "stay what they are by default"
    if measured is None:
        yield f"{link.network} was not measured, as you have said: DRBD's rates and buffers {goes_by}."
        return
    rate = measured.rate
    if rate is None:
        later = " 'setup apply' opens Proxmox's own, which is on." if opened else ""
        yield (
            f"{link.network} could not be measured: {measured.problem}. DRBD's rates and buffers {goes_by}. {measured.remedy}, then plan "
            f"again.{later}"
        )
        return
    if link.speed is not None and rate < link.speed * _SLOW:
        yield (
            f"{link.network} gave {_speed(rate)} of the {_speed(link.speed)} that its driver tells, to one TCP connection, as DRBD has. "
            "DRBD's rates go by that. Look for other traffic, at the cable, the switch and the ports ('ethtool -S'); a bond gives one connection "
            "no more than one of its links."
        )
    if max(measured.rates.values()) * _SLOW > rate:
        each = ", ".join(f"{_speed(got)} to {node}" for node, got in sorted(measured.rates.items()))
        yield f"{link.network} is far slower in one direction than in the other ({each}): look at the cable and the ports."
    if measured.round_trip is not None and measured.round_trip > _LATE:
        late = f"{measured.round_trip / 1000:.2g}"
        yield f"A round trip on {link.network} takes {late} ms, which each synchronous write of a guest waits for."


def _speed(speed: int) -> str:
    return f"{speed / 1000:g} Gbit/s" if speed >= 1000 else f"{speed} Mbit/s"
