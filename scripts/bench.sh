#!/usr/bin/env bash
# Speed and memory of the built programs beside the tools people would otherwise use, on this machine, in this run.
#
#   bench.sh [encrypt] [postgresql] [memory] [ledger] [neo4j]      without arguments: all of them
#
#   encrypt      `neo4j-backupctl encrypt` against `openssl enc` with the same parameters
#   postgresql   a full backup of a private cluster against `pg_basebackup | zstd -T2 -3 | openssl enc` and against
#                pgBackRest (2 processes, zstd level 3, aes-256-cbc), a restore of it without recovery against pgBackRest's, and
#                the same over a copy of which 1 % is different (`--delta`)
#   memory       resident memory of the agent while it takes that backup: its own peak, and together with its tools
#   ledger       `list` and `status` with 100 000 backups in the ledger
#   neo4j        an online base of a store of more than 1 GB against `neo4j-admin database dump | openssl enc`, an incremental of
#                10 MB of change, and what writers get done meanwhile beside what they get done during `cp` of the files
#
# Contestants run in turn, ROUNDS times; the figure is the ratio of the medians (ours / theirs, below 1 is faster), since
# absolute times say more about the machine than about the programs. ROUNDS, SCALE (pgbench; 150 is about 2.3 GB), NODES
# (Neo4j; 4000000 is about 1.4 GB) and ENCRYPT_MB can be set in the environment; BENCH_DIRECTORY is where some 8 GB of scratch space is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"

rounds="${ROUNDS:-5}"
scale="${SCALE:-150}"
encrypt_mb="${ENCRYPT_MB:-1024}"
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(encrypt postgresql memory ledger neo4j)
# How often memory is looked at, in seconds.
memory_interval_seconds=0.05

scripts/install-prerequisites.sh build bench
cargo build --release --locked --bins
target="${CARGO_TARGET_DIR:-target}"
agent="$(realpath "$target/release/neo4j-backupd")"
client="$(realpath "$target/release/neo4j-backupctl")"
pg_bin=/usr/lib/postgresql/15/bin

if [ "$(id -u)" -eq 0 ]; then
    # PostgreSQL does not run as root.
    account=postgres
    as_account() { setpriv --reuid="$account" --regid="$account" --init-groups -- "$@"; }
else
    account="$(id -un)"
    as_account() { "$@"; }
fi

scratch="$(mktemp -d "${BENCH_DIRECTORY:-/var/tmp}/neo4j-backup-bench.XXXXXX")"
chmod 0755 "$scratch"
data="$scratch/data"
# A socket's path has little room.
sockets="$(mktemp -d /tmp/nba-bench.XXXXXX)"
port=54329

clean_up() {
    if [ -f "$data/postmaster.pid" ]; then
        as_account "$pg_bin/pg_ctl" -D "$data" -m immediate -w stop >/dev/null || true
    fi
    stop_graph
    rm -rf "$scratch" "$sockets"
}
trap clean_up EXIT

(umask 077 && head -c 32 /dev/urandom | base64 | head -c 43 >"$scratch/passphrase")
enc=(openssl enc -aes-256-cbc -pbkdf2 -iter 100000 -md sha256 -pass "file:$scratch/passphrase")
ours=(--passphrase-file "$scratch/passphrase" --iterations 100000)

. scripts/bench/figures.sh
. scripts/bench/neo4j.sh

# --- encrypt -----------------------------------------------------------------------------------------------------

bench_encrypt() {
    echo "Encrypting and decrypting $encrypt_mb MB, $rounds rounds"
    # Random, so that nothing can be gained by anything but encryption; read once, so that both find it in memory.
    head -c "${encrypt_mb}M" /dev/urandom >"$scratch/plain"
    local round
    for round in $(seq "$rounds"); do
        rm -f "$scratch/ours.enc" "$scratch/theirs.enc" "$scratch/ours.plain" "$scratch/theirs.plain"
        timed agent-encrypt "$client" encrypt "$scratch/plain" "${ours[@]}" --output "$scratch/ours.enc"
        timed openssl-encrypt "${enc[@]}" -in "$scratch/plain" -out "$scratch/theirs.enc"
        # Each opens what the other wrote: a fast encryption that nobody can open is worth nothing.
        timed agent-decrypt "$client" decrypt "$scratch/theirs.enc" "${ours[@]}" --output "$scratch/ours.plain"
        timed openssl-decrypt "${enc[@]}" -d -in "$scratch/ours.enc" -out "$scratch/theirs.plain"
        cmp "$scratch/plain" "$scratch/ours.plain"
        cmp "$scratch/plain" "$scratch/theirs.plain"
    done
    compare agent-encrypt openssl-encrypt 1.00
    compare agent-decrypt openssl-decrypt 1.00
    rm -f "$scratch/plain" "$scratch"/ours.* "$scratch"/theirs.*
}

