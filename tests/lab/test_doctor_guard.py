"""What `pvedrbdstor doctor` tells of fencing on a pair with corosync and the guard, each cleared by doing what its remedy says."""

from __future__ import annotations

import pytest

from tests.lab import splitting
from tests.lab.assets import REPOSITORY
from tests.lab.corosync import Witness
from tests.lab.doctoring import RES_FILE, Finding, edit_drbd_conf, findings, told
from tests.lab.formation import RESOURCE, on_each
from tests.lab.node import Node
from tests.lab.ops import wait_until
from tests.lab.protection import Protection
from tests.lab.trial import running

REPRODUCES = {"mirror-unprotected", "guard-handicap", "guard-old"}
ADJUST = f"drbdadm adjust {RESOURCE}"
OLD = "/root/older"


def of(node: Node, *ids: str) -> list[Finding]:
    return [each for each in findings(node) if each["id"] in ids]


def causes(node: Node) -> str:
    return " ".join(each["title"] for each in of(node, "mirror-unprotected"))


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
