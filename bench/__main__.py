"""`python3 -m bench`: measure the whole line against what Proxmox's base class does; `--lab`: on two nodes with OCFS2;
`--status`: the call that pvestatd makes all day; `--digest`: reading and hashing a device, against fio.

A missed goal is shown, not an error: the exit status is 0 unless the bench itself fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench import digest, local, machine, picture, report, status
from bench.perl_side import BenchError, pve_tree
from bench.report import Report

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m bench", description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--lab", action="store_true", help="on a two-node cluster in user space, instead of here")
    parser.add_argument("--status", action="store_true", help="10 000 calls of status, also with a mount that hangs")
    parser.add_argument("--digest", action="store_true", help="1 GiB read and hashed, against fio reading it")
    parser.add_argument("--output", type=Path, default=ROOT / "artifacts" / "bench", help="folder for JSON and picture")
    parser.add_argument(
        "--update-docs", action="store_true", help="also write docs/bench*.{json,svg} and the table there"
    )
    options = parser.parse_args(arguments)
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s   {text}", file=sys.stderr, flush=True)

    kinds = {"bench-lab": options.lab, "bench-status": options.status, "bench-digest": options.digest}
    name = next((kind for kind, wanted in kinds.items() if wanted), "bench")
    try:
        if options.lab:
            result = measure_lab(progress)
        elif options.status:
            result = status.measure(progress)
        elif options.digest:
            result = digest.measure(progress)
        else:
            result = measure_here(progress)
    except BenchError as error:
        print(f"the bench failed: {error}", file=sys.stderr)
        return 1
    drawn = picture.svg(result)
    print(report.table(result))
    print("".join(f"{line}\n" for line in result.extra), end="")
    report.write(result, options.output, name, drawn)
    if options.update_docs:
        report.write(result, DOCS, name, drawn)
        page = DOCS / "bench.md"
        page.write_text(report.replace_between(page.read_text(), name, report.markdown(result)))
    missed = len(result.missed)
    print(
        f"{missed} goals missed" if missed else "all goals met",
        f"({time.monotonic() - started:.0f} s)",
        file=sys.stderr,
    )
    return 0


def measure_here(progress: local.Progress) -> Report:
    tree = pve_tree()
    baseline = "PVE's base class, re-enacted" if tree is None else "PVE's own base class"
    return Report(
        title="A storage call, from Perl to the disk and back",
        command="./dev bench --update-docs",
        machine={**machine.facts(), "file system": "XFS on a sparse file"},
        baseline=f"{baseline}; for snapshot and clone the bare FICLONE call",
        rows=local.compare(progress, tree),
    )


def measure_lab(progress: local.Progress) -> Report:
    from bench import lab

    return lab.measure(progress)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
