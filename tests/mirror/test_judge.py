"""What is taken for the mirror and what is refused, as a table of facts. The facts are those of a real mount, changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import NotMounted, WrongMount
from pvedrbdstor.mirror.judge import MountFacts, judge
from pvedrbdstor.mirror.mountinfo import MountEntry

OPTIONS = (
    "rw _netdev heartbeat=local nointr data=ordered errors=remount-ro atime_quantum=60 cluster_stack=o2cb "
    "coherency=full user_xattr acl"
)
MOUNT = MountEntry(33, (147, 0), "/", "/mnt/pve/ha", "ocfs2", "/dev/drbd0", tuple(OPTIONS.split()))
FACTS = MountFacts(
    mount=MOUNT,
    opened_path="/mnt/pve/ha",
    device=(147, 0),
    fs_magic=0x7461636F,
    fs_name="OCFS2",
    fsid=(0x56368B62, 0x0781E42A),
    read_only=False,
    resource_minor=0,
)
UUID = "D3B97E2B2D96431C81C428ABE6A7ECE6"
CONFIG = StorageConfig(id="ha", path="/mnt/pve/ha", resource="r0")


def mounted_with(*options: str) -> MountFacts:
    return replace(FACTS, mount=replace(MOUNT, options=options))


@pytest.mark.parametrize(
    ("facts", "config"),
    [
        pytest.param(FACTS, CONFIG, id="as configured"),
        pytest.param(FACTS, replace(CONFIG, uuid=UUID), id="with the configured UUID"),
        pytest.param(replace(FACTS, read_only=True), CONFIG, id="read-only, which is for writers to refuse"),
        pytest.param(
            replace(FACTS, opened_path="/srv/real", mount=replace(MOUNT, mount_point="/srv/real")),
            CONFIG,
            id="reached through a link",
        ),
        pytest.param(replace(FACTS, device=(147, 300), resource_minor=300), CONFIG, id="a high minor number"),
        pytest.param(
            mounted_with("rw", "heartbeat=none", "cluster_stack=pcmk"), CONFIG, id="Pacemaker's cluster stack"
        ),
    ],
)
def test_the_mirror_is_taken(facts: MountFacts, config: StorageConfig) -> None:
    judge(facts, config)


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(replace(FACTS, mount=None), id="unmounted since"),
        pytest.param(replace(FACTS, opened_path="/mnt/pve/ha/sub"), id="a folder inside the mirror"),
        pytest.param(
            replace(FACTS, mount=MountEntry(24, (8, 1), "/", "/", "ext4", "/dev/sda1", ()), fs_magic=0xEF53),
            id="a folder of the system's disk",
        ),
    ],
)
def test_a_folder_that_is_no_mount_is_not_mounted(facts: MountFacts) -> None:
    with pytest.raises(NotMounted, match=r"nothing is mounted on /mnt/pve/ha\. Run 'pvedrbdstor mirror up ha', .*'r0'"):
        judge(facts, CONFIG)


@pytest.mark.parametrize(
    ("facts", "config", "says"),
    [
        pytest.param(
            replace(FACTS, fs_magic=0x58465342, fs_name="XFS"),
            CONFIG,
            "a file system of type XFS where OCFS2",
            id="type",
        ),
        pytest.param(
            replace(FACTS, mount=replace(MOUNT, root="/sub")), CONFIG, "only the folder '/sub' of", id="bound folder"
        ),
        pytest.param(
            replace(FACTS, device=(8, 17), mount=replace(MOUNT, source="/dev/sdb1")),
            CONFIG,
            r"on /dev/sdb1 \(8:17\), which is not a DRBD device, where DRBD resource 'r0' volume 0",
            id="DRBD's lower disk",
        ),
        pytest.param(replace(FACTS, resource_minor=None), CONFIG, "drbdadm up r0", id="resource unknown here"),
        pytest.param(
            replace(FACTS, device=(147, 3)), CONFIG, r"on /dev/drbd3 where .* \(/dev/drbd0\)", id="another DRBD device"
        ),
        pytest.param(mounted_with("rw", "localflocks"), CONFIG, "a mount with 'localflocks'", id="localflocks"),
        pytest.param(mounted_with("rw", "heartbeat=none"), CONFIG, "one node only", id="not in a cluster"),
        pytest.param(
            replace(FACTS, fsid=(0x56368B62, 0)),
            replace(CONFIG, uuid=UUID),
            f"another UUID where UUID {UUID}",
            id="UUID",
        ),
    ],
)
def test_the_wrong_mount_is_refused_with_what_was_found(facts: MountFacts, config: StorageConfig, says: str) -> None:
    with pytest.raises(WrongMount, match=says) as caught:
        judge(facts, config)
    assert "Nothing was touched" in caught.value.message
    assert caught.value.message.endswith(".")


def test_drbd_is_asked_only_about_ocfs2_on_a_drbd_device() -> None:
    assert FACTS.worth_asking
    assert not replace(FACTS, device=(8, 0)).worth_asking
    assert not replace(FACTS, fs_magic=0x58465342).worth_asking
