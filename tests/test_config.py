"""A storage's configuration and a call's parameters, from whatever JSON came in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pvedrbdstor.config import StorageConfig, relative_dir
from pvedrbdstor.errors import BadConfig, BadName, BadRequest
from pvedrbdstor.service.params import Params
from pvedrbdstor.service.protocol import InvalidParams

GOOD: dict[str, object] = {"id": "ha", "path": "/mnt/pve/ha", "resource": "r0"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PATHS = st.lists(st.sampled_from(["/", ".", "..", "a", "images", ".drbdocfs2", "\0", "\n", "\ud800", " "])).map("".join)


def test_what_is_not_said_has_proxmoxs_defaults() -> None:
    expected = {**GOOD, "volume": 0, "uuid": None, "images_dir": "images", "preallocation": None}
    assert asdict(StorageConfig.from_wire(GOOD)) == expected
    nulls = {"volume": None, "uuid": None, "images_dir": None, "preallocation": None}
    assert asdict(StorageConfig.from_wire(GOOD | nulls)) == expected


def test_everything_can_be_said() -> None:
    said = {
        "id": "ha-2.x_y",
        "path": "/mnt/pve/ha_2.x@y",
        "resource": "vm-data.1",
        "volume": 65535,
        "uuid": "0123456789ABCDEF0123456789ABCDEF",
        "images_dir": "vm/disks",
        "preallocation": "falloc",
    }
    assert asdict(StorageConfig.from_wire(said)) == said


def test_what_a_newer_plugin_says_besides_is_not_looked_at() -> None:
    assert StorageConfig.from_wire({**GOOD, "content": ["images"], "x": {}}) == StorageConfig.from_wire(GOOD)


@pytest.mark.parametrize("path", ["/mnt//pve/ha/", "//mnt/pve/ha", "/mnt/pve/ha//"])
def test_one_folder_has_one_path(path: str) -> None:
    assert StorageConfig.from_wire({**GOOD, "path": path}).path == "/mnt/pve/ha"


@pytest.mark.parametrize("data", [None, [], "ha", 5, True, {}, {"id": None}, {**GOOD, "id": "a"}, {**GOOD, "id": "1a"}])
def test_without_a_storage_name_it_is_no_request(data: object) -> None:
    with pytest.raises(BadRequest):
        StorageConfig.from_wire(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("path", value)
            for value in (None, "", "mnt", "/", "//", "/mnt/../etc", "/mnt/a b", "/mnt\n", "/mnt/\u00e4", 5)
        ),
        *(("resource", value) for value in (None, "", "-r0", "r0/1", "r 0", "r0\n", "x" * 129, 0)),
        *(("resource", value) for value in ("all", "0", "12", "9" * 128)),
        *(("volume", value) for value in (-1, 65536, True, 0.0, "0", [], 1 << 70)),
        *(("uuid", value) for value in ("", "0" * 31, "0" * 33, "a" * 32, "G" * 32, 5, ["0" * 32])),
        *(("preallocation", value) for value in ("", "FULL", "none", 1, True, [], {})),
        *(
            ("images_dir", value)
            for value in ("..", "a/../b", "/..", ".", "/", ".drbdocfs2", "a/.drbdocfs2/x", "a\0b", 5)
        ),
        *(("images_dir", value) for value in ("a\nb", "\ud800", "\x1b[2J", "x" * 5000, ["images"])),
    ],
)
def test_what_cannot_be_is_a_bad_configuration_that_names_the_storage(key: str, value: object) -> None:
    with pytest.raises(BadConfig) as caught:
        StorageConfig.from_wire({**GOOD, key: value})
    assert caught.value.message.startswith("Storage 'ha': ")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["All", "all0", "0r", "r0", "a", "alles", "0.0"])
def test_other_names_are_taken(name: str) -> None:
    assert StorageConfig.from_wire({**GOOD, "resource": name}).resource == name


@example({"images_dir": "..."})
@given(st.dictionaries(st.sampled_from([*GOOD, "volume", "uuid", "images_dir", "preallocation"]), JSON | PATHS))
def test_any_json_is_refused_or_a_configuration_that_stays_in_its_place(data: dict[str, object]) -> None:
    try:
        config = StorageConfig.from_wire({**GOOD, **data})
    except (BadConfig, BadRequest) as error:
        assert error.message
        return
    assert os.path.normpath(config.path) == config.path != "/"
    assert os.path.normpath(config.images_dir) == config.images_dir
    parts = config.images_dir.split("/")
    assert not set(parts) & {"", ".", ".."}
    assert not any(part.startswith(".drbdocfs2") for part in parts)
    os.fsencode(config.images_dir)
    assert StorageConfig.from_wire(asdict(config)) == config


@given(JSON | PATHS)
def test_a_content_folder_is_refused_or_lies_below_the_storage(value: object) -> None:
    try:
        folder = relative_dir("ha", value)
    except BadConfig:
        return
    parts = folder.split("/")
    assert not set(parts) & {"", ".", "..", ".drbdocfs2"}
    assert folder.isprintable()
    assert relative_dir("ha", folder) == folder


@pytest.mark.parametrize(
    ("value", "folder"), [("/dump/", "dump"), ("template//iso", "template/iso"), ("./a/./b", "a/b")]
)
def test_a_content_folder_is_relative_however_it_is_written(value: str, folder: str) -> None:
    assert relative_dir("ha", value) == folder


GETTERS: dict[str, Callable[[Params], object]] = {
    "text": lambda p: p.text("x"),
    "optional_text": lambda p: p.optional_text("x"),
    "value": lambda p: p.value("x"),
    "flag": lambda p: p.flag("x"),
    "texts": lambda p: p.texts("x"),
    "optional_texts": lambda p: p.optional_texts("x"),
    "volume": lambda p: p.volume(),
    "vmid": lambda p: p.vmid("x"),
    "optional_vmid": lambda p: p.optional_vmid("x"),
    "snapshot": lambda p: p.snapshot(),
    "optional_snapshot": lambda p: p.optional_snapshot(),
}


@given(value=JSON)
def test_any_parameter_is_taken_or_refused(value: object) -> None:
    params = Params(dict.fromkeys(("x", "volname", "snap"), value))
    for get in GETTERS.values():
        try:
            get(params)
        except (InvalidParams, BadName) as error:
            assert error.message


@pytest.mark.parametrize("getter", ["text", "value", "volume", "vmid", "snapshot"])
@pytest.mark.parametrize("data", [{}, dict.fromkeys(("x", "volname", "snap"))])
def test_what_must_be_there_is_named_when_it_is_not(getter: str, data: dict[str, object]) -> None:
    with pytest.raises(InvalidParams, match=r"'(x|volname|snap)' is missing"):
        GETTERS[getter](Params(data))


@pytest.mark.parametrize(
    ("getter", "nothing"),
    [("optional_text", None), ("optional_texts", None), ("texts", []), ("optional_vmid", None), ("flag", False)],
)
def test_what_may_be_missing_is_nothing(getter: str, nothing: object) -> None:
    for data in ({}, {"x": None}):
        assert GETTERS[getter](Params(data)) == nothing


@pytest.mark.parametrize(("value", "flag"), [(True, True), (False, False), (1, True), (0, False), (None, False)])
def test_a_flag_is_perls_or_jsons(value: object, flag: bool) -> None:
    assert Params({"x": value}).flag("x") is flag


@pytest.mark.parametrize("value", ["1", "0", "", "true", 2, -1, [], [1], {}])
def test_what_is_no_flag_is_refused(value: object) -> None:
    with pytest.raises(InvalidParams, match="'x'"):
        Params({"x": value}).flag("x")


@pytest.mark.parametrize("value", ["a", {"a": "b"}, [1], [None], ["a", ["b"]], True])
def test_what_is_no_list_of_texts_is_refused(value: object) -> None:
    with pytest.raises(InvalidParams, match="'x'"):
        Params({"x": value}).texts("x")
