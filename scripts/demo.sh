#!/usr/bin/env bash
# The whole job on real databases, in one go: fill a Neo4j and a PostgreSQL, back both up through the agent's bus, ship
# their logs while they are written, delete and drop by mistake, destroy both, restore them to the second before the
# mistakes, compare, and open one backup with nothing but openssl, zstd and tar.
#
# Everything lives in one temporary directory; nothing is left running. KEEP=1 keeps the directory.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
bin=${NEO4J_BACKUP_BIN:-${CARGO_TARGET_DIR:-$here/target}/release}
neo4j_version=${NEO4J_VERSION:-5.26.0}
persons=${DEMO_PERSONS:-20000}
readings=${DEMO_READINGS:-100000}

# Programs that were built elsewhere are named by NEO4J_BACKUP_BIN; otherwise they are built here.
if [ -z "${NEO4J_BACKUP_BIN:-}" ]; then
    [ "$(id -u)" -eq 0 ] || { echo "demo: run it as root: the databases run as accounts of their own" >&2; exit 1; }
    "$here/scripts/install-prerequisites.sh" build test demo
    (cd "$here" && cargo build --release --locked --bins)
fi

# The story's time is told at its end; building is no part of it.
SECONDS=0
work=$(mktemp -d "${TMPDIR:-/tmp}/neo4j-backup-demo.XXXXXX")
chmod 0755 "$work"
bus_pid= agent_pid=

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
note() { printf '  %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

cleanup() {
    status=$?
    trap - EXIT INT TERM
    [ -z "$agent_pid" ] || { kill "$agent_pid" 2>/dev/null && wait "$agent_pid" 2>/dev/null || true; }
    [ ! -x "$work/graph/bin/neo4j" ] || "$work/graph/bin/neo4j" stop >/dev/null 2>&1 || true
    [ ! -x "$work/pg" ] || "$work/pg" stop >/dev/null 2>&1 || true
    [ -z "$bus_pid" ] || kill "$bus_pid" 2>/dev/null || true
    if [ "$status" -ne 0 ]; then
        echo "--- the agent's last words" >&2
        tail -n 30 "$work/agent.log" >&2 2>/dev/null || true
    fi
    if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
    exit "$status"
}
trap cleanup EXIT INT TERM

free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
client() { "$bin/neo4j-backupctl" --config "$work/config.toml" --bus "$bus" "$@"; }

# --- a private PostgreSQL ----------------------------------------------------------------------------------------
pg_bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1) || true
[ -n "$pg_bin" ] || fail "PostgreSQL is not installed; scripts/install-prerequisites.sh does that"
pg_user=postgres
mkdir -p "$work/metrics" "$work/metrics-socket"
chown "$pg_user" "$work/metrics" "$work/metrics-socket"
cat >"$work/pg" <<PG
#!/bin/sh
# Starts and stops the demo's cluster as its own user.
cd /
case \$1 in
start) exec setpriv --reuid=$pg_user --regid=$pg_user --init-groups -- $pg_bin/pg_ctl -D $work/metrics/data -l $work/metrics/log -w start >/dev/null ;;
stop) exec setpriv --reuid=$pg_user --regid=$pg_user --init-groups -- $pg_bin/pg_ctl -D $work/metrics/data -m fast -w stop ;;
esac
PG
chmod 0755 "$work/pg"
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$work/metrics-socket" -p "$pg_port" -U "$pg_user" -d metrics "$@"; }

