#!/bin/sh
# Stands in for the neo4j-admin of Neo4j Enterprise: REAL is that of Community, to which everything else is handed on.
# `database backup` and `database restore` take exactly the options of the Operations Manual, and FIXTURES has what they
# hand out: DATABASE.backup, which ends with DATABASE.highest, and DATABASE.LOW-HIGH.diff, which follow each other; or
# `behave`, lines of shell that run where an artifact would be written. Beside a DIFF, .log is the piece of transaction
# log that it holds, and .at the file and byte where that belongs: `restore` loads the full artifact and lays them over it.
set -eu

refuse() {
    echo "$*" >&2
    exit 1
}

# Sets `low` and `high` to what an artifact holds. It must be, byte for byte, one that was handed out.
range() {
    if cmp -s "$1" "$FIXTURES/$database.backup"; then
        low=1 high=$(cat "$FIXTURES/$database.highest")
        return
    fi
    for known in "$FIXTURES/$database".*-*.diff; do
        if cmp -s "$1" "$known"; then
            low=${known##*/"$database".} low=${low%%-*} high=${known##*-} high=${high%.diff}
            return
        fi
    done
    refuse "$1 is no artifact of $database that is known here"
}

# Sets `newest` to the end of the newest artifact in a directory that is not empty.
parent() {
    newest=0
    for artifact in "$1"/*.backup; do
        [ -e "$artifact" ] || refuse "no backup in $1 that a differential one could follow"
        range "$artifact"
        [ "$high" -le "$newest" ] || newest=$high
    done
}

backup() {
    to= from= database= type=
    for argument in "$@"; do
        case $argument in
            --type=FULL | --type=DIFF) type=${argument#--type=} ;;
            --compress=true | --keep-failed=false | --include-metadata=all) ;;
            --from=*:[0-9]*) from=${argument#--from=} ;;
            --to-path=/*) to=${argument#--to-path=} ;;
            -*) refuse "Unknown option: '$argument'" ;;
            *) [ -z "$database" ] || refuse "Unmatched argument: $argument"; database=$argument ;;
        esac
    done
    [ -n "$type" ] && [ -n "$from" ] && [ -n "$to" ] && [ -n "$database" ] || refuse 'Missing required option'
    case "$database $*" in system*--include-metadata*) refuse 'metadata of system' ;; esac
    [ -d "$to" ] || refuse "'$to' is no directory"
    [ "$type" = DIFF ] || [ -z "$(ls -A "$to")" ] || refuse "'$to' is not empty"
    [ "$(stat -c %a "$to")" = 700 ] || refuse "'$to' is not private"
    handed=$FIXTURES/$database.backup
    if [ "$type" = DIFF ]; then
        parent "$to"
        handed=$FIXTURES/$database.0-0.diff
        for next in "$FIXTURES/$database.$((newest + 1))"-*.diff; do [ ! -e "$next" ] || handed=$next; done
    fi
    count=$(ls "$FIXTURES" | wc -l)$(ls "$to" | wc -l)
    artifact=$to/$database-2026-11-20T02-00-$(printf %02d "${newest-0}" | tail -c 2)$count.backup
    if [ -e "$FIXTURES/behave" ]; then . "$FIXTURES/behave"; fi
    cp "$handed" "$artifact"
    echo 'INFO  [c.n.b.OnlineBackupExecutor] Finished'
}

restore() {
    from= database= overwrite=
    for argument in "$@"; do
        case $argument in
            --overwrite-destination=true) overwrite=yes ;;
            --from-path=/*.backup) from=${argument#--from-path=} ;;
            -*) refuse "Unknown option: '$argument'" ;;
            *) [ -z "$database" ] || refuse "Unmatched argument: $argument"; database=$argument ;;
        esac
    done
    [ -f "$from" ] && [ -n "$overwrite" ] && [ -n "$database" ] || refuse 'Missing required option'
    case ${from##*/} in "$database"-[0-9]*T[0-9]*) ;; *) refuse "${from##*/} is not called like an artifact" ;; esac
    range "$from"
    chain= directory=${from%/*}
    while [ "$low" != 1 ]; do
        chain="$known $chain" wanted=$((low - 1)) from=
        for artifact in "$directory"/*.backup; do
            range "$artifact"
            if [ "$high" = "$wanted" ]; then from=$artifact; break; fi
        done
        [ -n "$from" ] || refuse "no chain that ends with $wanted in $directory"
    done
    "$REAL" database load --from-stdin --overwrite-destination=true "$database" <"$from"
    logs=$(sed -n 's/^server.directories.transaction.logs.root=//p' "$NEO4J_CONF/neo4j.conf")
    for piece in $chain; do
        read -r number offset <"${piece%.diff}.at"
        dd if="${piece%.diff}.log" of="$logs/$database/neostore.transaction.db.$number" bs=64K oflag=seek_bytes \
            seek="$offset" conv=notrunc 2>/dev/null
    done
}

[ "$1" = --version ] || echo "$*" >>"$FIXTURES/said"
case "${1:-} ${2:-}" in
    --version*) if [ -n "$VERSION" ]; then echo "$VERSION"; else exec "$REAL" "$@"; fi ;;
    'database --help')
        printf 'Commands:\n  load     Load a database from an archive.\n'
        printf '  backup   Perform an online backup from a running Neo4j enterprise server.\n  restore  Restore a backed up database.\n'
        ;;
    'database backup') shift 2; backup "$@" ;;
    'database restore') shift 2; restore "$@" ;;
    *) exec "$REAL" "$@" ;;
esac
