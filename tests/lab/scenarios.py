"""The table of outages: what is done to the cluster, and who must be found writing in the end."""

from __future__ import annotations

from tests.lab.actions import WIN, link
from tests.lab.network import around
from tests.lab.outage import After, Scenario
from tests.lab.protection import ObviousRule

ALL = (
    Scenario("b-isolated", "isolation", "the rest goes on without b", ((0, link(*around("b"))),), "a", 80),
    Scenario(
        "control-flip",
        "control",
        "the obvious rule: b cut off, a goes on; 3 s later b is let in and a cut off, and b goes on too",
        ((0, link(*around("b"))), (After(WIN, 3), link(*around("a")))),
        "ab",
        observed=60,
        in_sync=False,
        protection=ObviousRule,
    ),
)
