#!/bin/sh
# Stands in for the official bin/neo4j: neo4j console | start | stop [--shutdown-timeout=N] | status | version
set -eu

home=${NEO4J_HOME:-$(cd "$(dirname "$0")/.." && pwd)}
conf=${NEO4J_CONF:-$home/conf}
self=$(cd "$(dirname "$0")/.." && pwd)
# Where the jars are, whichever way the home links to them.
lib=$(dirname "$(readlink -f "$(ls -d "$self"/lib/neo4j-kernel-[0-9]*.jar | head -n 1)")")
pid_file=$home/run/neo4j.pid
# Versions that are years need Java 21 or later, which may stand beside the default.
if [ -z "${JAVA_HOME:-}" ] && ls "$lib"/neo4j-kernel-20*.jar >/dev/null 2>&1; then
    for candidate in /usr/lib/jvm/*-2[1-9]-*; do
        [ ! -x "$candidate/bin/java" ] || JAVA_HOME=$candidate
    done
fi
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

setting() { sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" "$conf/neo4j.conf" 2>/dev/null | tail -n 1; }
serves() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -q -- "Community[A-Za-z]* --home-dir=$home "; }
running() {
    pid=$(cat "$pid_file" 2>/dev/null) && [ -n "$pid" ] && serves "$pid" && return
    # A start that was cut off by a kill, and another one after it, leave a number that is not the server's, or none.
    for pid in $(grep -lE -- "--home-dir=[/]${home#/}" /proc/[0-9]*/cmdline 2>/dev/null | tr -dc '0-9\n'); do
        if serves "$pid"; then
            echo "$pid" >"$pid_file"
            return
        fi
    done
    return 1
}

# Dead is a process that is gone, or a zombie without threads: only then its files and locks are closed.
alive() {
    state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) && [ -n "$state" ] || return 1
    [ "$state" != Z ] || [ "$(ls "/proc/$1/task" 2>/dev/null | wc -l)" -gt 1 ]
}

run_server() {
    main=org.neo4j.server.CommunityEntryPoint
    # The entry point was renamed when versions became calendar years.
    case $(basename "$(ls -d "$lib"/neo4j-kernel-[0-9]*.jar | head -n 1)") in neo4j-kernel-20*) main=org.neo4j.server.Neo4jCommunity ;; esac
    mkdir -p "$home/run" "$home/logs"
    # The class path begins with what shared classes were made of: see share-classes.sh.
    classes="$lib/*"
    ! ls "$home"/plugins/*.jar >/dev/null 2>&1 || classes="$classes:$home/plugins/*"
    shared=${NEO4J_SHARE_CLASSES:+-XX:ArchiveClassesAtExit=$NEO4J_SHARE_CLASSES}
    [ -n "$shared" ] || [ ! -s "${lib%/lib}/server.jsa" ] || shared=-XX:SharedArchiveFile=${lib%/lib}/server.jsa
    exec "$java" ${shared:+"$shared" -Xlog:disable -Xlog:all=error:stderr} -Xms"$(setting server.memory.heap.initial_size | grep . || echo 128m)" \
        -Xmx"$(setting server.memory.heap.max_size | grep . || echo 512m)" \
        -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError -Xshare:auto -Dfile.encoding=UTF-8 \
        --add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/java.io=ALL-UNNAMED \
        --add-opens=java.base/sun.nio.ch=ALL-UNNAMED --add-opens=java.base/java.util.concurrent=ALL-UNNAMED \
        -cp "$classes" "$main" "--home-dir=$home" "--config-dir=$conf"
}

case ${1:-} in
console)
    run_server
    ;;
start)
    mkdir -p "$home/run" "$home/logs"
    # One at a time: two starts at once would make two servers.
    exec 8>"$home/run/start.lock"
    flock 8
    if running; then
        echo "Neo4j is already running (pid:$pid)."
        exit 0
    fi
    # A session of its own, as a daemon has; nothing of the caller's is kept open.
    setsid "$0" console </dev/null >>"$home/logs/console.log" 2>&1 8>&- 9>&- &
    pid=$!
    echo "$pid" >"$pid_file"
    # Until it can be told as the server another start would make a second one.
    while alive "$pid" && ! serves "$pid"; do sleep 0.05; done
    echo "Started neo4j (pid:$pid)."
    ;;
stop)
    if ! running; then
        rm -f "$pid_file"
        echo "Neo4j is not running."
        exit 0
    fi
    kill "$pid"
    waited=0
    while alive "$pid"; do
        [ "$waited" -lt "${NEO4J_SHUTDOWN_TIMEOUT:-120}0" ] || { echo "Neo4j (pid:$pid) took more than ${NEO4J_SHUTDOWN_TIMEOUT:-120} seconds to stop." >&2; exit 1; }
        sleep 0.1
        waited=$((waited + 1))
    done
    rm -f "$pid_file"
    echo "Stopping Neo4j... stopped."
    ;;
status)
    if running; then
        echo "Neo4j is running at pid $pid"
    else
        echo "Neo4j is not running."
        exit 3
    fi
    ;;
version | --version)
    basename "$(ls -d "$lib"/neo4j-kernel-[0-9]*.jar | head -n 1)" .jar | sed 's/neo4j-kernel-//'
    ;;
*)
    echo "usage: neo4j console|start|stop|status|version" >&2
    exit 1
    ;;
esac
