#!/bin/sh
# Lays out a Neo4j home around fetched jars: make-home.sh PLACE HOME
#
# PLACE is what fetch.sh printed. HOME gets bin/neo4j, bin/neo4j-admin, conf/neo4j.conf and the directories of an official
# installation. The two programs take the same arguments, environment (NEO4J_HOME, NEO4J_CONF, HEAP_SIZE) and pid file
# (run/neo4j.pid) as the official ones, so that nothing under test can tell the difference. Existing files stay.
set -eu

place=${1:?usage: make-home.sh PLACE HOME}
home=${2:?usage: make-home.sh PLACE HOME}
here=$(cd "$(dirname "$0")" && pwd)
[ -d "$place/lib" ] || { echo "make-home.sh: $place/lib is missing; run fetch.sh first" >&2; exit 1; }

mkdir -p "$home/bin" "$home/conf" "$home/data" "$home/import" "$home/logs" "$home/plugins" "$home/run"
home=$(cd "$home" && pwd)
ln -sfn "$place/lib" "$home/lib"
for program in neo4j neo4j-admin; do
    [ -e "$home/bin/$program" ] || cp "$here/$program.sh" "$home/bin/$program"
    chmod 0755 "$home/bin/$program"
done
if [ ! -e "$home/conf/neo4j.conf" ]; then
    cat >"$home/conf/neo4j.conf" <<'CONF'
# Small enough for a test machine; everything else as an official package ships it.
server.memory.heap.initial_size=128m
server.memory.heap.max_size=512m
server.memory.pagecache.size=64m
server.default_listen_address=127.0.0.1
server.https.enabled=false
dbms.usage_report.enabled=false
# Bolt waits ten seconds for its idle threads after the stores are closed.
internal.server.bolt.thread_pool_shutdown_wait_time=1ms
CONF
fi
