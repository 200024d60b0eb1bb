"""The report of a comparison with what its differences mean, and without where that cannot be told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import NotMounted
from pvedrbdstor.verify import asked, explain, guests, report
from pvedrbdstor.verify.harm import Harm
from pvedrbdstor.verify.image import Part
from pvedrbdstor.verify.meaning import Found, Meaning
from pvedrbdstor.verify.report import Outcome

CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
CLEAN = Outcome("ha", "full", "a", "b", 1 << 30, 65536, 1 << 30, 0.0, 8.0)
DIVERGED = replace(CLEAN, diverged=((8192, 4096),), minor=3)
IMAGE = Found(
    Harm.GUEST,
    "images/100/vm-100-disk-0.raw",
    "disk image",
    "partition 1, ext4",
    (Part(4096, 8192, 4096, 4096),),
    1,
    4096,
    100,
)


@pytest.fixture(autouse=True)
def no_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "guests", lambda: None)
    monkeypatch.setattr(explain, "_PROC_DRBD", "/dev/null")


def test_what_differs_is_named_with_its_repairs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def ask(config: StorageConfig, ranges: object, device: str, **_: object) -> Meaning:
        calls.append((ranges, device))
        return Meaning((IMAGE,), 1, 4096)

    monkeypatch.setattr(asked, "ask", ask)
    told = explain.explain(DIVERGED, CONFIG, {"ha"}, 3)
    text = report.text(DIVERGED, list(told.lines()), list(told.advice()))
    assert calls == [(((8192, 4096),), "/dev/drbd3")]
    assert "4 KiB DIFFER between a and b" in text and "images/100/vm-100-disk-0.raw" in text
    assert "which copy is right is for you to find out" in text and "drbdadm" in text
    document = told.as_json()
    assert document["meaning"] and document["repairs"]


@pytest.mark.parametrize(
    ("outcome", "short", "exact"),
    [
        (DIVERGED, None, True),
        (replace(DIVERGED, mode="allocated"), None, True),
        (replace(DIVERGED, unsettled=((0, 4096),)), "kept changing", True),
        (replace(DIVERGED, unreadable_there=((0, 4096),)), "cannot be read", False),
        (replace(DIVERGED, stopped="it was interrupted."), "did not come to its end", False),
        (replace(DIVERGED, much=True), "search was ended", False),
        (replace(DIVERGED, mode="sample", surely=300), "a sample", False),
    ],
)
def test_the_advice_knows_how_far_the_search_went(
    monkeypatch: pytest.MonkeyPatch, outcome: Outcome, short: str | None, exact: bool
) -> None:
    reach = explain.reach_of(outcome)
    assert reach.exact == exact and (short in reach.short if short and reach.short else short == reach.short)
    free = replace(IMAGE, harm=Harm.FREE, path="", vmid=None)
    monkeypatch.setattr(asked, "ask", lambda *_, **__: Meaning((free,), 1, 4096))
    told = "\n".join(explain.explain(outcome, CONFIG, {"ha"}, 3).advice())
    assert ("Nothing has to be done" in told) == (short is None)
    assert ("--mode allocated" in told) == (short is not None)


@pytest.mark.parametrize(("mode", "told"), [("full", True), ("sample", False)])
def test_snapshots_are_only_called_intact_where_all_that_differs_is_known(
    monkeypatch: pytest.MonkeyPatch, mode: str, told: bool
) -> None:
    monkeypatch.setattr(asked, "ask", lambda *_, **__: Meaning((replace(IMAGE, intact=("before",)),), 1, 4096))
    found = explain.explain(replace(DIVERGED, mode=mode), CONFIG, {"ha"}, 3)
    assert any("before" in line for line in found.lines()) == told
    assert any("snapshot rollback" in line for line in found.advice()) == told
    assert ("before" in str(found.as_json())) == told


def test_where_nobody_can_tell_the_places_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> Meaning:
        raise NotMounted(storage="ha", path="/mnt/pve/ha", resource="r0")

    monkeypatch.setattr(asked, "ask", fails)
    told = explain.explain(DIVERGED, CONFIG, {"ha"}, 3)
    text = report.text(DIVERGED, list(told.lines()), list(told.advice()))
    assert "4 KiB at byte 8192" in text and "could not be told: Storage 'ha': nothing is mounted" in text


def test_where_nothing_differs_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "ask", None)
    assert explain.explain(CLEAN, CONFIG, {"ha"}, 3).as_json() == {"meaning": None, "repairs": []}
