#!/usr/bin/env bash
# export.sh DIRECTORY: copy the tree as it is now, without what git ignores, into a directory. Wants git, not a clone.
set -eu
target=$(readlink -f "$1")
cd "$(dirname "$(readlink -f "$0")")/.."
index=$(mktemp -d)
trap 'rm -rf "$index"' EXIT
# An empty repository of our own beside the tree: works in a clone, in an unpacked archive, and in anybody's checkout.
git init -q --bare "$index"
git --git-dir="$index" --work-tree=. ls-files -z --others --exclude-standard |
    tar --create --null --no-recursion --exclude=.git --files-from=- |
    tar --extract --directory="$target" --no-same-owner
