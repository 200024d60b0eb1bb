"""`pvedrbdstor space`: what it asks, its tables and its picture, and that a mirror that hangs costs a bounded time."""

from __future__ import annotations

import copy
import json
import re
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.cli import space, space_picture, space_table
from tests.cli.conftest import HA, CommandLine

MIB = 1 << 20
SVG = "{http://www.w3.org/2000/svg}"


def sizes(apparent: int, allocated: int, shared: int, frees: int) -> dict[str, int]:
    """Of one row, in MiB."""
    exclusive = allocated - shared
    row = {"apparent": apparent, "allocated": allocated, "shared": shared, "exclusive": exclusive, "frees": frees}
    return {name: size * MIB for name, size in row.items()}


def snapshot(name: str, *row: int, **more: Any) -> dict[str, Any]:
    about = {"name": name, "created": 1700000000, "inside": False, "stray": False}
    return {**about, **sizes(*row), **more}


def image(
    volume: str, *row: int, snapshots: tuple[dict[str, Any], ...] = (), snapshots_free: int = 0
) -> dict[str, Any]:
    return {
        "volume": volume,
        "format": volume.rpartition(".")[2],
        "backing": None,
        **sizes(*row),
        "snapshots_free": snapshots_free * MIB,
        "snapshots": list(snapshots),
    }


def guest(vmid: int, *row: int, images: tuple[dict[str, Any], ...], **more: Any) -> dict[str, Any]:
    return {"vmid": vmid, **sizes(*row), "snapshots_only": 0, "shares_with": [], "images": list(images), **more}


UNKNOWN = dict.fromkeys(("allocated", "shared", "exclusive", "frees"))
FOUND: dict[str, Any] = {
    "file_system": "OCFS2",
    "block": 4096,
    "total": 1000 * MIB,
    "used": 300 * MIB,
    "available": 700 * MIB,
    "changed": 0,
    "guests": [
        guest(90, 64, 48, 48, 0, images=(image("90/base-90-disk-0.raw", 64, 48, 48, 0),), shares_with=[100]),
        guest(
            100, 256, 140, 48, 92, snapshots_only=12 * MIB, shares_with=[90],
            images=(
                image(
                    "100/vm-100-disk-0.raw", 64, 60, 55, 24, snapshots_free=12,
                    snapshots=(
                        snapshot("one", 64, 60, 50, 10),
                        snapshot("two", 64, 60, 60, 0),
                        snapshot("two", 64, 60, 60, 0, stray=True),
                    ),
                ),
                image(
                    "100/vm-100-disk-1.qcow2", 80, 68, 0, 68,
                    snapshots=({**snapshot("inner", 64, 0, 0, 0), **UNKNOWN, "inside": True},),
                ),
            ),
        ),
    ],
    "families": [{"template": 90, "clones": [100], "allocated": 140 * MIB, "frees": 140 * MIB}],
    "others": [{"what": "ISO image", "files": 2, **sizes(40, 40, 0, 40)}],
    "between": 48 * MIB,
    "in_files": 180 * MIB,
    "extents": 77,
    "itself": 120 * MIB,
    "failed": [],
}  # fmt: skip

TABLES = """\
Guest, image, snapshot         Apparent  Allocated  Shared  Exclusive   Frees
CT 90                            64 MiB     48 MiB  48 MiB        0 B     0 B
  base-90-disk-0.raw             64 MiB     48 MiB  48 MiB        0 B     0 B
100 (no configuration)          256 MiB    140 MiB  48 MiB     92 MiB  92 MiB
  vm-100-disk-0.raw              64 MiB     60 MiB  55 MiB      5 MiB  24 MiB
    one                          64 MiB     60 MiB  50 MiB     10 MiB  10 MiB
    two                          64 MiB     60 MiB  60 MiB        0 B     0 B
    two (of an earlier image)    64 MiB     60 MiB  60 MiB        0 B     0 B
    all its snapshots                                                  12 MiB
  vm-100-disk-1.qcow2            80 MiB     68 MiB     0 B     68 MiB  68 MiB
    inner                        64 MiB          -       -          -       -

Template  Guests with its blocks  Allocated  Deleting all frees
90        100                       140 MiB             140 MiB

Storage ha: 300 MiB of 1000 MiB in use, 700 MiB available (OCFS2).
In use by                  Files    Bytes
2 guests, each alone               92 MiB
several of these together          48 MiB
ISO image                      2   40 MiB
the file system itself            120 MiB
in use, as df has it              300 MiB

-: a snapshot inside a qcow2 image, which does not tell what it holds; the image's own line has it.
"""


@pytest.fixture
def ha(cli: CommandLine) -> CommandLine:
    cli.backend.answers["space"] = copy.deepcopy(FOUND)
    (cli.etc_pve / "nodes/a/lxc").mkdir()
    (cli.etc_pve / "nodes/a/lxc/90.conf").touch()  # PVE's own numbers begin at 100: three digits are asked for
    return cli


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "configurations", lambda nodes: iter([(90, "CT", f"{nodes}/a/lxc/90.conf")]))


