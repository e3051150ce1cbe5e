#!/usr/bin/env bash
# The long fault campaigns: `kill -9` of the agent at many points of a backup and of a restore in place, and rounds of
# writing, archiving, killing the server and restoring, on real servers. `make test` runs a small version of each.
#
#   campaign.sh [simulated] [postgresql] [neo4j] [online] [enterprise] [s3]     without arguments: all of them
#
#   simulated    every durable step of the agent, one after the other, with a simulated database
#   postgresql   KILLS points spread over a base backup and over a restore in place of a real PostgreSQL
#   neo4j        KILLS points spread over a dump and over a restore in place of a real Neo4j
#   online       ROUNDS rounds on a real Neo4j of each version: writers, a base at a random moment, increments, `kill -9` of
#                the server, restores to the end, to a time and to a transaction
#   enterprise   artifacts of a real store through a stand-in for Enterprise's tools, with each version
#   s3           a bucket of a real server in bad weather, WEATHER rounds of each sort (3), and UPLOAD_KILLS kills in the middle of
#                uploads (100)
#
# KILLS and ROUNDS can be set in the environment; without it, 20 and 25 (of the online rounds `ROUNDS=10-25` plays only those,
# and LOG=V9 or LOG=V10 only those with such a log). After each kill there must be a complete, verified backup or none,
# old or new data, no debris after the next start, and the server up. The last lines are the figures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
# The job server of a calling make is not meant for cargo.
unset MAKEFLAGS MFLAGS MAKELEVEL

export NEO4J_BACKUP_KILLS="${KILLS:-20}" NEO4J_BACKUP_ROUNDS="${ROUNDS:-25}"
[ -z "${LOG:-}" ] || export NEO4J_BACKUP_LOG="$LOG"
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(simulated postgresql neo4j online enterprise s3)
for part in "${parts[@]}"; do
    case "$part" in
        simulated | postgresql | neo4j | online | enterprise | s3) ;;
        *)
            echo "campaign: there is no part $part; see the head of this script" >&2
            exit 2
            ;;
    esac
done

scripts/install-prerequisites.sh build test
record="$(mktemp -d)"
trap 'rm -rf "$record"' EXIT

# One after the other: a kill that falls while another server starts would only measure the machine.
run() { cargo test --release --locked --test it "$1" -- --nocapture --test-threads=1 2>&1 | tee -a "$record/output"; }

started=$SECONDS
for part in "${parts[@]}"; do
    begin=$SECONDS
    case "$part" in
        simulated)
            run killed_anywhere_counts
            run killed_anywhere_leaves
            ;;
        postgresql) run roundtrip::kill::postgres ;;
        neo4j) run roundtrip::kill::neo4j ;;
        online) run online::rounds ;;
        enterprise) run of_a_real_store_ ;;
        s3)
            export NEO4J_BACKUP_WEATHER="${WEATHER:-3}" NEO4J_BACKUP_UPLOAD_KILLS="${UPLOAD_KILLS:-100}"
            run s3::weather
            run s3::kills
            ;;
    esac
    printf 'figure: part %s: %d s\n' "$part" $((SECONDS - begin)) | tee -a "$record/output"
done

printf '\nFigures of %s\n' "$(uname -srm), $(nproc) processors"
# A test's own words may follow on the line of its name.
sed -n 's/^.*figure: /  /p' "$record/output"
printf 'make campaign: %d s; everything was as it should be\n' $((SECONDS - started))
