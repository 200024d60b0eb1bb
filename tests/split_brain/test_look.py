"""What DRBD's metadata and configuration say of this node's copy: devices, the activity log, the size of the data, volumes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pvedrbdstor import command, native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.events2 import State
from pvedrbdstor.drbd.metadata import BLOCK, EXTENT_BYTES, parse_dump
from pvedrbdstor.fencing.split import look

CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
DUMP = """version "v08";
# al_offset 0
uuid {{
    0x0000000000000004; 0x0000000000000000; 0x0000000000000000; 0x0000000000000000;
    flags {flags};
}}
la-size-sect 81920;
bm-byte-per-bit 4096;
al-stripes 1;
al-stripe-size-4k 1;
bm {{
    0x0000000000000001;
}}
"""
NINE = """version "v09";
node-id 0;
current-uuid 0x341B98452316DB1C;
flags 0x{flags:08x};
peer[0] {{
    bitmap-index -1;
    bitmap-uuid 0x0000000000000000;
    bitmap-dagtag 0x0000000000000000;
    flags 0x00000000;
}}
peer[1] {{
    bitmap-index 0;
    bitmap-uuid 0x8FAD43BD14D0C582;
    bitmap-dagtag 0x0000000000000000;
    flags 0x00010100; # FULL_SYNC
}}
history-uuids {{
    0x8A127941769E4212; 0x0000000000000000;
}}
# al-extents 1237;
la-size-sect 2097016;
bm-byte-per-bit 4096;
device-uuid 0x0000000000000001;
la-peer-max-bio-size 1048576;
al-stripes 1;
al-stripe-size-4k 8;
# bm-bytes 32768;
bitmap[0] {{
   # at 0kB
    0x0000000000000001; 4095 times 0x0000000000000000;
}}
# bits-set 1;
"""
RESOURCE = """common {{ {common} }}
resource r1 {{ disk {{ al-updates no; }} }}
resource r0 {{
    on a {{ volume 0 {{ device /dev/drbd0 minor 0; disk /dev/vda; {volume} meta-disk internal; }} }}
    {own}
}}
"""


class Tools:
    """drbdadm, drbdsetup, drbdmeta: what is told of a volume with external metadata."""

    def __init__(self, metadata: Path, lower: Path) -> None:
        self.words = {
            "sh-minor": "0",
            "sh-md-dev": str(metadata),
            "sh-md-idx": "flex-external",
            "sh-ll-dev": str(lower),
        }
        self.flags = "0x00000011"
        self.dump, self.show = RESOURCE.format(common="", volume="", own=""), "resource r0 { }"

    def run(self, argv: list[str], **_: object) -> command.Result:
        match argv:
            case ["drbdadm", "--version"]:
                return command.Result(0, "DRBDADM_API_VERSION=1\nDRBD_KERNEL_VERSION_CODE=0x08040b\n", "")
            case ["drbdadm", "dump", _]:
                return command.Result(0, self.dump, "")
            case ["drbdsetup", "show", _]:
                return command.Result(0, self.show, "")
            case ["drbdadm", what, _]:
                return command.Result(0, self.words[what], "")
            case ["drbdmeta", *_]:
                return command.Result(0, DUMP.format(flags=self.flags), "")
        raise AssertionError(argv)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """The log has extents 1 and 9, far behind the end of the metadata device; the data device ends in extent 9."""
    log = struct.pack(">IIIHHHH16x", 0x69CB65A2, 1, 0, 0, 2, 0, 0) + struct.pack(">64H", 0, 1, *[0xFFFF] * 62)
    log += struct.pack(">64I", 1, 9, *[0xFFFFFFFF] * 62)
    metadata, lower = tmp_path / "metadata", tmp_path / "lower"
    metadata.write_bytes(log + bytes(BLOCK - len(log)))
    lower.touch()
    sizes = {str(metadata): BLOCK, str(lower): 9 * EXTENT_BYTES + 4096}
    monkeypatch.setattr(native, "device_size", lambda fd, path="": sizes[path])
    made = Tools(metadata, lower)
    monkeypatch.setattr(command, "run", made.run)
    return made


def test_the_activity_log_is_of_places_on_the_data_device_wherever_it_lies(tools: Tools) -> None:
    sure, perhaps = look.blocks(CONFIG)
    assert sure == ((0, BLOCK),)
    assert perhaps == ((EXTENT_BYTES, EXTENT_BYTES), (9 * EXTENT_BYTES, 4096))


def test_an_extent_that_leaves_the_log_before_its_bits_are_read_is_among_what_may_have_been_written(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while somebody writes: the bitmap is read between two looks at the log."""
    dumps = 0

    def run(argv: list[str], **options: object) -> command.Result:
        nonlocal dumps
        if argv[0] == "drbdmeta":
            dumps += 1
            if dumps == 2:
                (tmp_path / "metadata").write_bytes(bytes(BLOCK))
        return tools.run(argv, **options)

    monkeypatch.setattr(command, "run", run)
    assert look.blocks(CONFIG)[1] == ((EXTENT_BYTES, EXTENT_BYTES), (9 * EXTENT_BYTES, 4096))


@pytest.mark.parametrize(
    ("where", "whole"),
    [
        ({"own": "disk { al-updates no; }"}, False),
        ({"own": "disk { al-updates yes; }"}, True),
        ({"common": "disk { al-updates no; }"}, False),
        ({"volume": "disk { al-updates no; }"}, False),
    ],
)
def test_without_an_activity_log_any_block_may_have_been_written(
    tools: Tools, where: dict[str, str], whole: bool
) -> None:
    tools.dump = RESOURCE.format(**{"common": "", "volume": "", "own": "", **where})
    assert (look.blocks(CONFIG)[1] is not None) is whole


def test_nor_where_only_the_kernel_or_the_metadata_say_so(tools: Tools) -> None:
    tools.show = "resource r0 { volume 0 { disk { al-updates no; } } }"
    assert look.blocks(CONFIG)[1] is None
    tools.show, tools.flags = "", "0x00000111"
    assert look.blocks(CONFIG)[1] is None
    tools.flags = "0x00000011"
    assert look.blocks(CONFIG)[1] is not None


def test_nines_own_flags_are_told_from_those_of_its_peers() -> None:
    dump = parse_dump(NINE.format(flags=0x11))
    assert dump.complete and dump.changed == ((0, BLOCK),) and dump.size == 2097016 * 512
    assert not parse_dump(NINE.format(flags=0x111)).complete


def test_while_drbd_is_down_its_metadata_tell_how_much_is_data(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "drbd_state", lambda resource: State(complete=True))
    assert look.data_size(CONFIG) == 81920 * 512


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (RESOURCE.format(common="", volume="", own=""), 1),
        ("resource r0 { on a { device /dev/drbd0 minor 0; } on b { device /dev/drbd0 minor 0; } }", 1),
        ("resource r0 { on a { volume 0 { } volume 1 { } } on b { volume 0 { } volume 1 { } } }", 2),
        ("resource r0 { volume 0 { } volume 7 { } on a { } }", 2),
        ("resource r1 { volume 0 { } }", 0),
        ("resource r0 { volume 0 { }", 0),
        ("", 0),
    ],
)
def test_volumes_of_a_resource(text: str, count: int) -> None:
    assert look.volumes_of(text, "r0") == count
