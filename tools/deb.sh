#!/usr/bin/env bash
# Build the package into artifacts/ and let lintian look at it: its errors and warnings end this with a failure.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
rm -f artifacts/pvedrbdstor_*
tools/build-deb.sh artifacts
tools/lint-deb.sh artifacts
ls -1 "$PWD"/artifacts/*.deb
