#!/bin/sh
# Keeps the classes of a server as the JVM has read and verified them: share-classes.sh PLACE
#
# PLACE is what fetch.sh prints. PLACE/server.jsa saves each later start about a third of its processor time. A JVM that cannot
# make or use it goes on without; an empty file says that it was tried. Running it again costs nothing.
set -eu

place=${1:?usage: share-classes.sh PLACE}
here=$(cd "$(dirname "$0")" && pwd)
[ ! -e "$place/server.jsa" ] || exit 0

work=$(mktemp -d "$place/.share-XXXXXX")
home=$work/home
trap '"$home/bin/neo4j" stop >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
"$here/make-home.sh" "$place" "$home"
cat >>"$home/conf/neo4j.conf" <<'CONF'
server.bolt.listen_address=127.0.0.1:0
server.http.enabled=false
dbms.security.auth_enabled=false
CONF

NEO4J_SHARE_CLASSES=$work/server.jsa "$home/bin/neo4j" start >&2
waited=0
until grep -q 'Started\.$' "$home/logs/neo4j.log" 2>/dev/null; do
    # Where no server runs, as with too old a JVM, the next call tries again.
    "$home/bin/neo4j" status >/dev/null || exit 1
    [ "$waited" -lt 1200 ] || break
    sleep 0.1
    waited=$((waited + 1))
done
"$home/bin/neo4j" stop >&2
[ -s "$work/server.jsa" ] || : >"$work/server.jsa"
mv "$work/server.jsa" "$place/server.jsa"
