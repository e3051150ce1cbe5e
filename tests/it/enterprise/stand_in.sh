#!/bin/sh
# Stands in for the neo4j-admin of Neo4j Enterprise: REAL is that of Community, to which everything else is handed on.
# `database backup` and `database restore` take exactly the options of the Operations Manual, and FIXTURES has what they
# hand out: DATABASE.backup, or `behave`, lines of shell that run where an artifact would be written.
set -eu

refuse() {
    echo "$*" >&2
    exit 1
}

backup() {
    to= from= database=
    for argument in "$@"; do
        case $argument in
            --type=FULL | --compress=true | --keep-failed=false | --include-metadata=all) ;;
            --from=*:[0-9]*) from=${argument#--from=} ;;
            --to-path=/*) to=${argument#--to-path=} ;;
            -*) refuse "Unknown option: '$argument'" ;;
            *) [ -z "$database" ] || refuse "Unmatched argument: $argument"; database=$argument ;;
        esac
    done
    [ -n "$from" ] && [ -n "$to" ] && [ -n "$database" ] || refuse 'Missing required option'
    case "$database $*" in system*--include-metadata*) refuse 'metadata of system' ;; esac
    [ -d "$to" ] && [ -z "$(ls -A "$to")" ] || refuse "'$to' is no empty directory"
    [ "$(stat -c %a "$to")" = 700 ] || refuse "'$to' is not private"
    artifact=$to/$database-2026-11-20T02-00-00.backup
    if [ -e "$FIXTURES/behave" ]; then . "$FIXTURES/behave"; fi
    cp "$FIXTURES/$database.backup" "$artifact"
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
    exec "$REAL" database load --from-stdin --overwrite-destination=true "$database" <"$from"
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
