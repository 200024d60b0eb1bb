"""A bug in one check of the doctor: told, and no other check is lost for it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pvedrbdstor.doctor import checks
from pvedrbdstor.doctor.checks import examine
from pvedrbdstor.doctor.facts import Look
from pvedrbdstor.doctor.finding import Finding
from tests.doctor.breaking import kernel, unit, unlucky
from tests.doctor.world import broken, healthy


def test_a_check_that_breaks_is_told_and_costs_nothing_of_what_was_found() -> None:
    """Neither what it had found before, nor what the checks behind it find."""
    pair = broken({**kernel("6.99.0", missing=["ocfs2"]), **unit("pvedrbdstor-boot.service", UnitFileState="disabled")})
    found = {finding.id: finding for finding in examine(unlucky(pair, "kernels"))}
    assert set(found) == {"kernel-no-module", "unit-off", "check-broke"}
    broke = found["check-broke"]
    assert broke.title == "The check 'kernels' of the doctor broke: ZeroDivisionError: no such luck"
    assert re.search(r"breaking\.py, line [0-9]+\.$", broke.meaning) and broke.commands == ("pvedrbdstor report",)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_whoever_ends_the_doctor_ends_it(monkeypatch: pytest.MonkeyPatch, ending: type[BaseException]) -> None:
    def ends(_look: Look) -> Iterator[Finding]:
        raise ending
        yield

    monkeypatch.setattr(checks, "CHECKS", (ends,))
    with pytest.raises(ending):
        examine(healthy())
