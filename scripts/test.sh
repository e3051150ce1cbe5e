#!/usr/bin/env bash
# Everything but the campaigns: stage after stage, with the time of each, up to the first that fails; the last line
# counts the tests. Whatever a test had to skip (a part that is in no reachable registry) is listed with its reason:
# whoever skips appends a line to the file that NEO4J_BACKUP_TEST_SKIPS names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
# The job server of a calling make is not meant for cargo.
unset MAKEFLAGS MFLAGS MAKELEVEL

record="$(mktemp -d)"
trap 'rm -rf "$record"' EXIT
export NEO4J_BACKUP_TEST_SKIPS="$record/skips"
: >"$NEO4J_BACKUP_TEST_SKIPS"
: >"$record/times"
started=$SECONDS

took() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); }

stage() {
    local name="$1" begin=$SECONDS status=0
    shift
    printf '\n=== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$record/output" || status=$?
    cat "$record/output" >>"$record/all"
    printf '=== %s: %s\n' "$name" "$(took $((SECONDS - begin)))"
    printf '  %-14s %s\n' "$name" "$(took $((SECONDS - begin)))" >>"$record/times"
    if [ "$status" -ne 0 ]; then
        printf '\nmake test: FAILED in stage %s (exit %d) after %s\n' "$name" "$status" "$(took $((SECONDS - started)))"
        exit 1
    fi
}

# 77 is "cannot be done on this machine", with the reason in the last line.
host_test() {
    local status=0
    scripts/host-test.sh 2>&1 | tee "$record/host" || status=$?
    [ "$status" -eq 77 ] || return "$status"
    printf 'host: %s\n' "$(tail -n 1 "$record/host")" >>"$NEO4J_BACKUP_TEST_SKIPS"
}

# Adds up what cargo's test programs say of themselves: `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
count() {
    awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i == word ";") sum += $(i - 1) } END { print sum + 0 }' \
        "$record/all"
}

stage prerequisites scripts/install-prerequisites.sh build test
stage lint scripts/lint.sh
stage build cargo build --release --locked --all-targets
stage unit cargo test --release --locked --lib --bins
stage documentation cargo test --release --locked --doc
# Its findings name file and line themselves.
stage tidy env RUST_BACKTRACE=0 cargo test --release --locked --test tidy
# These wait for servers for almost half of their time.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) + 1))}"
stage integration cargo test --release --locked --test it
# The package on a host that boots: systemd, polkit, logind, timers.
stage host host_test

printf '\nTime of each stage\n'
cat "$record/times"
if [ -s "$NEO4J_BACKUP_TEST_SKIPS" ]; then
    printf '\nSkipped\n'
    sort -u "$NEO4J_BACKUP_TEST_SKIPS" | sed 's/^/  /'
fi
printf '\nmake test: %d tests passed, %d ignored, %d skipped, in %s\n' "$(count passed)" "$(count ignored)" \
    "$(sort -u "$NEO4J_BACKUP_TEST_SKIPS" | grep -c . || true)" "$(took $((SECONDS - started)))"
