#!/usr/bin/env bash
# The part `neo4j` of bench.sh: a graph of more than 1 GB, backed up while it runs, beside the official way.
set -euo pipefail

graph="$scratch/graph"
nodes="${NODES:-4000000}"
neo4j_version="${NEO4J_VERSION:-5.26.0}"

free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

cypher() {
    python3 - "$http_port" "$1" <<'PY'
import json, sys, urllib.request
body = json.dumps({"statements": [{"statement": sys.argv[2]}]}).encode()
url = f"http://127.0.0.1:{sys.argv[1]}/db/neo4j/tx/commit"
answer = json.load(urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=300))
if answer["errors"]:
    sys.exit(str(answer["errors"]))
PY
}

graph_answers() { cypher 'RETURN 1' >/dev/null 2>&1; }

start_graph() {
    "$graph/bin/neo4j" start >/dev/null
    local tries=1500
    until graph_answers; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "bench: Neo4j does not answer" >&2; exit 1; }
        sleep 0.2
    done
}

stop_graph() { [ ! -x "$graph/bin/neo4j" ] || "$graph/bin/neo4j" stop >/dev/null 2>&1 || true; }

make_graph() {
    local place
    place="$(testing/neo4j/fetch.sh "$neo4j_version")"
    testing/neo4j/make-home.sh "$place" "$graph"
    http_port="$(free_port)"
    cat >>"$graph/conf/neo4j.conf" <<CONF
server.bolt.listen_address=127.0.0.1:$(free_port)
server.http.listen_address=127.0.0.1:$http_port
dbms.security.auth_enabled=false
CONF
    sed -i 's/^server.memory.pagecache.size=.*/server.memory.pagecache.size=512m/' "$graph/conf/neo4j.conf"
    echo "Importing a graph of $nodes nodes"
    # Names of people and places, as compressible as such data is.
    awk -v n="$nodes" 'BEGIN {
        srand(1); print "id:ID,name,city,born:int,score:double"
        for (i = 1; i <= n; i++)
            printf "%d,Person %d of the %x family,City %d,%d,%.6f\n", i, i, rand() * 1e9, rand() * 5000, 1930 + rand() * 80, rand()
    }' >"$scratch/people.csv"
    awk -v n="$nodes" 'BEGIN {
        srand(2); print ":START_ID,:END_ID,since:int"
        for (i = 1; i <= n; i++) printf "%d,%d,%d\n", i, 1 + int(rand() * n), 1990 + rand() * 35
    }' >"$scratch/knows.csv"
    # The database first: what follows an option with many values would be taken for one more of them.
    "$graph/bin/neo4j-admin" database import full neo4j --overwrite-destination --nodes="Person=$scratch/people.csv" \
        --relationships="KNOWS=$scratch/knows.csv" >"$scratch/import.log" 2>&1 || { grep -v "^\sat " "$scratch/import.log" | head -n 5 >&2; exit 1; }
    rm -f "$scratch/people.csv" "$scratch/knows.csv"
    start_graph
    store="$graph/data/databases/neo4j"
    echo "  $(du -sh --apparent-size "$store" | cut -f1) in the store of Neo4j $neo4j_version"
}

write_graph_config() {
    cat >"$scratch/graph.toml" <<CONF
environment = "dev"
state_directory = "$scratch/graph-state"
[repository.main]
path = "$scratch/graph-repository"
[encryption]
passphrase_file = "$scratch/passphrase"
[preflight]
minimum_free_percent = 0
[target.graph]
kind = "neo4j"
home = "$graph"
conf = "$graph/conf/neo4j.conf"
admin = "$graph/bin/neo4j-admin"
bolt = "bolt://127.0.0.1:1"
unit = "none"
CONF
    mkdir -p "$scratch/graph-state"
    chmod 0700 "$scratch/graph-state"
}

graph_full() { "$agent" --config "$scratch/graph.toml" run backup graph; }
graph_incremental() { "$agent" --config "$scratch/graph.toml" run backup graph --type incremental; }
graph_dump() { "$graph/bin/neo4j-admin" database dump --to-stdout neo4j | "${enc[@]}" -out "$scratch/graph.dump.enc"; }

# What the official way costs its users: from the order to stop until the server answers again.
graph_dump_with_downtime() {
    stop_graph
    timed dump+openssl graph_dump
    start_graph
}

# Gives a command the share of the processors that its unit gives the agent. There it is a control group's (CPUWeight=20 of
# 100); here it is a session's, whose nice value 7 has about that weight.
in_its_unit=(setsid --wait sh -c 'echo 7 2>/dev/null >/proc/self/autogroup; exec nice -n 10 "$@"' sh)

# COMMAND…: commits in a second, by four writers, while it runs.
commits_during() {
    python3 scripts/bench/writers.py "$http_port" "$@" 2>"$scratch/writers.log" || { tail -n 5 "$scratch/writers.log" >&2; exit 1; }
}

bench_neo4j() {
    make_graph
    echo "An online base beside a dump, $rounds rounds"
    local round
    for round in $(seq "$rounds"); do
        rm -rf "$scratch/graph-repository" "$scratch/graph-state" "$scratch/graph.dump.enc"
        write_graph_config
        timed online-base graph_full
        timed downtime graph_dump_with_downtime
    done
    compare online-base dump+openssl 0.50
    echo "  the dump's server was down for $(median downtime) s, ours for 0 s"
    du -sh --apparent-size "$scratch/graph-repository" "$scratch/graph.dump.enc" | sed "s|$scratch/|  stored: |"
    echo

    echo "An incremental of 10 MB of change, $rounds rounds"
    for round in $(seq "$rounds"); do
        cypher "UNWIND range(1, 40000) AS i CREATE (:Change {round: $round, number: i, text: 'some text of a change that is not long: ' + toString(rand()) + toString(rand()) + toString(rand()) + toString(rand())})"
        timed incremental graph_incremental
    done
    awk -v s="$(median incremental)" 'BEGIN { printf "  incremental %26.2f s (goal: at most 2)\n\n", s }'

    echo "Commits of four writers meanwhile"
    rm -rf "$scratch/graph-repository" "$scratch/graph-state"
    write_graph_config
    local alone during_copy during_backup
    alone="$(commits_during sleep 10)"
    for round in $(seq "$rounds"); do
        rm -rf "$scratch/graph-repository" "$scratch/graph-state"
        write_graph_config
        commits_during sh -c 'for i in 1 2 3; do rm -rf "$2"; cp -r "$1" "$2"; done' sh "$graph/data/databases" "$scratch/copied" \
            >>"$scratch/commits-copy.times"
        rm -rf "$scratch/copied"
        commits_during "${in_its_unit[@]}" "$agent" --config "$scratch/graph.toml" run backup graph >>"$scratch/commits-backup.times"
    done
    during_copy="$(median commits-copy)" during_backup="$(median commits-backup)"
    awk -v a="$alone" -v c="$during_copy" -v b="$during_backup" \
        'BEGIN { printf "  alone %d/s, during cp %d/s, during the online base %d/s (the agent with the weight of its unit)\n  ratio %.2f of cp (goal: at least 0.90)\n\n", a, c, b, b / c }'
    stop_graph
}
