"""The vendors' start scripts: what is masked, what is given back, what is left alone; on a folder as the system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.errors import SystemCallFailed
from pvedrbdstor.mirror import vendor
from pvedrbdstor.mirror.vendor import UNITS, State, Vendor

OURS = "drbdocfs2: ha\n\tpath /mnt/pve/ha\n\tdrbdocfs2-resource r0\n"
OTHERS = "dir: local\n\tpath /var/lib/vz\n"
ALL = list(UNITS)


@pytest.fixture
def node(tmp_path: Path) -> Vendor:
    return Vendor(str(tmp_path), "a")


def unit_file(node: Vendor, unit: str) -> Path:
    return Path(node.root) / "etc/systemd/system" / unit


def masked(node: Vendor) -> list[str]:
    paths = {unit: unit_file(node, unit) for unit in UNITS}
    return [unit for unit, path in paths.items() if path.is_symlink() and os.readlink(path) == "/dev/null"]


def configure(node: Vendor, text: str) -> None:
    path = Path(node.root) / "etc/pve/storage.cfg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_masks_and_gives_back_all_of_them_once(node: Vendor) -> None:
    assert node.mask() == ALL == masked(node)
    assert node.mask() == []
    assert set(node.states().values()) == {State.OURS}
    assert node.unmask() == ALL
    assert masked(node) == node.unmask() == []
    assert set(node.states().values()) == {State.FREE}


def test_no_record_is_left_when_all_is_given_back(node: Vendor) -> None:
    node.mask()
    node.unmask()
    assert not list((Path(node.root) / "var/lib/pvedrbdstor").iterdir())


def test_a_mask_of_the_administrators_is_neither_taken_nor_given_back(node: Vendor) -> None:
    path = unit_file(node, "drbd.service")
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/null")
    assert node.mask() == ["o2cb.service", "ocfs2.service"]
    assert node.states()["drbd.service"] is State.FOREIGN
    assert node.unmask() == ["o2cb.service", "ocfs2.service"]
    assert masked(node) == ["drbd.service"]


def test_a_unit_of_the_administrators_is_left_alone(node: Vendor) -> None:
    path = unit_file(node, "ocfs2.service")
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\nExecStart=/bin/true\n")
    assert node.mask() == ["drbd.service", "o2cb.service"]
    assert node.states()["ocfs2.service"] is State.REPLACED
    node.unmask()
    assert path.read_text() == "[Service]\nExecStart=/bin/true\n"


def test_a_mask_that_was_lifted_by_hand_is_put_back_and_given_back_later(node: Vendor) -> None:
    node.mask()
    unit_file(node, "o2cb.service").unlink()
    assert node.mask() == ["o2cb.service"]
    assert node.unmask() == ALL


def test_a_crash_after_any_step_leaves_nothing_that_is_not_given_back(
    node: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    real = os.symlink
    for survived in range(len(UNITS)):
        left = [survived]

        def crash_later(target: str, path: str, left: list[int] = left) -> None:
            if not left[0]:
                raise Crash
            left[0] -= 1
            real(target, path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "symlink", crash_later)
            with pytest.raises(Crash):
                node.mask()
        assert masked(node) == ALL[:survived]
        node.unmask()
        assert masked(node) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param(OTHERS + "\n" + OURS, ALL, id="a storage of ours"),
        pytest.param(OURS + "\tnodes b,a\n", ALL, id="for this node among others"),
        pytest.param(OURS + "\tdisable\n", ALL, id="disabled: it may be mounted all the same"),
        pytest.param("drbdocfs2: ha\n\tpath /mnt/pve/ha\n", ALL, id="incomplete"),
        pytest.param(OURS + "\tnodes b\n", [], id="for another node"),
        pytest.param(OTHERS, [], id="other storages"),
        pytest.param("", [], id="no storages"),
    ],
)
def test_follows_what_is_configured_for_this_node(node: Vendor, text: str, wanted: list[str]) -> None:
    for before in (node.mask, node.unmask):
        before()
        configure(node, text)
        node.follow()
        assert masked(node) == wanted


def test_changes_nothing_while_the_configuration_cannot_be_read(node: Vendor) -> None:
    assert node.follow() == []
    node.mask()
    assert node.follow() == []
    assert masked(node) == ALL


def test_bring_up_masks_also_for_a_storage_that_is_not_configured_yet(
    node: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor, "Vendor", lambda: node)
    configure(node, OTHERS)
    vendor.mask_for("ha")
    assert masked(node) == ALL


def test_bring_up_goes_on_when_masking_fails(
    node: Vendor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(node.root) / "var").write_text("a file in the way\n")
    monkeypatch.setattr(vendor, "Vendor", lambda: node)
    vendor.mask_for("ha")
    assert "Run it as root" in capsys.readouterr().err
    with pytest.raises(SystemCallFailed):
        node.mask()


def test_a_running_systemd_reads_its_units_again_until_it_knows(node: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path(node.root) / "run/systemd/system").mkdir(parents=True)
    loaded = dict.fromkeys(UNITS, "loaded")
    ran: list[str] = []

    def run(argv: list[str], *, timeout: float) -> command.Result:
        ran.append(argv[1])
        return command.Result(0, "".join(f"{state}\n\n" for state in loaded.values()), "")

    monkeypatch.setattr(command, "run", run)
    node.mask()
    assert ran == ["show", "daemon-reload"]
    node.mask()  # the reload did not reach it
    assert ran == ["show", "daemon-reload"] * 2
    loaded.update(dict.fromkeys(UNITS, "masked"))
    node.mask()
    assert ran[4:] == ["show"]
    node.unmask()
    assert ran[5:] == ["show", "daemon-reload"]
