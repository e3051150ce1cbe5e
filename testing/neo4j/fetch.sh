#!/bin/sh
# Fetches a real Neo4j Community server for the tests: fetch.sh VERSION
#
# Maven Central has the whole server as jars. They land in CACHE/neo4j-VERSION/lib, where CACHE is
# $NEO4J_BACKUP_TEST_CACHE or ~/.cache/neo4j-backup-agent, and the directory is printed. Running it again costs nothing:
# the directory appears by a rename, so it is whole or not there, and a lock keeps parallel runs from fetching twice.
set -eu

version=${1:?usage: fetch.sh VERSION}
cache=${NEO4J_BACKUP_TEST_CACHE:-${HOME:-/root}/.cache/neo4j-backup-agent}
place=$cache/neo4j-$version

. "$(dirname "$0")/../packages.sh"

# Programs come first: a cache that came from elsewhere still needs a JVM to run.
install_missing() {
    packages=
    command -v java >/dev/null 2>&1 || packages="$packages openjdk-17-jre-headless"
    [ -d "$place/lib" ] || command -v mvn >/dev/null 2>&1 || packages="$packages maven"
    # shellcheck disable=SC2086  # a list of packages
    install_packages $packages
}

mkdir -p "$cache"
exec 9>"$cache/neo4j-$version.lock"
flock 9
install_missing
share_classes() { "$(dirname "$0")/share-classes.sh" "$place" || say "starts of Neo4j $version stay as slow as they are"; }
if [ -d "$place/lib" ]; then
    share_classes
    echo "$place"
    exit 0
fi

work=$(mktemp -d "$cache/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>test</groupId><artifactId>test</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.neo4j</groupId><artifactId>neo4j</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.neo4j.app</groupId><artifactId>neo4j-server</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.neo4j</groupId><artifactId>neo4j-dbms</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.neo4j</groupId><artifactId>neo4j-consistency-check</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
POM
say "fetching Neo4j $version (about 240 jars, 126 MB) into $place"
if ! (cd "$work" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$work/place/lib") \
    >"$work/mvn.log" 2>&1; then
    tail -n 20 "$work/mvn.log" >&2
    say "maven could not fetch Neo4j $version"
    exit 1
fi
ls "$work/place/lib/neo4j-kernel-$version.jar" >/dev/null
mv "$work/place" "$place"
share_classes
sync -f "$place" 2>/dev/null || true
echo "$place"
