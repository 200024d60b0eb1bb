"""Files are written whole or not at all; what others have put there stays, and drbdadm reads a resource before it is in its way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvedrbdstor.setup import files, paths
from pvedrbdstor.setup.hands import Outcome, carry_out
from pvedrbdstor.setup.steps import File, Kind, Step, digest


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lock" / "setup"
    monkeypatch.setattr(paths, "LOCK", str(path))
    return path


class TestFiles:
    def step(self, *files: File) -> Step:
        return Step("a.file", "a", Kind.FILE, "t", "w", files=files)

    def test_a_new_one_is_written_whole_with_its_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "file"
        assert carry_out(self.step(File(str(path), "text\n", 0o600)), False) == Outcome()
        assert path.read_text() == "text\n" and path.stat().st_mode & 0o777 == 0o600
        assert os.listdir(path.parent) == ["file"]

    def test_what_is_so_already_is_done(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("text\n")
        assert carry_out(self.step(File(str(path), "text\n")), False) == Outcome(already=True)

    def test_one_that_was_seen_is_replaced_and_one_that_was_not_stays(self, tmp_path: Path) -> None:
        seen, unseen = tmp_path / "seen", tmp_path / "unseen"
        seen.write_text("old\n")
        unseen.write_text("theirs\n")
        assert carry_out(self.step(File(str(seen), "new\n", before=digest("old\n"))), False).failure is None
        for before in (None, digest("old\n")):
            failure = carry_out(self.step(File(str(unseen), "new\n", before=before)), False).failure
            assert failure is not None and "left alone" in failure
        assert seen.read_text() == "new\n" and unseen.read_text() == "theirs\n"

    def test_bytes_that_are_no_text_stay_what_they_are(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"caf\xe9\r\n")
        before = files.content(str(path))
        assert before is not None
        assert carry_out(self.step(File(str(path), before + "more\n", before=digest(before))), False).failure is None
        assert path.read_bytes() == b"caf\xe9\r\nmore\n"

    def test_a_link_stays_one_and_mode_and_owner_stay(self, tmp_path: Path) -> None:
        real, link = tmp_path / "real", tmp_path / "link"
        real.write_text("old\n")
        real.chmod(0o640)
        os.chown(real, 12, 34)
        link.symlink_to(real)
        assert carry_out(self.step(File(str(link), "new\n", before=digest("old\n"))), False).failure is None
        there = real.stat()
        assert link.is_symlink() and real.read_text() == "new\n"
        assert (there.st_mode & 0o777, there.st_uid, there.st_gid) == (0o640, 12, 34)


class TestSharedFiles:
    """cluster.fw and lvm.conf are others', too: an edit between two tries is no reason to stop."""

    RULE = "IN ACCEPT -source 10.0.0.1,10.0.0.2 -p tcp -dport 7789 # pvedrbdstor: DRBD r0"

    @pytest.fixture
    def firewall(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(paths, "FIREWALL", str(tmp_path / "cluster.fw"))
        return tmp_path / "cluster.fw"

    def step(self, file: File) -> Step:
        return Step("a.file", "a", Kind.FILE, "t", "w", files=(file,), about={"resource": "r0", "minor": "0"})

    def test_our_rules_go_into_what_the_firewall_is_now(self, firewall: Path) -> None:
        planned = File(str(firewall), f"[RULES]\n\n{self.RULE}\nIN DROP\n", before=digest("[RULES]\nIN DROP\n"))
        firewall.write_text("[RULES]\nIN DROP # edited since\n")
        assert carry_out(self.step(planned), False) == Outcome()
        assert firewall.read_text() == f"[RULES]\n\n{self.RULE}\nIN DROP # edited since\n"
        firewall.write_text(firewall.read_text() + "IN ACCEPT\n")
        assert carry_out(self.step(planned), False) == Outcome(already=True)

    def test_our_filter_goes_into_what_lvm_conf_is_now(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        conf = tmp_path / "lvm.conf"
        monkeypatch.setattr(paths, "LVM_CONF", str(conf))
        planned = File(str(conf), "none of it", before=digest("old"))
        conf.write_text('devices {\n\tglobal_filter = [ "r|x|" ]\n}\n')
        assert carry_out(self.step(planned), False) == Outcome()
        assert '"r|^/dev/drbd0$|", "r|x|"' in conf.read_text()
        conf.write_text(conf.read_text() + "# edited\n")
        assert carry_out(self.step(planned), False) == Outcome(already=True)
        conf.write_text("devices {\n\tglobal_filter = [\n]\n}\n")
        failure = carry_out(self.step(planned), False).failure
        assert failure is not None and "put" in failure and "move it away" not in failure

    def test_where_there_is_no_such_file_none_is_made(self, firewall: Path) -> None:
        assert carry_out(self.step(File(str(firewall), "x", before=digest("y"))), False) == Outcome(already=True)
        assert not firewall.exists()


class TestResourceFile:
    """drbdadm itself reads them, from elsewhere."""

    GOOD = (
        "resource zz { net { protocol C; } on a { device /dev/drbd9; disk /dev/null; meta-disk internal; address 10.0.0.1:7799; }\n"
        "on b { device /dev/drbd9; disk /dev/null; meta-disk internal; address 10.0.0.2:7799; } }\n"
    )

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "drbd.d").mkdir()
        (tmp_path / "drbd.conf").write_text('include "drbd.d/*.res";\n')
        monkeypatch.setattr(paths, "DRBD_CONF", str(tmp_path / "drbd.conf"))
        monkeypatch.setattr(paths, "RESOURCES", str(tmp_path / "drbd.d"))
        return tmp_path / "drbd.d"

    def outcome(self, folder: Path, text: str) -> Outcome:
        return carry_out(Step("a.f", "a", Kind.FILE, "t", "w", files=(File(f"{folder}/zz.res", text),)), False)

    def test_one_that_drbdadm_reads_is_written(self, folder: Path) -> None:
        assert self.outcome(folder, self.GOOD) == Outcome()
        assert os.listdir(folder) == ["zz.res"]

    def test_one_that_it_rejects_leaves_nothing_behind(self, folder: Path) -> None:
        failure = self.outcome(folder, self.GOOD + "nonsense\n").failure
        assert failure is not None and "rejects" in failure and os.listdir(folder) == []

    def test_one_that_does_not_go_with_those_that_are_there_is_not_written(self, folder: Path) -> None:
        (folder / "own.res").write_text(self.GOOD)
        failure = self.outcome(folder, self.GOOD).failure
        assert failure is not None and os.listdir(folder) == ["own.res"]

    def test_one_of_that_name_is_never_replaced(self, folder: Path) -> None:
        (folder / "zz.res").write_text("# theirs\n")
        step = Step(
            "a.f", "a", Kind.FILE, "t", "w", files=(File(f"{folder}/zz.res", self.GOOD, before=digest("# theirs\n")),)
        )
        assert carry_out(step, False).failure is not None
        assert (folder / "zz.res").read_text() == "# theirs\n"
