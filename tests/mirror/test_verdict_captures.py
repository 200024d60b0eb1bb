"""Every captured state of real clusters, on each node, and its verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor.drbd.history import Loss
from pvedrbdstor.mirror.facts import Mount
from pvedrbdstor.mirror.verdict import verdict_of
from tests.drbd.support import FILES
from tests.mirror.capture_facts import facts_of

HANGS = Mount(True, silent=10.0)  # these captures were cut short by commands that hung
WRITER = Loss(seconds=10.0, peer_role="Primary", split_brain=False)
WRITER_DEAD = Loss(seconds=75.0, peer_role="Primary", split_brain=False)
WRITER_MET = Loss(seconds=90.0, peer_role="Primary", split_brain=True)
READER = Loss(seconds=300.0, peer_role="Secondary", split_brain=False)

# capture; what is known of the lost peer; the verdict and what else was found, the gravest first;
# u usable here, a active, n new guests admitted
TABLE: list[tuple[str, Loss | None, str, str]] = [
    ("8.4/01-connected-inconsistent-secondary.a", None, "inconsistent not-up unprotected degraded", "---"),
    ("8.4/01-connected-inconsistent-secondary.b", None, "inconsistent not-up unprotected degraded", "---"),
    ("8.4/02-connected-uptodate-secondary.a", None, "not-up unprotected", "---"),
    ("8.4/02-connected-uptodate-secondary.b", None, "not-up unprotected", "---"),
    ("8.4/03-dual-primary-nofs.a", None, "not-up unprotected", "---"),
    ("8.4/03-dual-primary-nofs.b", None, "not-up unprotected", "---"),
    ("8.4/04-mounted-both.a", None, "unprotected", "uan"),
    ("8.4/04-mounted-both.b", None, "unprotected", "uan"),
    ("8.4/05-connected-primary-secondary-a-mounted.a", None, "unprotected", "uan"),
    ("8.4/05-connected-primary-secondary-a-mounted.b", None, "not-up unprotected", "---"),
    ("8.4/F1-cut-10s-DRBD-WFConnection.a", WRITER, "unprotected degraded", "ua-"),
    ("8.4/F1-cut-10s-DRBD-WFConnection.b", WRITER, "unprotected degraded", "ua-"),
    ("8.4/F1b-cut-both-diverged-primary-unknown.a", WRITER_DEAD, "split-brain unprotected", "ua-"),
    ("8.4/F1b-cut-both-diverged-primary-unknown.b", WRITER_DEAD, "split-brain unprotected", "ua-"),
    ("8.4/F2-splitbrain-standalone.a", WRITER_MET, "split-brain unprotected", "ua-"),
    ("8.4/F2-splitbrain-standalone.b", WRITER_MET, "split-brain unprotected", "ua-"),
    ("8.4/F3-resync-in-progress.a", None, "unprotected degraded", "uan"),
    ("8.4/F3-resync-in-progress.b", None, "not-up unprotected degraded", "---"),
    ("8.4/F4-b-diskless-mounted.a", None, "unprotected degraded", "uan"),
    ("8.4/F4-b-diskless-mounted.b", None, "degraded", "uan"),
    ("8.4/F5a-b-down.a", READER, "unprotected degraded", "uan"),
    ("8.4/F5a-b-down.b", None, "not-up", "---"),
    ("8.4/F5b-verify-running.a", None, "unprotected", "uan"),
    ("8.4/F5b-verify-running.b", None, "not-up unprotected", "---"),
    ("8.4/F5c-verify-done-oos.a", None, "unprotected degraded", "uan"),
    ("8.4/F5c-verify-done-oos.b", None, "not-up unprotected degraded", "---"),
    ("8.4/F5d-disconnected-standalone-nosb.a", READER, "unprotected degraded", "uan"),
    ("8.4/F5d-disconnected-standalone-nosb.b", WRITER, "stale not-up unprotected", "---"),
    ("8.4/F6a-peer-killed-10s.a", WRITER, "unprotected degraded", "ua-"),
    ("8.4/F6b-peer-killed-80s.a", WRITER_DEAD, "split-brain unprotected", "ua-"),
    ("8.4/F6c-rejoined-after-kill.a", None, "unprotected", "uan"),
    ("8.4/F6c-rejoined-after-kill.b", None, "unprotected", "uan"),
    ("8.4/F7-a-local-io-error-diskless.a", None, "unprotected degraded", "uan"),
    ("8.4/F7-a-local-io-error-diskless.b", None, "unprotected degraded", "uan"),
    ("8.4/F7b-dualprimary-synctarget.a", None, "unprotected degraded", "uan"),
    ("8.4/F7b-dualprimary-synctarget.b", None, "unprotected degraded", "uan"),
    ("8.4/T3-cut-undetected-pending-io.a", None, "unprotected", "uan"),
    ("8.4/T3a-fencing-suspended.a", WRITER, "suspended degraded", "---"),
    ("8.4/T3a-fencing-suspended.b", WRITER, "suspended degraded", "---"),
    ("8.4/T3b-after-fence-a-resumed.a", WRITER, "unprotected degraded", "uan"),
    ("8.4/T3x-a-partial-then-selffenced.a", WRITER, "suspended unprotected degraded", "---"),
    ("9/01-connected-inconsistent-secondary.a", None, "inconsistent not-up unprotected degraded", "---"),
    ("9/01-connected-inconsistent-secondary.b", None, "inconsistent not-up unprotected degraded", "---"),
    ("9/02-connected-uptodate-secondary.a", None, "not-up unprotected", "---"),
    ("9/02-connected-uptodate-secondary.b", None, "not-up unprotected", "---"),
    ("9/03-dual-primary-nofs.a", None, "not-up unprotected", "---"),
    ("9/03-dual-primary-nofs.b", None, "not-up unprotected", "---"),
    ("9/04-mounted-both.a", None, "unprotected", "uan"),
    ("9/04-mounted-both.b", None, "unprotected", "uan"),
    ("9/05-cut-10s-connecting.a", WRITER, "unprotected degraded", "ua-"),
    ("9/05-cut-10s-connecting.b", WRITER, "unprotected degraded", "ua-"),
    ("9/06-cut-75s-diverged.a", WRITER_DEAD, "split-brain unprotected", "ua-"),
    ("9/06-cut-75s-diverged.b", WRITER_DEAD, "split-brain unprotected", "ua-"),
    ("9/07-splitbrain-standalone.a", WRITER_MET, "split-brain unprotected", "ua-"),
    ("9/07-splitbrain-standalone.b", WRITER_MET, "split-brain unprotected", "ua-"),
    ("9/08-resync-in-progress.a", None, "unprotected degraded", "uan"),
    ("9/08-resync-in-progress.b", None, "not-up unprotected degraded", "---"),
    ("9/09-resync-dual-primary.a", None, "unprotected degraded", "uan"),
    ("9/09-resync-dual-primary.b", None, "unprotected degraded", "uan"),
    ("9/10-resync-paused.a", None, "unprotected degraded", "uan"),
    ("9/10-resync-paused.b", None, "unprotected degraded", "uan"),
    ("9/11-b-diskless-mounted.a", None, "unprotected degraded", "uan"),
    ("9/11-b-diskless-mounted.b", None, "unprotected degraded", "uan"),
    ("9/12-verify-running.a", None, "unprotected", "uan"),
    ("9/12-verify-running.b", None, "unprotected", "uan"),
    ("9/13-verify-done-oos.a", None, "unprotected degraded", "uan"),
    ("9/13-verify-done-oos.b", None, "unprotected degraded", "uan"),
    ("9/14-standalone-nosb.a", READER, "unprotected degraded", "uan"),
    ("9/14-standalone-nosb.b", WRITER, "stale not-up unprotected degraded", "---"),
    ("9/15-standalone-forced-dual-primary.a", WRITER, "unprotected degraded", "ua-"),
    ("9/15-standalone-forced-dual-primary.b", WRITER, "split-brain unprotected", "ua-"),
    ("9/16-fencing-suspended.a", WRITER, "suspended degraded", "---"),
    ("9/16-fencing-suspended.b", WRITER, "suspended degraded", "---"),
    ("9/17-fenced-a-resumed.a", WRITER, "degraded", "uan"),
    ("9/17-fenced-a-resumed.b", WRITER, "suspended degraded", "---"),
    ("9/18-peer-down.a", WRITER_DEAD, "degraded", "uan"),
    ("9/19-quorum-lost-suspend-io.a", WRITER, "suspended unprotected degraded", "---"),
    ("9/19-quorum-lost-suspend-io.b", WRITER, "suspended unprotected degraded", "---"),
    ("9/20-quorum-lost-io-error.a", WRITER, "suspended unprotected degraded", "---"),
    ("9/20-quorum-lost-io-error.b", WRITER, "suspended unprotected degraded", "---"),
    ("9/21-quorum+fencing-suspended.a", WRITER, "suspended degraded", "---"),
    ("9/22-quorum+fencing-after-exit7.a", WRITER, "degraded", "uan"),
    ("9/23-fencing-healed-while-handler-blocks.a", None, "healthy", "uan"),
    ("9/23-fencing-healed-while-handler-blocks.b", None, "healthy", "uan"),
    ("9/24-tiebreaker-healthy.a", None, "unprotected", "uan"),
    ("9/24-tiebreaker-healthy.b", None, "unprotected", "uan"),
    ("9/24-tiebreaker-healthy.c", None, "not-up unprotected", "---"),
    ("9/25-tiebreaker-b-isolated.a", WRITER, "unprotected degraded", "ua-"),
    ("9/25-tiebreaker-b-isolated.b", WRITER, "suspended unprotected degraded", "---"),
    ("9/25-tiebreaker-b-isolated.c", WRITER, "not-up unprotected degraded", "---"),
    ("9/26-tiebreaker-ab-link-cut.a", WRITER_DEAD, "split-brain not-up unprotected", "---"),
    ("9/26-tiebreaker-ab-link-cut.b", WRITER_DEAD, "split-brain not-up unprotected", "---"),
    ("9/26-tiebreaker-ab-link-cut.c", None, "not-up unprotected", "---"),
    ("9/27-drbd9.2.18-dual-primary.a", None, "not-up unprotected", "---"),
    ("9/27-drbd9.2.18-dual-primary.b", None, "not-up unprotected", "---"),
    ("9/28-drbd9.2.18-cut.a", WRITER, "not-up unprotected degraded", "---"),
]
HUNG = ("8.4/T3a-", "8.4/T3x-")


def test_every_capture_has_its_line() -> None:
    assert sorted(f"{name}.txt" for name, *_ in TABLE) == FILES


@pytest.mark.parametrize(("name", "lost", "kinds", "flags"), TABLE, ids=[line[0] for line in TABLE])
def test_the_verdict_on_a_captured_state(name: str, lost: Loss | None, kinds: str, flags: str) -> None:
    verdict = verdict_of(facts_of(f"{name}.txt", lost, HANGS if name.startswith(HUNG) else None))
    assert " ".join(kind.value for kind in verdict.kinds) == kinds
    told = zip("uan", (verdict.usable_here, verdict.active, verdict.admits), strict=True)
    assert "".join(letter if true else "-" for letter, true in told) == flags


@pytest.mark.parametrize("name", FILES)
def test_no_capture_is_healthy_once_its_view_is_stale(name: str) -> None:
    facts = facts_of(name)
    verdict = verdict_of(replace(facts, view=replace(facts.view, stale=True, age=30.0)))
    assert verdict.kind.value == "unknown"
    assert not verdict.usable_here
    assert not verdict.admits
    assert "30 s ago" in verdict.cause


@pytest.mark.parametrize("name", [name for name in FILES if facts_of(name).drbd is not None])
def test_every_sentence_and_remedy_is_whole(name: str) -> None:
    verdict = verdict_of(facts_of(name))
    for text in (verdict.cause, verdict.remedy, *(f.cause for f in verdict.also), *verdict.notes):
        assert text[0].isupper() or text[0] == "'"
        assert text.endswith(".")
        assert ".." not in text
        assert "None" not in text
