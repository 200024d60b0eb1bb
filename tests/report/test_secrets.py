"""No secret that is planted in any source comes out in the archive, wherever else it is repeated."""

from __future__ import annotations

import json
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pvedrbdstor.doctor.checks import examine
from pvedrbdstor.doctor.facts import Look
from pvedrbdstor.report import archive, both, sources
from pvedrbdstor.report.secrets import LEFT_OUT, redacted, secrets_in, without_secrets
from pvedrbdstor.report.sources import TEXT_MAX, cut, kernel_lines, our_storages
from tests.doctor.world import broken, healthy, node

DUMP = str(node("a").values["dump"])
WORD = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, blacklist_characters="\"'\\;,}"), min_size=6, max_size=30
)
PHRASE = (
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=30)
    .map(str.strip)
    .filter(lambda text: len(text) > 7)
)


def in_dump(secret: str) -> str:
    quoted = secret.replace("\\", "\\\\").replace('"', '\\"')
    return DUMP.replace(
        "verify-alg       crc32c;",
        f'verify-alg       crc32c;\n        cram-hmac-alg    sha256;\n        shared-secret    "{quoted}";',
    )


def everywhere(word: str, phrase: str) -> dict[str, object]:
    """A report of a look that saw the secrets, beside texts that have them where a word says so, and where none does."""
    look = broken(
        {
            "dump": in_dump(phrase),
            "adjust": {"r0": f"drbdsetup-84 net-options --set-defaults --shared-secret={word} --ping-int=5\n"},
            "corosync_conf": f"totem {{\n  key: {phrase}\n}}\n",
        },
        on="b",
    )
    return {
        **both.of_look(look),
        "nodea/etc/drbd.d/r0.res": in_dump(phrase),
        "nodea/etc/pve/storage.cfg": our_storages(
            f"drbdocfs2: ha\n\tpath /mnt/o\n\tpassword {word}\n\ncifs: other\n\tpassword {phrase}\n"
        ),
        "nodea/etc/corosync/corosync.conf": f"totem {{\n  key: {phrase}\n}}\n",
        "nodea/log/pvedrbdstor.txt": f"login with {word} refused; password={word} https://root:{word}@backup/ and {phrase} again\n",
        "nodeb/NOT-READ.txt": f"ssh said {phrase}\n",
        "nodeb/other.json": {"users": [{"name": "root", "password": phrase}], "api_key": word},
    }


@settings(max_examples=40, deadline=None)
@given(WORD, PHRASE)
@example("hunter2secret", "correct horse battery staple")
@example("(left_", 'with "quotes" and \\ backslash')
def test_no_planted_secret_is_in_any_text(word: str, phrase: str) -> None:
    clean = archive.packed(both_known := everywhere("WORD-1234567", "PHRASE-1234567"), 0.0)
    assume(
        not any(secret in text for text in clean.values() for secret in (word, phrase))
    )  # as `6.1.176`, which is none
    assume(LEFT_OUT.split()[0] not in word + phrase)
    packed = archive.packed(everywhere(word, phrase), 0.0)
    assert set(packed) == set(both_known) | {archive.CONTENTS}
    for name, text in packed.items():
        assert word not in text and phrase not in text and json.dumps(phrase)[1:-1] not in text, name


def test_what_is_no_secret_stays() -> None:
    found = examine(healthy())
    assert found == ()
    texts = without_secrets(
        {
            "dump": in_dump("correct horse battery"),
            "conf": "totem {\n  token: 3000\n  secauth: on\n  cluster_name: pve\n}\n",
        }
    )
    assert "ping-int           5;" in texts["dump"] and f"shared-secret    {LEFT_OUT};" in texts["dump"]
    assert texts["conf"] == "totem {\n  token: 3000\n  secauth: on\n  cluster_name: pve\n}\n"


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----\n",
        "b3BlbnNzaC1rZXk\nAAAA==\n-----END PRIVATE KEY-----\n",  # of a text that was cut at its beginning
        "Authorization: PVEAPIToken=root@pam!x=aaaa-bbbb-b3BlbnNzaC1rZXk\n",
        "cipassword: b3BlbnNzaC1rZXk\n",
        '{"password": "b3BlbnNzaC1rZXk"}',
        "smb://user:b3BlbnNzaC1rZXk@host/share",
        "DB_PASSWORD='b3BlbnNzaC1rZXk x'",
        'net {\n  shared-secret\n    "b3BlbnNzaC1rZXk";\n}\n',
        "https://root:p@b3BlbnNzaC1rZXk@backup/share",
        "GET https://b3BlbnNzaC1rZXk00@git.example/x",
    ],
)
def test_usual_forms_of_secrets(text: str) -> None:
    assert "b3BlbnNzaC1rZXk" not in redacted(text, secrets_in(text))