def test_tables_for_people(ha: CommandLine) -> None:
    result = ha("space", "ha")
    assert (result.exit_code, result.stderr) == (0, "")
    assert ha.backend.requests == [("space", {"storage": HA})]
    assert result.stdout == TABLES


def test_json_is_the_answer_with_what_each_guest_is(ha: CommandLine) -> None:
    found = json.loads(ha("space", "ha", "--json").stdout)
    assert [guest.pop("kind") for guest in found["guests"]] == ["CT", "none"]
    assert found == {"storage": "ha", **FOUND}


def test_every_field_of_the_json_is_explained(ha: CommandLine) -> None:
    def keys(found: Any) -> set[str]:
        inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        return {key for one in inner for key in keys(one)} | set(found if isinstance(found, dict) else ())

    page = (Path(__file__).resolve().parents[2] / "docs" / "space.md").read_text()
    assert [key for key in sorted(keys(json.loads(ha("space", "ha", "--json").stdout))) if f"`{key}`" not in page] == []


def test_where_configurations_cannot_be_read_nothing_is_said_of_them(
    ha: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(nodes: str) -> None:
        raise PermissionError(13, "Permission denied", nodes)

    monkeypatch.setattr(space, "configurations", unreadable)
    assert [guest["kind"] for guest in json.loads(ha("space", "ha", "--json").stdout)["guests"]] == [None, None]
    assert ha("space", "ha").stdout.splitlines()[1].startswith("90  ")


@pytest.mark.parametrize("arguments", [["--guest", "100"], ["--guest", "100", "--json"]])
def test_one_guest_alone(ha: CommandLine, arguments: list[str]) -> None:
    told = ha("space", "ha", *arguments).stdout
    assert "vm-100-disk-0.raw" in told and "base-90" not in told and "ISO" not in told.partition("others")[0]
    assert ("in use, as df" in told) is False


def test_a_guest_that_has_nothing_is_no_error(ha: CommandLine) -> None:
    result = ha("space", "ha", "--guest", "105")
    assert (result.exit_code, result.stdout) == (0, "Guest 105 has nothing on storage ha.\n")


@pytest.mark.parametrize(("key", "first"), [("guest", 90), ("frees", 100), ("shared", 90), ("apparent", 100)])
def test_what_comes_first(ha: CommandLine, key: str, first: int) -> None:
    found = json.loads(ha("space", "ha", "--json", "--sort", key).stdout)
    assert found["guests"][0]["vmid"] == first
    if key == "frees":
        assert next(one["volume"] for one in found["guests"][0]["images"]) == "100/vm-100-disk-1.qcow2"


def test_what_could_not_be_looked_into_and_what_moved_is_told(ha: CommandLine) -> None:
    ha.backend.answers["space"].update(
        failed=[["images/100/x.raw", "Input/output error"]], itself=-MIB, changed=-2 * MIB
    )
    result = ha("space", "ha")
    assert "images/100/x.raw could not be looked into (Input/output error)" in result.stderr
    assert re.search(r"^the file system itself +-1 MiB$", result.stdout, re.MULTILINE)
    assert "changed by -2 MiB while this was looked at" in result.stdout


def test_an_empty_storage_has_a_sum_too(ha: CommandLine) -> None:
    empty = {"guests": [], "families": [], "others": [], "between": 0, "in_files": 0, "itself": 300 * MIB}
    ha.backend.answers["space"].update(empty)
    assert re.search(r"^the file system itself +300 MiB$", ha("space", "ha").stdout, re.MULTILINE)


def test_the_table_fits_an_old_terminal(ha: CommandLine) -> None:
    big = json.loads(json.dumps(FOUND).replace('"one"', '"before-the-upgrade-to-17"'))
    del big["guests"][1]["images"][0]["snapshots"][2]  # of an earlier image: rare, and wider
    for row in [big["guests"][0], *big["guests"][0]["images"]]:
        row.update(dict.fromkeys(("apparent", "allocated", "shared", "exclusive", "frees"), 1000 * MIB))
    ha.backend.answers["space"] = {
        **big,
        "guests": [{**guest, "vmid": 999999900 + at} for at, guest in enumerate(big["guests"])],
    }
    assert max(map(len, ha("space", "ha").stdout.partition("\n\n")[0].splitlines())) <= 80


# --- bars and the picture ---


def labelled(found: dict[str, Any]) -> dict[str, Any]:
    return space._arranged(copy.deepcopy(found), {90: "CT", 100: "VM"}, "guest")


def test_bars_are_drawn_where_there_is_room_and_only_there() -> None:
    narrow, wide = (space_table.text("ha", labelled(FOUND), None, room) for room in (80, 120))
    assert not set(narrow) & set("█▓░")
    bars = {line.split()[1]: line.split()[-1] for line in wide.splitlines() if line.startswith(("CT", "VM"))}
    assert (bars["90"], bars["100"]) == ("░" * 8, "█" * 14 + "▓" * 2 + "░" * 8)
    assert max(map(len, wide.splitlines())) <= 120


def picture(found: dict[str, Any]) -> ET.Element:
    return ET.fromstring(space_picture.svg('a<b>&"', labelled(found)))


def widths(root: ET.Element, kind: str) -> list[float]:
    """Of the stretches of bars of one kind; the squares of the legend have rounded corners."""
    found = (one for one in root.iter(f"{SVG}rect") if one.get("class") == kind and one.get("rx") is None)
    return [float(one.get("width", "nan")) for one in found]


def test_the_picture_has_a_bar_for_all_and_one_a_guest_in_true_lengths() -> None:
    root = picture(FOUND)
    whole, vm = widths(root, "disks")
    assert whole == pytest.approx(880 * 80 / 1000, abs=0.1)
    assert vm / widths(root, "snapshots")[1] == pytest.approx(80 / 12, rel=0.01)
    assert len(widths(root, "shared")) == 3
    assert len(widths(root, "free")) == 1
    everything = sum(
        sum(widths(root, kind)[:1]) for kind in ("disks", "snapshots", "shared", "content", "itself", "free")
    )
    assert everything == pytest.approx(880, abs=0.5)
    assert any((text.text or "").startswith('Storage a<b>&"') for text in root.iter(f"{SVG}text"))


def test_the_picture_of_one_guest_has_each_image_and_snapshot_in_true_lengths() -> None:
    root = ET.fromstring(space_picture.svg("ha", labelled(FOUND), 100))
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert texts[0] == "Storage ha, VM 100: 140 MiB, deleting frees 92 MiB"
    first, second = widths(root, "disks")
    assert second / first == pytest.approx(68 / 5, rel=0.02)
    assert len(widths(root, "snapshots")) == 1  # the others have nothing of their own
    assert sum("which does not tell what it holds" in text for text in texts) == 1
    assert sum("earlier image" in text for text in texts) == 1
    assert not any("base-90" in text for text in texts)
    nobody = ET.fromstring(space_picture.svg("ha", labelled(FOUND), 105))
    assert "guest 105 has nothing" in "".join(nobody.itertext())


def test_a_long_name_keeps_both_its_ends_and_is_whole_where_one_points() -> None:
    name = "before" + "x" * 68 + "upgrade"
    found = json.loads(json.dumps(FOUND).replace('"one"', f'"{name}"'))
    root = ET.fromstring(space_picture.svg("ha", labelled(found), 100))
    shown = [text for text in root.iter(f"{SVG}text") if name in "".join(text.itertext())]
    assert [(text[0].text, len(text[0].tail or "")) for text in shown] == [(name, 27)]
    assert (shown[0][0].tail or "").startswith("before") and (shown[0][0].tail or "").endswith("upgrade")


def test_the_picture_of_nothing_and_of_much_stays_inside_its_frame() -> None:
    for count in (0, 1, 200):
        found = {**FOUND, "guests": [{**FOUND["guests"][1], "vmid": 100 + n} for n in range(count)]}
        root = ET.fromstring(space_picture.svg("ha", space._arranged(found, None, "guest")))
        width, height = float(root.get("width", 0)), float(root.get("height", 0))
        for one in root.iter(f"{SVG}rect"):
            assert float(one.get("x", 0)) + float(one.get("width", 0)) <= width + 0.1
            assert float(one.get("y", 0)) + float(one.get("height", 0)) <= height + 0.1


@pytest.mark.parametrize("most", [1, 5000, 6 << 20, 10 << 30, 3 << 40])
def test_ticks_are_round_and_few(most: int) -> None:
    found = space_picture.ticks(most)
    assert 1 <= len(found) <= 6 and found[0] == 0 and found[-1] <= most
    assert most < 4096 or len(found) >= 3


def test_the_picture_is_written_and_what_keeps_it_from_that_is_told(ha: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "ha.svg"
    assert ha("space", "ha", "--svg", str(file)).stdout == TABLES
    assert file.read_text().startswith("<svg ") and file.read_text().endswith("</svg>\n")
    result = ha("space", "ha", "--svg", str(tmp_path / "none" / "ha.svg"))
    assert result.exit_code == 74
    assert "Name another file" in result.stderr


# --- a mirror that hangs ---


@pytest.fixture
def impatient(ha: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setattr(space, "SHORT", 1.0)
    return replace(ha, in_child=True)


def test_silence_ends_it_and_names_the_seconds(impatient: CommandLine) -> None:
    impatient.backend.answers["space"] = lambda call: time.sleep(60)
    began = time.monotonic()
    result = impatient("space", "ha")
    assert result.exit_code == 75
    assert "did not finish within 1 s" in result.stderr
    assert time.monotonic() - began < 30


def test_work_that_goes_on_is_waited_for_however_long(impatient: CommandLine) -> None:
    def work(call: Call) -> dict[str, Any]:
        for step in range(15):
            time.sleep(0.1)
            call.advance(step, 15)
        return copy.deepcopy(FOUND)

    impatient.backend.answers["space"] = work
    assert impatient("space", "ha").exit_code == 0
