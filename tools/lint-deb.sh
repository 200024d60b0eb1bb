#!/usr/bin/env bash
# lint-deb.sh DIRECTORY: lintian over the package built there; fails on errors and warnings, shows the rest.
set -eu
lintian --pedantic --display-info --fail-on=error,warning --allow-root --tag-display-limit 0 "$1"/pvedrbdstor_*.deb
