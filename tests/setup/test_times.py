"""The times that are written fit corosync's, or nothing is planned: read back from the files, judged by the timeline itself."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd import blocks
from pvedrbdstor.fencing import corosync_conf
from pvedrbdstor.fencing.configured import inputs_of
from pvedrbdstor.fencing.timeline import timeline
from pvedrbdstor.ocfs2.o2cb import parse_defaults
from pvedrbdstor.setup.plan import Plan, make
from tests.setup import world


def written(plan: Plan, path: str) -> str:
    return next(file.content for step in plan.steps for file in step.files if file.path == path)


@given(
    token=st.integers(1, 40).map(lambda number: number * 500),
    timeout=st.sampled_from([5000, 10000, 30000]),
    sync_timeout=st.sampled_from([10000, 30000, 60000, 90000]),
)
def test_what_is_written_fits_the_timeline(token: int, timeout: int, sync_timeout: int) -> None:
    text = world.corosync(token=token).replace(
        "    votes: 1\n", f"    votes: 1\n    timeout: {timeout}\n    sync_timeout: {sync_timeout}\n"
    )
    found = {node: world.with_files(each, corosync=text) for node, each in world.nodes().items()}
    plan = make(found, world.answers(), "pve1")
    conf = corosync_conf.parse(text)
    if not isinstance(plan, Plan):
        assert all(refusal.cause.startswith("the times do not fit") for refusal in plan)
        return
    (net,) = blocks.parse(written(plan, "/etc/drbd.d/r0.res")).blocks[0].named("net")
    o2cb = parse_defaults(written(plan, "/etc/default/o2cb")).timeouts
    read = replace(
        inputs_of(None, conf, o2cb),
        ping_int=float(str(net.value("ping-int"))),
        ping_timeout=float(str(net.value("ping-timeout"))) / 10,
        connect_int=float(str(net.value("connect-int"))),
    )
    assert timeline(read).fits


def test_corosync_s_own_times_are_never_taken_for_others() -> None:
    """The timeline would recommend another token: that is for the administrator to set."""
    found = {node: world.with_files(each, corosync=world.corosync(token=1000)) for node, each in world.nodes().items()}
    refusals = world.refused(found)
    assert any("token" in refusal.remedy for refusal in refusals)


def test_proxmox_s_own_times_fit() -> None:
    assert world.planned()