def test_a_token_of_proxmoxs_api_without_a_word_before_it() -> None:
    text = redacted("replied to monitoring@pve!grafana=0123abcd-0123-4567-89ab-0123456789ab\n")
    assert text == f"replied to monitoring@pve!grafana={LEFT_OUT}\n"


def test_a_sentence_that_names_a_secret_tears_no_holes_into_other_texts() -> None:
    """A report on two nodes whose shared secrets are not the same tells that they differ."""
    texts = without_secrets({"doctor": "net shared-secret differs\n", "ids": "drbd-config-differs\n"})
    assert texts["ids"] == "drbd-config-differs\n"
    texts = without_secrets({"dump": "shared-secret hunter;\n", "log": "the hunter was here\n"})
    assert "hunter" not in texts["log"]


def test_a_secret_that_the_cut_goes_through_is_left_out_whole() -> None:
    secret = "correct horse battery staple"
    rest = "drbd r0 x\n" * ((TEXT_MAX - 80) // 10)
    for at in range(0, 80, 16):
        text = f'{" " * 200}\nnet {{ shared-secret "{secret}"; }}\n{rest}{"y" * at}\n'
        clean = archive.packed({"nodea/log/kernel.txt": text}, 0.0)["nodea/log/kernel.txt"]
        assert "horse" not in clean and "battery" not in clean and "staple" not in clean, at
        (told,) = [t for n, t in archive.packed({"a.txt": clean}, 0.0).items() if n == "a.txt"]
        assert told == clean, "a text that was cut once is cut again"


def test_what_is_gathered_is_cut_by_nobody_before_its_secrets_are_out(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "z" * (TEXT_MAX + 10)
    monkeypatch.setattr(sources, "_sources", lambda *_paths: iter([("log/kernel.txt", lambda: long)]))
    assert sources.gather("/does/not/exist", "/does/not") == {"log/kernel.txt": long}


def test_a_short_secret_is_taken_out_where_it_is_named_and_spoils_nothing_else() -> None:
    texts = without_secrets({"a": "shared-secret ab;", "b": "stable\n"})
    assert texts == {"a": f"shared-secret {LEFT_OUT};", "b": "stable\n"}


@given(st.text(), st.sets(st.text(min_size=6), max_size=3))
def test_any_text_is_taken(text: str, known: set[str]) -> None:
    once = redacted(text, known | secrets_in(text))
    assert isinstance(once, str)


def test_properties_of_storages_that_are_not_known_and_other_storages_are_left_out() -> None:
    text = our_storages(
        "drbdocfs2: ha\n\tpath /mnt/o\n\tdrbdocfs2-resource r0\n\tnew-option x\n\npbs: b\n\tserver 10.0.0.1\n\tpassword y\n"
    )
    assert text == f"drbdocfs2: ha\n\tpath /mnt/o\n\tdrbdocfs2-resource r0\n\tnew-option {LEFT_OUT}\n"


def test_the_archive_is_for_its_owner_alone_and_lists_what_it_holds(tmp_path: Path) -> None:
    texts = archive.packed({"nodea/versions.txt": "x\n", "doctor.json": {"healthy": True}}, 0.0)
    path = tmp_path / "report.tar.gz"
    assert archive.write(str(path), "top", texts, 1.0) == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as opened:
        assert sorted(opened.getnames()) == ["top/CONTENTS.txt", "top/doctor.json", "top/nodea/versions.txt"]
        contents = opened.extractfile("top/CONTENTS.txt")
        assert contents is not None
        assert "nodea/versions.txt  packages and kernel" in contents.read().decode()
    with pytest.raises(FileExistsError):
        archive.write(str(path), "top", texts, 1.0)
    assert path.exists()


def test_an_archive_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.tar.gz"
    with pytest.raises(AttributeError):
        archive.write(str(path), "top", {"a": None}, 1.0)  # type: ignore[dict-item]
    assert not path.exists()


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(cut("x" * (TEXT_MAX + 10)).encode()) < TEXT_MAX + 100 and cut("short") == "short"
    monkeypatch.setattr(archive, "TOTAL_MAX", 100)
    texts = archive.packed({"small": "x\n", "large": "y" * 200}, 0.0)
    assert "large" not in texts and texts["small"] == "x\n" and "large  (left out" in texts[archive.CONTENTS]


def test_only_the_kernels_lines_on_the_mirror_are_kept() -> None:
    assert (
        kernel_lines("usb 1-1: new device\ndrbd r0: conn( Connecting )\nocfs2: Mounting\n")
        == "drbd r0: conn( Connecting )\nocfs2: Mounting\n"
    )


def test_the_call_trace_of_a_task_that_hangs_is_kept_to_its_end() -> None:
    trace = "INFO: task kworker:12 blocked for more than 120 seconds.\nCall Trace:\n <TASK>\n schedule+0x2d\n </TASK>\n"
    assert kernel_lines(f"usb 1-1: new\n{trace}usb 1-2: new\n") == trace


def test_the_archive_has_what_the_firewall_does_to_the_mirror_and_nothing_of_its_files() -> None:
    cluster = (
        "[OPTIONS]\nenable: 1\n[ALIASES]\nadmin-at-home 203.0.113.77 # of Ana\n[IPSET offices]\n198.51.100.0/24 # Lisbon\n[RULES]\n"
        "IN SSH(ACCEPT) -source admin-at-home # only Ana\nIN ACCEPT -p tcp -dport 7789\n"
    )
    host = "[RULES]\nIN DROP -source 203.0.113.88 -p tcp -dport 8006 # the noisy one\n"
    look = broken({"firewall": {"cluster": cluster, "host": host}}, on="ab")
    packed = archive.packed(both.of_look(look), 0.0)
    for name, text in packed.items():
        for planted in ("home", "203.0.113", "198.51.100", "offices", "Ana", "Lisbon", "noisy", "8006", "SSH"):
            assert planted not in text, (name, planted)
    told = json.loads(packed["nodea/facts.json"])["values"]["firewall"]
    assert told["on"] is True and {(each["what"], each["in"]) for each in told["connections"]} == {
        ("DRBD", "open"),
        ("OCFS2", "closed"),
    }
    assert {each["out"] for each in told["connections"]} == {"open"} and look.here.mapping("firewall")[
        "cluster"
    ] == cluster


def test_a_firewall_that_was_not_read_is_not_told_to_be_off() -> None:
    here = broken({}).here
    silent = replace(here, values={name: value for name, value in here.values.items() if name != "firewall"})
    facts = json.loads(archive.packed(both.of_look(Look(silent)), 0.0)["nodea/facts.json"])
    assert "firewall" not in facts["values"]


def test_the_archive_says_that_the_lines_of_guests_disks_are_in_it() -> None:
    packed = archive.packed(both.of_look(healthy()), 0.0)
    (drive,) = json.loads(packed["nodea/facts.json"])["values"]["guests:ha"]["drives"]
    assert "," in drive["value"] and "lines of VMs' disks" in packed[archive.CONTENTS]


@pytest.mark.parametrize("key", ["../x", "/etc/x", "a//b", "a/../b", "", "a\nb", "x" * 300, 5])
def test_names_from_another_node_stay_within_the_archive(key: object) -> None:
    assert not both.is_name(key)
    assert both.is_name("etc/drbd.d/r0.res")


def test_what_a_fenced_node_said_before_its_reset_and_the_clusters_logs_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(*argv: str, limit: int = 0) -> str:
        return f"drbd {' '.join(argv)}\n"

    monkeypatch.setattr(sources, "_run", said)
    texts = sources.gather("/does/not/exist", "/does/not")
    assert "-k -b -1" in texts["log/kernel-boot-before.txt"]
    assert "-u corosync " in texts["log/cluster.txt"] and "-u pve-ha-lrm" in texts["log/cluster.txt"]
