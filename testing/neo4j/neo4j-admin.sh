#!/bin/sh
# Stands in for the official bin/neo4j-admin; everything is the real AdminTool's doing.
set -eu

NEO4J_HOME=${NEO4J_HOME:-$(cd "$(dirname "$0")/.." && pwd)}
NEO4J_CONF=${NEO4J_CONF:-$NEO4J_HOME/conf}
export NEO4J_HOME NEO4J_CONF
lib=$(cd "$(dirname "$0")/.." && pwd)/lib
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xmx"${HEAP_SIZE:-512m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Dfile.encoding=UTF-8 --add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/sun.nio.ch=ALL-UNNAMED \
    -cp "$NEO4J_HOME/plugins/*:$lib/*" org.neo4j.cli.AdminTool "$@"
