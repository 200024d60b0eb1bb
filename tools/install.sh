# shellcheck shell=bash
# Sourced by dev: installs what a command needs, quickly when it is there already.

# need LIST...: install the packages named in these files, one a line, `#` begins a comment.
need() {
    local wanted missing
    wanted=$(sed 's/#.*//' "$@" | tr -s ' \t\n' '\n' | sed '/^$/d' | sort -u)
    # shellcheck disable=SC2086 # a list of words
    missing=$(comm -13 <(installed_of $wanted) - <<<"$wanted")
    [ -z "$missing" ] && return
    if [ "$(id -u)" -ne 0 ]; then
        echo "dev: these packages are missing; install them, or run this as root:" "${missing//$'\n'/ }" >&2
        exit 77
    fi
    echo "dev: installing" "${missing//$'\n'/ }" >&2
    # shellcheck disable=SC2086
    (forbid_service_starts && apt_get update && apt_get install $missing)
}

installed_of() {
    # shellcheck disable=SC2016 # a format of dpkg-query, not of the shell
    dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null | sed -n 's/ installed$//p' | sort -u
}

apt_get() {
    local log status=0
    log=$(mktemp)
    # --no-remove: on a Proxmox node the wish for a package must never take another away
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        "$1" --yes --no-remove --no-install-recommends "${@:2}" </dev/null >"$log" 2>&1 || status=$?
    [ "$status" -eq 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

# Until the calling (sub)shell ends, no package's scripts start a service: invoke-rc.d(8) asks policy-rc.d, 101 says no.
forbid_service_starts() {
    policy=/usr/sbin/policy-rc.d
    kept=
    if [ -e "$policy" ]; then
        kept=$policy.dev.$BASHPID
        mv "$policy" "$kept"
    fi
    trap 'rm -f "$policy"; [ -z "$kept" ] || mv "$kept" "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
}

# need_venv REQUIREMENTS: tools that Debian does not have, pinned, in .venv on top of Debian's own Python packages.
need_venv() {
    if ! cmp -s "$1" .venv/requirements; then
        echo "dev: installing $(grep -c '==' "$1") linters into .venv" >&2
        /usr/bin/python3 -m venv --clear --system-site-packages .venv
        .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -r "$1" >&2
        cp "$1" .venv/requirements
    fi
}

# need_node: node(1) and npm(1). Where they come from elsewhere, Debian's packages would conflict with them.
need_node() {
    command -v node >/dev/null && command -v npm >/dev/null && return
    need tools/packages-js.txt
}

# need_eslint: the linter for JavaScript, which Debian has too old, pinned with all it needs, in .cache/js.
need_eslint() {
    need_node
    if ! cmp -s tools/js/package-lock.json .cache/js/installed; then
        echo "dev: installing eslint into .cache/js" >&2
        rm -rf .cache/js
        mkdir -p .cache/js
        cp tools/js/package.json tools/js/package-lock.json .cache/js/
        npm ci --prefix .cache/js --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >&2
        cp tools/js/package-lock.json .cache/js/installed
    fi
}

# need_extjs: the library of Proxmox's GUI, as its GPL build on npm: 7 of its 200 MB, unpacked into .cache/extjs.
need_extjs() {
    local version=6.2.0 scratch
    local sum=03f9783ca5c4f3d7688c3a1690d2aaafeda3af217d8d7dcabae6976f735610a6002a2a4dc8fe026725468fb1c1248645f61fe2a316819b7609742925a3e5c3a5
    [ "$(cat .cache/extjs/version 2>/dev/null)" != "$version" ] || return 0
    need_node
    echo "dev: fetching ExtJS $version from npm" >&2
    scratch=$(mktemp -d)
    (
        trap 'rm -rf "$scratch"' EXIT
        npm pack --silent --cache "$scratch/npm" --pack-destination "$scratch" "extjs-gpl@$version" >"$scratch/log"
        echo "$sum  $scratch/extjs-gpl-$version.tgz" | sha512sum --check --quiet
        mkdir -p .cache
        rm -rf .cache/extjs
        mkdir "$scratch/new"
        tar -xzf "$scratch/extjs-gpl-$version.tgz" -C "$scratch/new" --strip-components=2 --no-same-owner \
            --exclude='*-debug*' --exclude='*-rtl*' --exclude='*/ext-watermark' \
            package/build/ext-all.js package/build/classic/theme-crisp/theme-crisp.js \
            package/build/classic/theme-crisp/resources
        echo "$version" >"$scratch/new/version"
        mv "$scratch/new" .cache/extjs
    )
}
