"""How often a test tries what chance makes up: moderately in each run, many times as often in `./dev soak models`."""

from __future__ import annotations

import os

from hypothesis import Phase, settings

TIMES = "PVEDRBDSTOR_EXAMPLES"
"""The environment's factor on every number of examples."""


def examples(count: int) -> int:
    """How many to try where each run tries ``count``."""
    return count * int(os.environ.get(TIMES, "1"))


def load_profile() -> None:
    """What all property tests use. Without the phase "target": no test has a target(), and Hypothesis (6.67, Debian 12's) spends
    many times as long as on the examples in shrinking such as passed. Without deadlines: a busy machine is no failure.
    In CI the same examples each time, so that a change is judged by itself; everywhere else new ones."""
    settings.register_profile(
        "pvedrbdstor",
        max_examples=examples(100),
        deadline=None,
        phases=set(Phase) - {Phase.target},
        derandomize=os.environ.get("CI") == "true",
    )
    settings.load_profile("pvedrbdstor")
