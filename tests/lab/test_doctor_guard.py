"""What `pvedrbdstor doctor` tells of fencing on a pair with corosync and the guard, each cleared by doing what its remedy says."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import pytest

from tests.lab import splitting
from tests.lab.assets import REPOSITORY
from tests.lab.corosync import QDEVICE, QNETD, Witness, configuration
from tests.lab.doctoring import RES_FILE, Finding, edit_drbd_conf, findings, follow, told
from tests.lab.formation import RESOURCE, STORAGE, on_each
from tests.lab.node import Node
from tests.lab.ops import wait_until
from tests.lab.protection import Protection
from tests.lab.trial import Trial, running

REPRODUCES = {"mirror-unprotected", "guard-handicap", "guard-old"}
ALL_OF_IT = ("mirror-unprotected", "mirror-degraded", "guard-handicap", "guard-old")
ADJUST = f"drbdadm adjust {RESOURCE}"
OLD = "/root/older"
CONF, DEFAULTS = "/etc/corosync/corosync.conf", "/etc/default/o2cb"
DOWN, UP = f"pvedrbdstor mirror down {STORAGE}", f"pvedrbdstor mirror up {STORAGE}"


def of(node: Node, *ids: str) -> list[Finding]:
    return [each for each in findings(node) if each["id"] in ids]


def causes(node: Node) -> str:
    return " ".join(each["title"] for each in of(node, "mirror-unprotected"))


def wait_for(node: Node, id: str, nodes: str, words: str) -> list[Finding]:
    """Wait until each of these nodes is told of in a finding that has the words; those."""
    found: list[Finding] = []

    def is_told() -> bool:
        found[:] = [each for each in of(node, id) if words in each["title"]]
        return sorted({name for each in found for name in each["nodes"]}) == nodes.split()

    wait_until(is_told, f"{words} is told of {nodes}", 90)
    return found


def wait_for_calm(node: Node, what: str) -> None:
    """Until nothing is told of fencing, nor of a loss that is not forgiven yet."""
    wait_until(lambda: not of(node, *ALL_OF_IT), what, 120)


def write_conf(trial: Trial, change: Callable[[str], str], version: int) -> None:
    """As pmxcfs does when Proxmox changes corosync.conf: on both nodes, and read anew."""
    corosync = trial.corosync
    text = change(configuration(corosync.members, corosync.third, corosync.witness))
    for node in trial.cluster.nodes:
        (node.share / "etc-corosync" / "corosync.conf").write_text(
            text.replace("config_version: 1", f"config_version: {version}")
        )
        node.run(f"cp /run/lab/etc-corosync/corosync.conf {CONF}")
    trial.cluster.a.run("corosync-cfgtool -R", 30)


def set_in_file(node: Node, setting: str, file: str) -> None:
    """What a reader does who is told "set X=5 in a file", or "set 'x 5;' in net { } of the DRBD resource"."""
    name, value = re.fullmatch(r"([\w-]+[ =])([^ ;]+;?)", setting).groups()  # type: ignore[union-attr]
    node.run(f"grep -qE '{name}' {file} && sed -i -E 's/(^|[^[:alnum:]-]){name}[0-9]+;?/\\1{name}{value}/' {file}")
    assert setting in node.run(f"cat {file}")


def start_older_guard(node: Node, protection: Protection) -> None:
    """That of another version, as it runs on after an upgrade."""
    node.run(
        f"""set -e
