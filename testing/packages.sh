#!/bin/sh
# Sourced by the scripts that fetch servers for the tests.
set -eu

say() { echo "fetch.sh: $*" >&2; }

# install_packages PACKAGE...: Debian's packages, where this is root on a system like it.
install_packages() {
    [ $# -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        say "missing: $*; install them (this is not root on a Debian-like system, so it was not done for you)"
        exit 1
    fi
    say "installing $*"
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends "$@" >&2
}
