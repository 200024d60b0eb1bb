#!/usr/bin/env bash
# build-deb.sh DIRECTORY [VERSION]: build the Debian package of the tree as it is now into a directory; the tree stays as
# it is. VERSION, when given, goes on top of the changelog. Same tree, same version: the same .deb, byte by byte.
set -eu
mkdir -p "$1"
output=$(readlink -f "$1")
version=${2:-}
tools=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

source=$work/pvedrbdstor
mkdir "$source"
"$tools/export.sh" "$source"
cd "$source"
if [ -n "$version" ]; then
    { sed -n "1s/([^)]*)/($version)/p; 2p" debian/changelog; printf '  * Built as %s.\n\n' "$version"
      grep -m1 '^ -- ' debian/changelog; echo; cat debian/changelog; } >"$work/changelog"
    mv "$work/changelog" debian/changelog
fi
# The time of a checkout says nothing, and would be in the package.
find . -exec touch --date="$(dpkg-parsechangelog --show-field=Date)" {} +
# Only Debian's own programs, and nothing of the caller's environment, take part.
umask 022
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$work" LC_ALL=C.UTF-8 \
    dpkg-buildpackage --build=binary --no-sign -rfakeroot >"$output/build.log" 2>&1 || {
    tail -n 60 "$output/build.log" >&2
    exit 1
}
mv "$work"/pvedrbdstor_*.deb "$work"/pvedrbdstor_*.changes "$work"/pvedrbdstor_*.buildinfo "$output"
