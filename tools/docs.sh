#!/usr/bin/env bash
# Renew the pages that are made from the code, and build the manual and the man pages into build/docs/.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
/usr/bin/python3 tools/messages.py docs/messages.md
rm -rf build/docs
for builder in html man; do
    sphinx-build -q -W --keep-going -n -b "$builder" -d build/docs/doctrees docs "build/docs/$builder"
done
echo "build/docs/html/index.html; man -l build/docs/man/pvedrbdstor.8"
