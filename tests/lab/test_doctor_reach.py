"""What `pvedrbdstor doctor` tells of a node that does not answer, and of one with another version; each cleared by doing what its remedy says.

The nodes' sshd is a stand-in (guest/remote.py), and so is what apt installs: the program that runs from the checkout.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pvedrbdstor.nodes import Way, asking
from tests.lab import splitting, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.doctoring import NEVER_COMPARED, Finding, doctor, prepare, told
from tests.lab.node import Node

REPRODUCES = {"node-silent", "versions-differ"}
PROGRAM, OLDER = "/usr/bin/pvedrbdstor", "/root/older"


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    """In the end b's sshd runs, and its program is the right one."""
    prepare(volumes)
    yield volumes
    splitting.trust(volumes.b)
    storage.write_program(volumes.b)
    volumes.b.run(f"rm -rf {OLDER}")


def only(node: Node, name: str, nodes: str = "") -> Finding:
    """The one finding, a warning."""
    found = doctor(node)
    assert set(found) - NEVER_COMPARED == {name}, list(found.values())
    return told(found[name], "warning", nodes)


def test_a_node_whose_sshd_is_down_or_whose_program_does_not_run(pair: Cluster) -> None:
    """Of which the remedy's first command tells which one it is."""
    a, b = pair.nodes
    b.run("pkill -f 'remote.py serve' && rm /run/remote.started")
    refused = only(a, "node-silent")
    assert "Connection refused" in refused["meaning"]
    ask, keys, look = refused["commands"]
    assert (ask, keys, look) == (asking(Way("nodeb"), "true"), "pvecm updatecerts", "pvedrbdstor doctor")
    assert "its sshd must run" in refused["remedy"]
    said = a.sh(ask)
    assert said.rc == 255 and "Connection refused" in said.out, said.out
    splitting.trust(b)  # `systemctl start ssh`

    b.run(f"mv {PROGRAM} {PROGRAM}.kept")
    silent = only(a, "node-silent")
    assert "not found" in silent["meaning"] and silent["commands"] == [ask, keys, look]
    said = a.sh(ask)
    assert (said.rc, said.out) == (0, ""), said.out
    assert "not found" in b.sh(look).out
    b.run(f"mv {PROGRAM}.kept {PROGRAM}")
    assert set(doctor(a)) <= NEVER_COMPARED


@pytest.mark.soak
def test_the_older_of_two_versions_is_renewed(pair: Cluster) -> None:
    a, b = pair.nodes
    b.run(
        f"""set -e
mkdir -p {OLDER} && cp -r {REPOSITORY}/pvedrbdstor {OLDER}/
sed -i -E 's/^__version__ = .*/__version__ = "0.0.1"/' {OLDER}/pvedrbdstor/__init__.py
sed -i 's#PYTHONPATH={REPOSITORY}#PYTHONPATH={OLDER}#' {PROGRAM}"""
    )
    newer = a.run("pvedrbdstor --version").split()[-1]
    assert b.run("pvedrbdstor --version").split()[-1] == "0.0.1"
    for node in pair.nodes:
        differ = only(node, "versions-differ", "nodea nodeb" if node is a else "nodeb nodea")
        assert differ["commands"] == [f"apt install ./pvedrbdstor_{newer}_amd64.deb"]
        assert "on nodeb as well" in differ["remedy"]
    storage.write_program(b)  # what apt does
    assert set(doctor(a)) <= NEVER_COMPARED
