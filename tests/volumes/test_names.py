"""Names: PVE's grammar, and nothing that leaves its folder, whatever comes in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pvedrbdstor.errors import BadName, BadSize, FormatNotOffered, NoFreeName
from pvedrbdstor.volumes import names

PIECES = st.sampled_from(
    [
        *("100", "0", "007", "999999999", "1000000000", "-1", "vm-100-disk-0", "base-9-disk-1", "snap-a", "subvol-1-x"),
        *(
            "/",
            "//",
            ".",
            "..",
            "../",
            ".raw",
            ".qcow2",
            ".vmdk",
            ".subvol",
            ".RAW",
            "\0",
            "\n",
            " ",
            "\u00e9",
            "\ud800",
        ),
        *("\u0661", ":", "%", "'", "$(x)", "x" * 250),
    ]
)
NAMES = (
    st.text()
    | st.from_regex(r"[0-9]{1,3}/[!-~]{1,9}\.(raw|qcow2|vmdk)", fullmatch=True)
    | st.lists(PIECES, max_size=8).map("".join)
)
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.binary() | st.lists(st.text())


def test_a_plain_volume_name_is_understood() -> None:
    name = names.parse_volume("100/vm-100-disk-0.raw")
    assert (name.vmid, name.name, name.base, name.format, name.is_base) == (
        100,
        "vm-100-disk-0.raw",
        None,
        "raw",
        False,
    )


def test_the_base_of_a_linked_clone_is_part_of_its_name() -> None:
    name = names.parse_volume("90/base-90-disk-0.qcow2/100/vm-100-disk-0.qcow2")
    assert (name.vmid, name.base) == (100, names.ImageFile(90, "base-90-disk-0.qcow2"))
    assert not name.is_base


@pytest.mark.parametrize(
    "name",
    [
        "100/base-100-disk-0.raw",
        "100/vm-100-cloudinit.qcow2",
        "100/vm-100-state-before.raw",
        "100/vm-100-fleece-0.qcow2",
        "100/subvol-100-disk-0.subvol",
        "100/old-server.vmdk",
        "999999999/x.raw",
    ],
)
def test_every_name_that_proxmox_gives_is_taken_as_it_is(name: str) -> None:
    assert str(names.parse_volume(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "100", "100/", "/100/a.raw", "100/a.raw/", "100//a.raw", "a/b.raw", "0/a.raw", "0100/a.raw", "-1/a.raw"),
        *("100/..", "100/../a.raw", "100/.a.raw", "100/.raw", "100/a", "100/a.iso", "100/a.RAW", "100/a.raw.bak"),
        *("100/a b.raw", "100/a\n.raw", "100/a.raw\n", "100/a\0.raw", "100/\u00e4.raw", "100/\ud800.raw"),
        *(
            "1000000000/a.raw",
            "\u0661/a.raw",
            "100/snap-x-vm-100-disk-0.qcow2",
            "1/a.raw/2",
            "1/a/2/b.raw",
            "1/2/3/4/5",
        ),
        *("100/" + "x" * 252 + ".raw", "x" * 100_000),
        *(None, 5, b"100/vm-100-disk-0.raw", ["100/a.raw"], True),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_anything_else_is_a_bad_name(name: object) -> None:
    with pytest.raises(BadName) as caught:
        names.parse_volume(name)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


@given(ANYTHING)
@example("100/" + "x" * 251 + ".raw")
def test_a_name_is_refused_or_means_the_same_again_and_stays_in_its_folder(text: object) -> None:
    try:
        name = names.parse_volume(text)
    except BadName:
        return
    assert str(name) == text
    assert names.parse_volume(str(name)) == name
    for part in (name, name.base) if name.base else (name,):
        assert 1 <= part.vmid <= names.MAX_VMID
        assert part.name not in (".", "..")
        assert not part.name.startswith(".")
        assert not set(part.name) & set("/\0\n ")
        assert len(part.name.encode()) <= 255


@given(ANYTHING)
def test_a_snapshot_name_is_refused_or_a_plain_file_name(name: object) -> None:
    try:
        checked = names.check_snapshot(name)
    except BadName:
        return
    assert checked == name
    assert checked.isascii()
    assert checked.replace("-", "_").isidentifier()
    assert len(checked) <= 80


@pytest.mark.parametrize("name", ["current", "", "1st", "-d", "a/b", "a.b", "..", "a\n", "a" * 81, None, 7])
def test_a_snapshot_cannot_have_such_a_name(name: object) -> None:
    with pytest.raises(BadName):
        names.check_snapshot(name)


@given(ANYTHING)
def test_a_backing_file_means_an_image_only_in_the_form_that_proxmox_writes(text: object) -> None:
    parent = names.parent_image(text if isinstance(text, str) else None)
    assert parent is None or f"../{parent}" == text


@pytest.mark.parametrize(
    "value",
    [0, -1, -(10**5000), True, 1.0, float("nan"), "1024", None, [1], 1 << 63, 10**5000],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(BadSize) as caught:
        names.check_size(value)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(("value", "unit", "size"), [(1, 1, 1), (4, 1024, 4096), ((1 << 63) - 1, 1, (1 << 63) - 1)])
def test_a_size_is_counted_in_its_unit(value: int, unit: int, size: int) -> None:
    assert names.check_size(value, unit) == size


def test_a_size_that_overflows_in_its_unit_is_refused() -> None:
    with pytest.raises(BadSize):
        names.check_size(1 << 53, 1024)


@pytest.mark.parametrize("value", ["0", "", "+1", "1 ", "1\n", 0, -5, 1 << 40, True, 1.0, None, "\u0661"])
def test_what_is_no_guest_number_is_refused(value: object) -> None:
    with pytest.raises(BadName):
        names.check_vmid(value)


@pytest.mark.parametrize("fmt", ["subvol", "RAW", "", None, 1, ["raw"], "x" * 1000])
def test_a_format_that_is_not_offered_is_refused(fmt: object) -> None:
    with pytest.raises(FormatNotOffered) as caught:
        names.check_format(fmt, "ha")
    assert "raw or qcow2" in caught.value.message


def test_a_new_image_gets_the_first_number_that_neither_image_nor_template_has() -> None:
    taken = ["vm-100-disk-0.raw", "base-100-disk-1.raw", "vm-100-disk-3.raw", "vm-1-disk-2.raw", "xvm-100-disk-2.raw"]
    assert names.first_free_name(taken, 100, "raw", "ha") == "vm-100-disk-2.raw"


def test_the_last_number_is_given_and_then_there_is_none() -> None:
    taken = [f"vm-100-disk-{number}.raw" for number in range(names.MAX_DISKS_PER_GUEST - 1)]
    last = names.first_free_name(taken, 100, "raw", "ha")
    assert last == "vm-100-disk-1023.raw"
    with pytest.raises(NoFreeName):
        names.first_free_name([*taken, last], 100, "raw", "ha")


@pytest.mark.parametrize(
    ("name", "because"),
    [
        ("vm-100-disk-0.qcow2", "end in .raw"),
        ("vm-101-disk-0.raw", "guest 101"),
        ("base-101-disk-0.raw", "guest 101"),
        ("base-100-disk-0.raw", "templates"),
        ("base-x.raw", "templates"),
        ("x/../../y.raw", "slashes"),
        ("x" * 300 + ".raw", "304"),
        (None, "not text"),
    ],
)
def test_a_name_that_a_new_image_must_not_have_is_refused_with_the_reason(name: object, because: str) -> None:
    with pytest.raises(BadName, match=because):
        names.check_new_name(name, 100, "raw")


@pytest.mark.parametrize("check", [names.is_image_file, names.is_guest_folder])
@given(name=NAMES)
def test_a_listed_name_is_one_that_can_be_asked_for(check: Callable[[str], bool], name: str) -> None:
    if check(name):
        names.parse_volume(f"100/{name}" if check is names.is_image_file else f"{name}/a.raw")