# --- PostgreSQL --------------------------------------------------------------------------------------------------

start_cluster() {
    [ ! -f "$data/postmaster.pid" ] || return 0
    echo "Filling a private cluster: pgbench at scale $scale"
    install -d -m 0700 -o "$account" "$data" "$scratch/pgbackrest" "$scratch/plain-tools"
    chown "$account" "$sockets"
    as_account "$pg_bin/initdb" -D "$data" -U bench -A trust --no-sync >/dev/null
    cat >>"$data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$sockets'
port = $port
shared_buffers = 512MB
max_wal_size = 4GB
wal_level = replica
archive_mode = on
archive_command = '/bin/true'
CONF
    as_account "$pg_bin/pg_ctl" -D "$data" -l "$data/server.log" -w start >/dev/null
    as_account "$pg_bin/createdb" -h "$sockets" -p "$port" -U bench bench
    as_account "$pg_bin/pgbench" -h "$sockets" -p "$port" -U bench -i -q -s "$scale" bench 2>/dev/null
    as_account "$pg_bin/psql" -qXh "$sockets" -p "$port" -U bench -c checkpoint bench
    echo "  $(du -sh --apparent-size "$data" | cut -f1) in $data"
}

write_agent_config() {
    cat >"$scratch/agent.toml" <<CONF
environment = "dev"
state_directory = "$scratch/state"
[repository.main]
path = "$scratch/repository"
[encryption]
passphrase_file = "$scratch/passphrase"
[preflight]
minimum_free_percent = 0
[target.bench]
kind = "postgresql"
data_directory = "$data"
bin_directory = "$pg_bin"
config_directory = "$data"
host = "$sockets"
port = $port
user = "bench"
unit = "none"
CONF
    mkdir -p "$scratch/state"
    chmod 0700 "$scratch/state"
}

agent_backup() { "$agent" --config "$scratch/agent.toml" run backup bench; }

plain_tools_backup() {
    "$pg_bin/pg_basebackup" -h "$sockets" -p "$port" -U bench -D - -F tar -X fetch --checkpoint=fast \
        | zstd -q -T2 -3 | "${enc[@]}" -out "$scratch/plain-tools/base.tar.zst.enc"
}

pgbackrest_do() {
    as_account pgbackrest --stanza=bench --repo1-path="$scratch/pgbackrest" --repo1-cipher-type=aes-256-cbc \
        --pg1-path="$data" --pg1-socket-path="$sockets" --pg1-port="$port" --pg1-user=bench \
        --log-path="$scratch/pgbackrest" --lock-path="$scratch/pgbackrest/lock" --log-level-console=warn "$@"
}

pgbackrest_backup() {
    pgbackrest_do backup --type=full --repo1-retention-full=9 --start-fast --process-max=2 --compress-type=zst --compress-level=3 --no-archive-check
}

# Both only put the files into place: recovery and checks are the server's work.
agent_restore() { "$agent" --config "$scratch/agent.toml" run restore bench --into "$scratch/restored" --no-recover; }

pgbackrest_restore() {
    as_account pgbackrest --stanza=bench --repo1-path="$scratch/pgbackrest" --repo1-cipher-type=aes-256-cbc \
        --pg1-path="$scratch/restored" --log-path="$scratch/pgbackrest" --lock-path="$scratch/pgbackrest/lock" \
        --log-level-console=warn --process-max=2 --archive-mode=off --type=none restore
}

# Both compare all of it: 1 % of the copy's bytes, in its largest file, are others than those of the backup.
age_copy() {
    local largest bytes
    largest="$(find "$scratch/restored/base" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)"
    bytes="$(du -sb "$scratch/restored" | cut -f1)"
    head -c "$((bytes / 100))" /dev/urandom | dd of="$largest" conv=notrunc bs=1M iflag=fullblock status=none
}

agent_delta() { "$agent" --config "$scratch/agent.toml" run restore bench --into "$scratch/restored" --no-recover --delta --yes; }

