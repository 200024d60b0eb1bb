"""Whether our own fencing can decide at the next failure: the guard, the arbiter, the times. Rules alone, no I/O."""

from __future__ import annotations

from collections.abc import Iterator

from pvedrbdstor.fencing import status
from pvedrbdstor.fencing.arbiter import Problem, misnamed, pending, problems
from pvedrbdstor.fencing.configured import inputs_of, unknown
from pvedrbdstor.fencing.timeline import timeline
from pvedrbdstor.mirror.facts import Facts
from pvedrbdstor.mirror.finding import Finding, Kind, Severity


def arbitration(facts: Facts) -> Iterator[Finding]:
    """What is against it, for a storage whose fence-peer handler is ours."""
    if facts.guard is None:
        cause = "The guard is not running: after a cut link both nodes freeze and reset themselves"
        yield _unprotected("no-guard", cause, f"Run '{status.START}' and look at 'journalctl -u pvedrbdstor-fence'")
    for problem in arbiter_problems(facts):
        if problem.fatal:
            yield _unprotected(problem.code, problem.cause, problem.remedy)
        else:
            what = f"fencing {problem.code}"
            yield Finding(Kind.DEGRADED, f"{problem.cause}.", f"{problem.remedy}.", Severity.WARNING, what=what)
    if facts.o2cb is not None or facts.mount.mounted is True:
        yield from _times(facts)


def arbiter_problems(facts: Facts) -> tuple[Problem, ...]:
    """Without a guard nobody has asked corosync: that it does not run would be a guess."""
    guard, conf = facts.guard, facts.corosync
    votes = guard.votes if guard is not None else None
    found = [problem for problem in problems(conf, votes) if guard is not None or problem.code != "no-corosync"]
    if guard is not None and votes is not None:
        found += misnamed(conf, votes.node_id, facts.other_hosts)
    waits = pending(conf, guard.timing if guard is not None else None)
    return (*found, waits) if waits is not None else tuple(found)


def _times(facts: Facts) -> Iterator[Finding]:
    in_force = facts.guard.timing if facts.guard is not None else None
    inputs = inputs_of(facts.config, facts.corosync, facts.o2cb, in_force)
    for race in timeline(inputs).races:
        if race.fits is False:
            cause = f"The time-outs do not fit ({race.code}): {race.misfit}"
            yield _unprotected(f"timeline {race.code}", cause, race.remedy(facts.storage, facts.resource))
    # A cluster that is not there is told as such, and needs no second finding.
    missing = [name for name in unknown(inputs) if facts.corosync is not None or not name.startswith("corosync")]
    if missing:
        cause = f"It is not known whether fencing decides in time: {_list(missing)} could not be read"
        yield _unprotected("timeline unknown", cause, f"Run 'pvedrbdstor fencing timeline {facts.storage}'")


def _list(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _unprotected(what: str, cause: str, remedy: str) -> Finding:
    return Finding(Kind.UNPROTECTED, f"{cause}.", f"{remedy}.", Severity.ERROR, what=f"fencing {what}")