# --- a private Neo4j ---------------------------------------------------------------------------------------------
# Cypher over HTTP: nothing but curl is needed.
cypher() {
    python3 - "$http_port" "$1" <<'PY'
import json, sys, urllib.request
port, statement = sys.argv[1], sys.argv[2]
body = json.dumps({"statements": [{"statement": statement}]}).encode()
request = urllib.request.Request(f"http://127.0.0.1:{port}/db/neo4j/tx/commit", body, {"Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(request, timeout=120))
if answer["errors"]:
    sys.exit(str(answer["errors"]))
for row in answer["results"][0]["data"]:
    print("|".join(str(value) for value in row["row"]))
PY
}
graph_answers() { cypher 'RETURN 1' >/dev/null 2>&1; }
wait_for() {
    local what=$1 tries=600; shift
    until "$@"; do
        tries=$((tries - 1)); [ "$tries" -gt 0 ] || fail "$what did not come up"
        sleep 0.2
    done
}

# The bus of this demo; the database's account may speak there, as on the system bus.
bus="unix:path=$work/bus-socket"
cat >"$work/bus.conf" <<CONF
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>$bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
CONF

say "1. Two real databases"
place=$("$here/testing/neo4j/fetch.sh" "$neo4j_version")
"$here/testing/neo4j/make-home.sh" "$place" "$work/graph"
bolt_port=$(free_port); http_port=$(free_port); pg_port=$(free_port)
cat >>"$work/graph/conf/neo4j.conf" <<CONF
server.bolt.listen_address=127.0.0.1:$bolt_port
server.http.listen_address=127.0.0.1:$http_port
dbms.security.auth_enabled=false
CONF
"$work/graph/bin/neo4j" start >/dev/null
setpriv --reuid=$pg_user --regid=$pg_user --init-groups -- "$pg_bin/initdb" -D "$work/metrics/data" -A trust -U "$pg_user" --data-checksums >/dev/null
cat >>"$work/metrics/data/postgresql.conf" <<CONF
listen_addresses = ''
port = $pg_port
unix_socket_directories = '$work/metrics-socket'
archive_mode = on
archive_command = '$work/neo4j-backupctl --bus $bus wal push metrics %p'
CONF
# The database's own account runs it, and must be able to.
install -m 0755 "$bin/neo4j-backupctl" "$work/neo4j-backupctl"
"$work/pg" start
psql -X -q -h "$work/metrics-socket" -p "$pg_port" -U "$pg_user" -d postgres -c 'CREATE DATABASE metrics'
wait_for "Neo4j" graph_answers
note "Neo4j Community $neo4j_version on port $bolt_port, PostgreSQL $("$pg_bin/postgres" --version | awk '{print $3}') on a socket"

say "2. Filled with a believable graph and a time series"
cypher 'CREATE CONSTRAINT person_id IF NOT EXISTS FOR (p:Person) REQUIRE p.id IS UNIQUE' >/dev/null
cypher 'CREATE INDEX company_name IF NOT EXISTS FOR (c:Company) ON (c.name)' >/dev/null
cypher "UNWIND range(1, 200) AS i CREATE (:Company {name: 'Company ' + i, founded: 1900 + i % 120})" >/dev/null
cypher "UNWIND range(1, $persons) AS i MATCH (c:Company {name: 'Company ' + (1 + i % 200)}) CREATE (:Person {id: i, name: 'Person ' + i})-[:WORKS_AT {since: 1990 + i % 35}]->(c)" >/dev/null
cypher "MATCH (p:Person) WITH p, [1, 7, 61] AS steps UNWIND steps AS s MATCH (q:Person {id: 1 + (p.id * 31 + s) % $persons}) CREATE (p)-[:KNOWS {weight: (p.id + s) % 100}]->(q)" >/dev/null
sql >/dev/null <<SQL
CREATE TABLE sensor (id int PRIMARY KEY, name text NOT NULL, site text NOT NULL);
CREATE TABLE reading (sensor int NOT NULL REFERENCES sensor, at timestamptz NOT NULL, value double precision NOT NULL, PRIMARY KEY (sensor, at));
INSERT INTO sensor SELECT i, 'sensor ' || i, 'site ' || i % 7 FROM generate_series(1, 50) i;
INSERT INTO reading SELECT 1 + i % 50, timestamptz '2026-01-01' + i * interval '7 seconds', 20 + 5 * sin(i / 700.0) FROM generate_series(0, $readings - 1) i;
CREATE INDEX reading_by_time ON reading (at);
-- So that no autovacuum comes between the counting and the backup.
VACUUM (ANALYZE);
SQL
# What the databases say of their own content: counts and a fingerprint of all of it.
graph_content() {
    cypher 'MATCH (p:Person) RETURN count(p), sum(p.id * size(p.name))'
    cypher 'MATCH (a)-[r:KNOWS]->(b) RETURN count(r), sum(r.weight * (a.id % 1000) + b.id)'
    cypher 'MATCH ()-[r:WORKS_AT]->(c:Company) RETURN count(r), sum(r.since), count(DISTINCT c.name)'
    cypher 'MATCH (p:Person)-[:MADE]->(v:Visit) RETURN count(v), sum(v.number * p.id)'
}
metrics_content() {
    sql -c "SELECT count(*), md5(string_agg(id || name || site, ',' ORDER BY id)) FROM sensor"
    sql -c "SELECT count(*), md5(string_agg(sensor || '@' || extract(epoch FROM at) || '=' || value, ',' ORDER BY sensor, at)) FROM reading"
}
note "graph: $(cypher 'MATCH (n) RETURN count(n)') nodes, $(cypher 'MATCH ()-[r]->() RETURN count(r)') relationships"
note "metrics: $(sql -c 'SELECT count(*) FROM reading') readings of $(sql -c 'SELECT count(*) FROM sensor') sensors"

say "3. The agent on a private bus"
mkdir -m 0700 "$work/keys"
"$bin/neo4j-backupctl" key new --output "$work/keys/current" >/dev/null
cat >"$work/config.toml" <<CONF
environment = "dev"
state_directory = "$work/state"
[repository.main]
type = "local"
path = "$work/repository"
[encryption]
passphrase_file = "$work/keys/current"
[preflight]
minimum_free_percent = 1
[target.graph]
kind = "neo4j"
home = "$work/graph"
conf = "$work/graph/conf/neo4j.conf"
admin = "$work/graph/bin/neo4j-admin"
bolt = "bolt://127.0.0.1:$bolt_port"
stop_command = ["$work/graph/bin/neo4j", "stop"]
start_command = ["$work/graph/bin/neo4j", "start"]
[target.metrics]
kind = "postgresql"
data_directory = "$work/metrics/data"
bin_directory = "$pg_bin"
host = "$work/metrics-socket"
port = $pg_port
user = "$pg_user"
databases = ["metrics"]
full = "base"
stop_command = ["$work/pg", "stop"]
start_command = ["$work/pg", "start"]
CONF
dbus-daemon --config-file="$work/bus.conf" --nofork --nopidfile >/dev/null 2>&1 &
bus_pid=$!
bus_is_up() { [ -S "$work/bus-socket" ]; }
wait_for "the bus" bus_is_up
"$bin/neo4j-backupd" --config "$work/config.toml" serve --bus "$bus" >"$work/agent.log" 2>&1 &
agent_pid=$!
agent_answers() { kill -0 "$agent_pid" 2>/dev/null || fail "the agent ended"; client status >/dev/null 2>&1; }
wait_for "the agent" agent_answers
client check || true

say "4. Full backups, through the client and the bus; no server is stopped"
graph_pid=$(cat "$work/graph/run/neo4j.pid")
client backup graph --note "the demo's graph"
client backup metrics --note "the demo's time series"

say "5. Both are written on, and their logs are shipped meanwhile"
write_visits() {
    local batch
    for batch in $(seq 1 40); do
        cypher "UNWIND range(1, 50) AS i MATCH (p:Person {id: 1 + ($batch * 997 + i * 31) % $persons}) CREATE (p)-[:MADE]->(:Visit {number: $batch * 1000 + i, at: datetime()})" >/dev/null
    done
}
write_readings() {
    local batch
    for batch in $(seq 1 40); do
        sql -c "INSERT INTO reading SELECT 1 + i, timestamptz '2027-01-01' + $batch * interval '1 second', 20 + i FROM generate_series(0, 49) i"
    done
}
write_visits &
writer_pid=$!
write_readings &
readings_pid=$!
visits() { [ "$(cypher 'MATCH (v:Visit) RETURN count(v)')" -ge "$1" ]; }
wait_for "the first visits" visits 200
client backup graph --type incremental
client backup metrics --type incremental
wait_for "more visits" visits 1000
client backup graph --type incremental
wait "$writer_pid" "$readings_pid"
client backup metrics --type incremental
# A moment between two seconds in which nothing is written, so that "the second before" means one state.
sleep 1.1
graph_before=$(graph_content); metrics_before=$(metrics_content)
chosen=$(date -u +%Y-%m-%dT%H:%M:%SZ)
sleep 1.1
note "$(cypher 'MATCH (v:Visit) RETURN count(v)') visits and $(sql -c 'SELECT count(*) FROM reading') readings are there; it is $chosen"

say "6. Two mistakes: half of the people are deleted, a table is dropped; and the logs are shipped once more"
cypher 'MATCH (p:Person) WHERE p.id % 2 = 0 DETACH DELETE p' >/dev/null
note "people left: $(cypher 'MATCH (p:Person) RETURN count(p)') of $persons"
sql -c 'DROP TABLE reading'
note "tables left in metrics: $(sql -c "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")"
client backup graph --type incremental
client backup metrics --type incremental
[ "$(cat "$work/graph/run/neo4j.pid")" = "$graph_pid" ] || fail "the graph server was stopped"
note "the graph server was never stopped: it is still process $graph_pid"
client list
client verify --all

say "7. Disaster: both data directories are destroyed"
"$work/graph/bin/neo4j" stop >/dev/null
"$work/pg" stop >/dev/null
rm -rf "$work/graph/data" "$work/metrics/data"
note "gone: $work/graph/data, $work/metrics/data"

say "8. Restored in place, both to the second before the mistakes"
client restore graph --in-place --to-time "$chosen" --dry-run
client --yes restore graph --in-place --to-time "$chosen"
client --yes restore metrics --in-place --to-time "$chosen"
wait_for "Neo4j" graph_answers

say "9. Compared"
[ "$(graph_content)" = "$graph_before" ] || fail "the graph is not what it was"
[ "$(metrics_content)" = "$metrics_before" ] || fail "the time series is not what it was"
note "every node, relationship and property, every row and value is as it was"
client status
client restores

say "10. One backup opened by the repository's own script"
graph_backup=$(find "$work/repository" -name 'graph-*.meta.json' -printf '%f\n' | head -n 1)
sh "$work/repository/restore.sh" "${graph_backup%.meta.json}-base" "$work/keys/current" "$work/by-script" | sed 's/^/  /'

say "11. One backup opened with nothing but openssl, zstd and tar"
object=$(find "$work/repository" -name 'metrics-*.base.tar.zst.enc' | head -n 1)
mkdir "$work/by-hand"
note "openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:KEY -in $(basename "$object") | zstd -d | tar -x"
openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass "file:$work/keys/current" -in "$object" | zstd -q -d | tar -x -C "$work/by-hand"
note "$(find "$work/by-hand" -type f | wc -l) files, $(du -sh "$work/by-hand" | cut -f1); PostgreSQL's own manifest says:"
if [ -x "$pg_bin/pg_verifybackup" ]; then "$pg_bin/pg_verifybackup" "$work/by-hand" | sed 's/^/  /'; fi

say "What happened"
data=$(du -sb "$work/graph/data" "$work/metrics/data" | awk '{s+=$1} END {printf "%.0f MB", s/1e6}')
stored=$(du -sb "$work/repository" | awk '{printf "%.0f MB", $1/1e6}')
note "two databases of $data were backed up into a signed, encrypted repository of $stored,"
note "lost, and restored by two commands to $chosen; their content was compared to the last value. It took ${SECONDS} s in all."
