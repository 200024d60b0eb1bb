"""Both nodes of a setup: this one in this process, the other one by ssh as Proxmox's nodes do it, by our own program there."""

from __future__ import annotations

import base64
import json
import shlex
import zlib
from dataclasses import dataclass

from pvedrbdstor import command, nodes
from pvedrbdstor.errors import CommandFailed, Error, SetupRefused
from pvedrbdstor.nodes import asking, host_key
from pvedrbdstor.setup import exact, facts, hands, look, measure, values
from pvedrbdstor.setup import journal as journals
from pvedrbdstor.setup.facts import Facts
from pvedrbdstor.setup.hands import Outcome
from pvedrbdstor.setup.journal import Journal
from pvedrbdstor.setup.link import Measured
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.steps import NotNow, Step

FACTS_MAX = 64 << 20
"""Bytes of a node's facts: each file in them may have half a MiB, and there may be many resources."""
_LOOK_SECONDS = 60.0
_ALIVE_SECONDS = 30
_REQUEST_MAX = 8 << 20  # bytes of its JSON


@dataclass(frozen=True, slots=True)
class Both:
    """The nodes as apply() wants them. own: this node's name. storage: for messages."""

    own: str
    storage: str

    def look(self, node: str) -> Facts:
        """Raises SetupRefused where the other node cannot be asked or has another version, and what look.look() raises."""
        if node == self.own:
            return look.look()
        try:
            said = self._ask(node, ["setup", "facts", "--json"])
            return facts.parse(said)
        except SetupRefused:
            raise
        except Error as error:
            raise self._unreachable(node, nodes.why_not(error)) from error
        except values.Malformed as error:
            raise self._unreachable(node, str(error)) from error

    def record(self, node: str, device: str) -> str:
        """As exact.record() on that node. Raises SetupRefused where it cannot be told."""
        try:
            if node == self.own:
                return exact.record(device)
            return self._ask(node, ["setup", "signatures", device]).strip()
        except NotNow as refusal:
            raise SetupRefused(
                storage=self.storage, cause=str(refusal).rstrip("."), remedy=f"Look at {device} on {node}"
            ) from refusal
        except Error as error:
            if node == self.own or isinstance(error, SetupRefused):
                raise
            raise self._unreachable(node, nodes.why_not(error)) from error

    def measure(self, plan: Plan) -> Measured:
        """The plan's link, on the port that DRBD will have. Changes nothing; a failure is in the answer."""
        (other,) = (node for node in plan.link.addresses if node != self.own)
        addresses = plan.link.addresses
        route = measure.Route(
            self.own, other, addresses[self.own], addresses[other], plan.port, min(plan.link.mtus.values())
        )
        return measure.measure(route)

    def _ask(self, node: str, words: list[str]) -> str:
        line = nodes.line(node, words, alive=_ALIVE_SECONDS)
        said = command.run(line, timeout=_LOOK_SECONDS, limit=FACTS_MAX).stdout
        if len(said.encode("utf-8", "replace")) >= FACTS_MAX:
            raise SetupRefused(
                storage=self.storage,
                cause=f"{node} has more to tell than {FACTS_MAX >> 20} MiB",
                remedy="Look there at 'pvedrbdstor setup facts --json': which file in it is that long?",
            )
        return said

    def carry_out(self, step: Step, again: bool) -> Outcome:
        """Raises CommandFailed, CommandTimeout where the other node cannot be reached, or ends meanwhile."""
        if step.node == self.own:
            return hands.carry_out(step, again)
        line = nodes.line(step.node, ["setup", "step", request(step, again)], alive=_ALIVE_SECONDS)
        said = command.run(line, timeout=hands.seconds(step.kind)).stdout
        try:
            return values.decode(Outcome, json.loads(said))
        except ValueError as error:
            shown = shlex.join(line[:-1])
            raise CommandFailed(
                command=shown, status="exit status 0", output=f"its answer is not understood: {error}"
            ) from error

    def save(self, storage: str, journal: Journal) -> None:
        journals.write(storage, journal)

    def _unreachable(self, node: str, why: str) -> SetupRefused:
        return SetupRefused(
            storage=self.storage,
            cause=f"{node} could not be asked ({why})",
            remedy=f"Install the same pvedrbdstor there; '{asking(nodes.way(node), 'pvedrbdstor --version')}' has to print its version; {host_key(node)}",
        )


def request(step: Step, again: bool) -> str:
    """What `setup step` is asked for, as one word of a command line, which must be shorter than 128 KiB (MAX_ARG_STRLEN): Debian's
    lvm.conf alone, quoted, is not."""
    text = json.dumps({"again": again, "step": values.encode(step)})
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def step_of(word: str) -> tuple[Step, bool]:
    """The step in a request, and whether it was begun before. Raises Malformed."""
    try:
        inflate = zlib.decompressobj()
        data = json.loads(inflate.decompress(base64.b64decode(word, validate=True), _REQUEST_MAX))
    except (ValueError, zlib.error) as error:
        raise values.Malformed(f"it is not understood ({error})") from error
    if not inflate.eof:
        raise values.Malformed("it is cut off, or too long")
    if not isinstance(data, dict) or set(data) != {"again", "step"} or not isinstance(data["again"], bool):
        raise values.Malformed("it is no step")
    return values.decode(Step, data["step"]), data["again"]