mkdir -p {OLD} && cp -r {REPOSITORY}/pvedrbdstor {OLD}/
sed -i -E 's/^__version__ = .*/__version__ = "0.0.1"/' {OLD}/pvedrbdstor/__init__.py
cp -p /usr/bin/pvedrbdstor /root/newer && sed -i 's#PYTHONPATH={REPOSITORY}#PYTHONPATH={OLD}#' /usr/bin/pvedrbdstor"""
    )
    protection.kill(node)
    protection.start(node)
    wait_until(lambda: node.sh("grep -q 0.0.1 /run/pvedrbdstor-fence/status.json").rc == 0, "the older guard runs", 60)
    node.run("mv /root/newer /usr/bin/pvedrbdstor")


@pytest.mark.soak
def test_fencing_that_cannot_work_is_set_right_as_told() -> None:
    with running(Protection(), Witness()) as trial:
        protection, nodes = trial.protection, trial.cluster.nodes
        a, b = nodes
        on_each(nodes, splitting.prepare)
        assert not of(a, "mirror-unprotected", "guard-handicap", "guard-old")

        start_older_guard(a, protection)
        old = next(each for each in of(a, "guard-old"))
        told(old, "hint", "nodea")
        told(next(each for each in of(a, "guard-handicap")), "warning", "nodea")
        assert old["commands"] == ["systemctl restart pvedrbdstor-fence"]  # as the lab does, which has no systemd:
        protection.kill(a)
        protection.start(a)
        handicap = next(each for each in of(a, "guard-handicap"))
        assert handicap["remedy"].startswith("Wait 30 s") and handicap["commands"] == ["pvedrbdstor fencing status"]
        wait_until(lambda: protection.ready(a), "what has passed is forgiven", 60)
        a.run(handicap["commands"][0], 60)
        assert not of(a, "guard-handicap", "guard-old")

        protection.kill(b)
        wait_until(lambda: "The guard is not running" in causes(a), "a guard is missed", 60)
        (missing,) = of(a, "mirror-unprotected")
        told(missing, "error", "nodeb")
        assert missing["commands"] == ["systemctl start pvedrbdstor-fence", "journalctl -u pvedrbdstor-fence"]
        protection.start(b)
        wait_until(lambda: not of(a, "mirror-unprotected"), "the guard is seen", 60)

        for node in nodes:
            node.run(
                f"sed -i -E 's/fencing resource-and-stonith;//; s/fence-peer [^;]*;//; s/after-sb-1pri disconnect/after-sb-1pri discard-secondary/' {RES_FILE}"
            )
            node.run(ADJUST)
        wait_until(lambda: "discard-secondary" in causes(a) and "fencing is 'dont-care'" in causes(a), "it is told", 60)
        for finding in of(a, "mirror-unprotected"):
            if "drbd.conf" not in finding["remedy"]:
                continue  # what follows from the others
            assert finding["severity"] == "error" and finding["commands"] == [
                f"drbdadm --dry-run adjust {RESOURCE}",
                ADJUST,
            ], finding
            edit_drbd_conf(nodes, finding)
            on_each(nodes, lambda node: node.run(ADJUST))
        wait_until(
            lambda: not of(a, "mirror-unprotected", "drbd-config-differs", "drbd-config-not-in-force"),
            "all is well",
            60,
        )


@pytest.mark.soak
def test_a_third_vote_that_is_lost_or_taken_away_comes_back_as_told() -> None:
    """The lab has no systemd and no pvecm: its own start of corosync's programs stands in for theirs, and its corosync.conf for pvecm's."""
    with running(Protection(), Witness()) as trial:
        corosync, (a, b), c = trial.corosync, trial.cluster.nodes, trial.cluster.c
        assert c is not None
        on_each(trial.cluster.nodes, splitting.prepare)
        wait_for_calm(a, "all is well at first")

        corosync.signal(c, QNETD, signal.SIGKILL)
        for finding in wait_for(a, "mirror-degraded", "nodea nodeb", "casts no vote"):
            told(finding, "warning", " ".join(finding["nodes"]))
            assert f"on its host, {c.address}, which" in finding["remedy"]
            assert finding["commands"] == ["systemctl restart corosync-qnetd"]
        assert re.search(r"1 +1 +A,NV,", a.run("corosync-quorumtool -s")), "corosync-qdevice itself is well"
        corosync.start(c)
        wait_for_calm(a, "the vote is back, and that it was lost forgiven")

        corosync.signal(b, QDEVICE, signal.SIGKILL)
        (finding,) = wait_for(a, "mirror-degraded", "nodeb", "The QDevice is configured and ")
        told(finding, "warning", "nodeb")
        assert finding["commands"] == ["systemctl restart corosync-qdevice", "journalctl -u corosync-qdevice"]
        corosync.start(b)
        wait_for_calm(a, "the QDevice is back")

        for node in trial.cluster.nodes:
            corosync.signal(node, QDEVICE, signal.SIGTERM)
        write_conf(trial, lambda text: re.sub(r"  device \{.*?\n  \}\n", "", text, flags=re.S), 2)
        for finding in wait_for(a, "mirror-unprotected", "nodea nodeb", "neither a QDevice nor a third node"):
            told(finding, "error", " ".join(finding["nodes"]))
            assert "'pvecm qdevice setup ADDRESS'" in finding["remedy"]
        write_conf(trial, lambda text: text, 3)
        on_each(trial.cluster.nodes, corosync.start)
        wait_for_calm(a, "there is a third vote again")


@pytest.mark.soak
def test_times_that_do_not_fit_are_set_as_told() -> None:
    with running(Protection(), Witness()) as trial:
        nodes = trial.cluster.nodes
        a, _ = nodes
        trial.end()
        on_each(nodes, trial.stop_writers)
        on_each(nodes, splitting.prepare)
        wait_for_calm(a, "all is well at first")

        for setting, race in (("ping-int 10;", "detection"), ("connect-int 20;", "reconnect")):
            for node in nodes:
                set_in_file(node, setting, RES_FILE)
                node.run(ADJUST)
            found = wait_for(a, "mirror-unprotected", "nodea nodeb", f"({race})")
            for finding in found:
                told(finding, "error", " ".join(finding["nodes"]))
                assert "in net { } of the DRBD resource, then run" in finding["remedy"]
            lines, _, _ = found[0]["remedy"].partition(" in net { }")
            for line in re.findall(r"'([a-z-]+ [0-9]+;)'", lines):
                on_each(nodes, lambda node, line=line: set_in_file(node, line, RES_FILE))  # type: ignore[misc]
            follow(nodes, found[0], [ADJUST])
            wait_for_calm(a, f"{race} fits")

        for node in nodes:
            set_in_file(node, "O2CB_HEARTBEAT_THRESHOLD=21", DEFAULTS)
        for command in (DOWN, UP):
            on_each(nodes, lambda node, command=command: node.run(command, 150))  # type: ignore[misc]
        found = wait_for(a, "mirror-unprotected", "nodea nodeb", "OCFS2's dead time less a beat (38.0 s)")
        for finding in found:
            told(finding, "error", " ".join(finding["nodes"]))
            assert finding["remedy"] == found[0]["remedy"]
        (setting,) = re.findall(r"^Set (\S+) in /etc/default/o2cb on every node, then run", found[0]["remedy"])
        on_each(nodes, lambda node: set_in_file(node, setting, DEFAULTS))
        follow(nodes, found[0], [DOWN, UP], 150)
        wait_for_calm(a, "the dead time is long enough")