pgbackrest_delta() {
    as_account pgbackrest --stanza=bench --repo1-path="$scratch/pgbackrest" --repo1-cipher-type=aes-256-cbc \
        --pg1-path="$scratch/restored" --log-path="$scratch/pgbackrest" --lock-path="$scratch/pgbackrest/lock" \
        --log-level-console=warn --process-max=2 --archive-mode=off --type=none --delta restore
}

bench_postgresql() {
    start_cluster
    write_agent_config
    # pgBackRest takes its passphrase from the environment; this one protects nothing.
    PGBACKREST_REPO1_CIPHER_PASS="$(cat "$scratch/passphrase")"
    export PGBACKREST_REPO1_CIPHER_PASS
    pgbackrest_do stanza-create --no-online
    echo "A full backup, $rounds rounds"
    local round
    for round in $(seq "$rounds"); do
        # What one leaves behind must not cost the next one its space or its memory.
        rm -rf "$scratch/repository" "$scratch/state" "$scratch/plain-tools/base.tar.zst.enc" "$scratch/pgbackrest/backup/bench"/2*
        write_agent_config
        timed agent-full agent_backup
        timed pg_basebackup+zstd+openssl plain_tools_backup
        timed pgbackrest-full pgbackrest_backup
        timed agent-restore agent_restore
        age_copy
        timed agent-delta agent_delta
        rm -rf "$scratch/restored"
        install -d -m 0700 -o "$account" "$scratch/restored"
        timed pgbackrest-restore pgbackrest_restore
        age_copy
        timed pgbackrest-delta pgbackrest_delta
        rm -rf "$scratch/restored"
    done
    compare agent-full pg_basebackup+zstd+openssl 0.70
    compare agent-full pgbackrest-full 0.55
    compare agent-restore pgbackrest-restore 0.70
    compare agent-delta pgbackrest-delta 1.00
    du -sh --apparent-size "$scratch/repository" "$scratch/plain-tools" "$scratch/pgbackrest" | sed "s|$scratch/|  stored by |"
    echo
}

# --- memory ------------------------------------------------------------------------------------------------------

# All processes below one, itself included.
family() {
    local parent="$1" child
    echo "$parent"
    for child in $(cat "/proc/$parent/task/"*/children 2>/dev/null || true); do family "$child"; done
}

# Resident kilobytes of one process, or its peak: VmRSS or VmHWM.
memory_of() { awk -v key="$2:" '$1 == key { print $2 }' "/proc/$1/status" 2>/dev/null || true; }

bench_memory() {
    start_cluster
    rm -rf "$scratch/repository" "$scratch/state"
    write_agent_config
    "$agent" --config "$scratch/agent.toml" run backup bench >"$scratch/output" 2>&1 &
    local running=$! own=0 together=0 sum peak process
    while kill -0 "$running" 2>/dev/null; do
        peak="$(memory_of "$running" VmHWM)"
        [ "${peak:-0}" -le "$own" ] || own=$peak
        sum=0
        for process in $(family "$running"); do
            peak="$(memory_of "$process" VmRSS)"
            sum=$((sum + ${peak:-0}))
        done
        [ "$sum" -le "$together" ] || together=$sum
        sleep "$memory_interval_seconds"
    done
    if ! wait "$running"; then
        echo "bench: the backup failed" >&2
        tail -n 20 "$scratch/output" >&2
        exit 1
    fi
    echo "Resident memory while backing up $(du -sh --apparent-size "$data" | cut -f1)"
    awk -v o="$own" -v t="$together" 'BEGIN {
        printf "  %-34s %8.0f MB (goal: at most 200 MB)\n  %-34s %8.0f MB\n\n", "the agent, peak", o / 1000, "with the tools it runs, peak", t / 1000
    }'
}

# --- ledger ------------------------------------------------------------------------------------------------------

bench_ledger() {
    cargo bench --quiet --locked --bench ledger
    echo
}

echo "neo4j-backup-agent $("$client" --version | awk '{ print $2 }'), $(openssl version | cut -d' ' -f1,2), $(nproc) processors"
echo
for part in "${parts[@]}"; do
    case "$part" in
        encrypt | postgresql | memory | ledger | neo4j) "bench_$part" ;;
        *)
            echo "bench: there is no part $part; see the head of this script" >&2
            exit 2
            ;;
    esac
done
