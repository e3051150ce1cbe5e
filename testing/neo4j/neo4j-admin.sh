#!/bin/sh
# Stands in for the official bin/neo4j-admin; everything is the real AdminTool's doing.
set -eu

NEO4J_HOME=${NEO4J_HOME:-$(cd "$(dirname "$0")/.." && pwd)}
NEO4J_CONF=${NEO4J_CONF:-$NEO4J_HOME/conf}
export NEO4J_HOME NEO4J_CONF
lib=$(cd "$(dirname "$0")/.." && pwd)/lib
# Versions that are years need Java 21 or later, which may stand beside the default.
if [ -z "${JAVA_HOME:-}" ] && ls "$lib"/neo4j-kernel-20*.jar >/dev/null 2>&1; then
    for candidate in /usr/lib/jvm/*-2[1-9]-*; do
        [ ! -x "$candidate/bin/java" ] || JAVA_HOME=$candidate
    done
fi
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xmx"${HEAP_SIZE:-512m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Dfile.encoding=UTF-8 --add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/sun.nio.ch=ALL-UNNAMED \
    -cp "$NEO4J_HOME/plugins/*:$lib/*" org.neo4j.cli.AdminTool "$@"
