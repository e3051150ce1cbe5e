#!/usr/bin/env bash
# rustfmt, clippy with warnings as errors, and cargo-deny (licences, sources, bans, advisories).
#
# cargo-deny is kept outside the checkout, in ${NEO4J_BACKUP_TEST_CACHE:-~/.cache/neo4j-backup-agent}/bin, and built
# once if it is not there. Unoptimised it takes a minute to build and a second to run; optimised it takes far longer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"

deny_version=0.20.2
cache="${NEO4J_BACKUP_TEST_CACHE:-$HOME/.cache/neo4j-backup-agent}"
# How long the advisory database may take to arrive, in seconds.
fetch_timeout_seconds=60

install_cargo_deny() {
    local build
    build="$(mktemp -d)"
    # From outside the checkout, so that its own toolchain and settings do not apply to a stranger's program.
    if (cd "$build" && CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$build/target" \
        cargo install --quiet --locked --debug --no-track --root "$build/root" "cargo-deny@$deny_version"); then
        mkdir -p "$cache/bin"
        # Renamed into place, so that another run never starts half a program.
        mv "$build/root/bin/cargo-deny" "$cache/bin/.cargo-deny.$$"
        mv "$cache/bin/.cargo-deny.$$" "$cache/bin/cargo-deny-$deny_version"
    fi
    rm -rf "$build"
}

check_advisories() {
    local log status=0
    log="$(mktemp)"
    GIT_TERMINAL_PROMPT=0 timeout "$fetch_timeout_seconds" "$deny" --color never check advisories >"$log" 2>&1 || status=$?
    if [ "$status" -ne 0 ] && { [ "$status" -eq 124 ] || grep -q 'failed to fetch advisory database' "$log"; }; then
        local why="the advisory database could not be fetched: $(grep -m1 '^fatal:' "$log" || echo "no answer in $fetch_timeout_seconds s")"
        echo "lint: SKIPPED cargo deny check advisories: $why"
        if [ -n "${NEO4J_BACKUP_TEST_SKIPS:-}" ]; then
            echo "cargo deny check advisories: $why" >>"$NEO4J_BACKUP_TEST_SKIPS"
        fi
        status=0
    elif [ "$status" -ne 0 ]; then
        cat "$log" >&2
    fi
    rm -f "$log"
    return "$status"
}

echo "lint: cargo fmt --check"
cargo fmt --check
echo "lint: cargo clippy -D warnings"
cargo clippy --quiet --release --locked --all-targets -- -D warnings
echo "lint: cargo deny $deny_version"
deny="$cache/bin/cargo-deny-$deny_version"
[ -x "$deny" ] || install_cargo_deny
if [ ! -x "$deny" ]; then
    echo "lint: cargo-deny $deny_version could not be installed; the lines above say why" >&2
    exit 1
fi
"$deny" --log-level error --locked check --hide-inclusion-graph licenses bans sources
check_advisories
