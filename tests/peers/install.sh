#!/usr/bin/env bash
# Install the real programs that the tests run beside: the Debian packages of apt.txt (and those named as arguments),
# the npm packages of package.json, and the Python packages of requirements.txt in an environment of their own.
#
# Only what is missing, only as root on a system with apt, never by removing anything, and without starting a
# service. Elsewhere this does nothing and says so: the tests that miss their peer are then skipped, each with its reason.
# With CI=true what cannot be installed is an error.
set -euo pipefail
cd "$(dirname "$0")"

wanted() {
    sed 's/#.*//' apt.txt
    printf '%s\n' "$@"
}

present() { # installed packages and the names that they provide (NodeSource's nodejs provides npm)
    dpkg-query --show --showformat '${db:Status-Abbrev}|${Package}, ${Provides}\n' |
        sed -n 's/^ii *|//p' | tr ',' '\n' | sed 's/(.*//'
}

missing() {
    comm -23 <(wanted "$@" | tr -s ' \t' '\n' | grep . | sort -u) <(present | tr -d ' ' | sort -u)
}

give_up() {
    echo "tests/peers: $1; the tests that need it will be skipped" >&2
    [ "${CI:-}" != true ]
}

# Debian starts what it installs, unless this file says no. Ours says no while this script runs, and if we are
# killed before we can remove it, it says yes.
POLICY=/usr/sbin/policy-rc.d
start_nothing() {
    [ -e "$POLICY" ] && return
    trap 'rm -f "$POLICY"' EXIT
    printf '#!/bin/sh\nkill -0 %d 2>/dev/null && exit 101\nexit 0\n' $$ >"$POLICY"
    chmod 755 "$POLICY"
}

install_debian() {
    local packages
    mapfile -t packages < <(missing "$@")
    [ ${#packages[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        give_up "only root can install ${packages[*]}"
        return
    fi
    echo "tests/peers: installing ${packages[*]}"
    start_nothing
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null &&
        apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends --no-remove install "${packages[@]}" \
            </dev/null >/dev/null || give_up "apt-get could not install ${packages[*]}"
}

install_npm() {
    [ -e package.json ] || return 0
    [ node_modules/.package-lock.json -nt package.json ] && return
    if ! command -v npm >/dev/null; then
        give_up "npm is not here"
        return
    fi
    npm install --silent --no-package-lock --no-audit --no-fund </dev/null || give_up "npm could not install package.json"
}

install_python() {
    local environment=../../build/peers
    [ "$environment/installed" -nt requirements.txt ] && return
    mkdir -p "$environment"
    { "${PYTHON:-python3}" -m venv "$environment" &&
        "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt </dev/null &&
        touch "$environment/installed"; } || give_up "pip could not install requirements.txt"
}

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    install_debian "$@"
else
    give_up "this is not a Debian system"
fi
install_npm
install_python
