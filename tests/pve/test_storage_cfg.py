"""storage.cfg: what PVE reads there we read, what PVE passes over we pass over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import Error
from pvedrbdstor.pve.section_config import is_true, parse, split_list
from pvedrbdstor.pve.storage_cfg import find_storage, storage_ids

UUID = "0123456789ABCDEF0123456789ABCDEF"
FULL = f"""\
# made by hand
dir: local
	path /var/lib/vz
	content iso,vztmpl,backup
	shared 0

drbdocfs2: ha
	path /mnt/pve/ha
	content images,rootdir
	# a comment among the properties
	content-dirs images=disks,iso=template/cd
	drbdocfs2-resource r0
	drbdocfs2-uuid {UUID}
	drbdocfs2-volume 3
	nodes a,b
	preallocation full
	prune-backups keep-all=1
	something-new yes, please

dir: former
	path /mnt/pve//ha/

DRBDOCFS2: second
	path /mnt/pve/second
	drbdocfs2-resource r1
	disable
"""


def test_every_property_reaches_the_backend() -> None:
    storage = find_storage(FULL, "ha")
    assert storage.config == StorageConfig(
        id="ha",
        path="/mnt/pve/ha",
        resource="r0",
        volume=3,
        uuid=UUID,
        images_dir="disks",
        preallocation="full",
    )
    assert (storage.content, storage.nodes, storage.disabled) == ({"images", "rootdir"}, {"a", "b"}, False)


def test_properties_that_are_not_there_have_pve_s_defaults() -> None:
    storage = find_storage(FULL, "second")
    assert storage.config == StorageConfig(id="second", path="/mnt/pve/second", resource="r1")
    assert (storage.content, storage.nodes, storage.disabled) == ({"images", "rootdir"}, set(), True)


def test_storages_on_the_same_path_are_aliases() -> None:
    assert find_storage(FULL, "ha").aliases == {"ha", "former"}
    assert find_storage(FULL, "second").aliases == {"second"}


def test_storages_of_our_type_are_listed_in_order() -> None:
    assert storage_ids(FULL) == ["ha", "second"]


@pytest.mark.parametrize(
    ("storage_id", "node", "said"),
    [("second", "a", "disabled"), ("ha", "c", "not for node 'c'. Work on one of: a, b")],
)
def test_storage_is_refused_where_pve_would_refuse_it(storage_id: str, node: str, said: str) -> None:
    with pytest.raises(Error, match=said):
        find_storage(FULL, storage_id).check_usable_on(node)


def test_storage_is_usable_on_its_nodes() -> None:
    find_storage(FULL, "ha").check_usable_on("b")


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ("", "'path' is missing"),
        ("\tpath /mnt/x\n", "'drbdocfs2-resource' is missing"),
        ("\tpath\n\tdrbdocfs2-resource r0\n", "'path' is missing"),
        ("\tpath relative\n\tdrbdocfs2-resource r0\n", "path must be absolute"),
        ("\tpath /mnt/x\n\tdrbdocfs2-resource r/0\n", "not a DRBD resource name"),
        ("\tpath /mnt/x\n\tdrbdocfs2-resource r0\n\tdrbdocfs2-volume one\n", "DRBD volume must be a number"),
        ("\tpath /mnt/x\n\tdrbdocfs2-resource r0\n\tdrbdocfs2-volume 99999\n", "DRBD volume must be a number"),
        ("\tpath /mnt/x\n\tdrbdocfs2-resource r0\n\tdrbdocfs2-uuid 12\n", "not an OCFS2 UUID"),
        ("\tpath /mnt/x\n\tdrbdocfs2-resource r0\n\tpreallocation some\n", "preallocation must be one of"),
        ("\tpath /mnt/x\n\tdrbdocfs2-resource r0\n\tcontent-dirs images=../up\n", "does not lie below"),
    ],
    ids=lambda text: text.rsplit("\n\t")[-1].strip() if text.startswith("\t") else "",
)
def test_storage_that_cannot_work_is_refused_with_the_reason(properties: str, said: str) -> None:
    with pytest.raises(Error, match=said):
        find_storage(f"drbdocfs2: x1\n{properties}", "x1")


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("", {}),
        ("dir: a\n\tk v\n\n\n\ndir: b\n k  v w \n", {"a": {"k": "v"}, "b": {"k": "v w"}}),
        ("dir: a\n\tk 1\n\tk 2\n", {"a": {"k": "1"}}),
        ("dir: a\n\tk 1\n\ndir: a\n\tk 2\n", {"a": {"k": "2"}}),
        ("dir: a\n\tk 1\ndir: b\n\tj 2\n", {"a": {"k": "1", "j": "2"}}),
        ("dir: a\n\tk 1\n#\n\tj 2\n", {"a": {"k": "1", "j": "2"}}),
        ("dir: a\n\tk 1\n \t\n\tj 2\n", {"a": {"k": "1", "j": "2"}}),
        ("dir: a b\n\tk 1\n", {}),
        ("dir a\n\tk 1\n", {}),
        (" dir: a\n", {}),
        ("dir:a\r\n\tk 1\r\n", {"a": {"k": "1"}}),
        ("dir: a\n\tk\n", {"a": {"k": ""}}),
    ],
    ids=repr,
)
def test_lines_are_read_as_pve_reads_them(text: str, sections: dict[str, dict[str, str]]) -> None:
    assert {section.id: section.properties for section in parse(text).values()} == sections


@given(st.text())
def test_any_text_is_read_without_failing(text: str) -> None:
    for storage_id in parse(text):
        try:
            find_storage(text, storage_id)
        except Error:
            pass


_WORD = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
_LINE = st.one_of(
    st.just(""),
    st.just("\tpath /mnt/x"),
    st.just("\tdrbdocfs2-resource r0"),
    st.builds("drbdocfs2: {}".format, _WORD),
    st.builds("\t{} {}".format, st.sampled_from(["path", "nodes", "content-dirs", "drbdocfs2-volume", "disable"]), st.text()),
    st.text(),
)  # fmt: skip


@given(st.lists(_LINE))
def test_any_lines_give_storages_that_are_valid_or_an_error(lines: list[str]) -> None:
    text = "\n".join(lines)
    for storage_id in storage_ids(text):
        try:
            storage = find_storage(text, storage_id)
        except Error as error:
            assert error.message
        else:
            assert storage.config.path.startswith("/")
            assert storage_id in storage.aliases


@given(st.dictionaries(_WORD, st.dictionaries(_WORD, _WORD)))
def test_what_is_written_in_pve_s_form_is_read_back(sections: dict[str, dict[str, str]]) -> None:
    text = "\n".join(
        f"dir: {name}\n" + "".join(f"\t{key} {value}\n" for key, value in properties.items())
        for name, properties in sections.items()
    )
    assert {section.id: section.properties for section in parse(text).values()} == sections


def test_lists_are_separated_as_pve_does() -> None:
    assert split_list(" a,b;c d,,\te\0f ") == ["a", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("on", True), ("Yes", True), ("true", True), ("", True), (None, False), ("0", False), ("no", False)],
)
def test_booleans_are_read_as_pve_does(text: str | None, value: bool) -> None:
    assert is_true(text) is value
