#!/usr/bin/env bash
# Who may do what, asked of the agent and of polkit on the booted host: every method of the bus interface as root, as a member of
# neo4j-backup-operator, and as somebody without any group. Prints a line for each that is not as it should be, and fails.
# Nothing is done: what may be done is asked for as a dry run, or of a target or a job that is not there.
set -euo pipefail

getent passwd alice >/dev/null || useradd --system --shell /bin/sh alice
getent passwd oscar >/dev/null || useradd --system --shell /bin/sh --groups neo4j-backup-operator oscar

wrong=0
# "yes" if the agent let it pass, "no" if it said who may not; everything else is what the agent said.
asked_as() {
    local user=$1 said
    shift
    said=$(runuser -u "$user" -- busctl --system --timeout=60 call org.neo4jbackup.Agent1 /org/neo4jbackup/Agent1 \
        org.neo4jbackup.Agent1.Manager "$@" 2>&1) && { echo yes; return; }
    case $said in
    *"may not"*) echo no ;;
    *"Unknown method"* | *UnknownMethod*) echo unknown ;;
    *) echo yes ;;
    esac
}
# wanted as root, operator, anybody; then the method and its arguments
row() {
    local root=$1 operator=$2 anybody=$3 user wanted got
    shift 3
    for user in root oscar alice; do
        case $user in root) wanted=$root ;; oscar) wanted=$operator ;; *) wanted=$anybody ;; esac
        got=$(asked_as "$user" "$@")
        printf '  %-7s %-10s %s\n' "$got" "$user" "$*"
        [ "$got" = "$wanted" ] || { echo "matrix: $user, $*: $got instead of $wanted" >&2; wrong=1; }
    done
}
dry=("a{sv}" 1 dry_run b true)

row yes yes yes Status s ""
row yes yes yes List s ""
row yes yes yes Show s nothing
row yes yes yes History u 5
row yes yes yes Jobs
row yes yes yes Restores
row yes yes yes Check s ""
row yes yes no Backup "s${dry[0]}" postgresql "${dry[@]:1}"
row yes yes no Archive "s${dry[0]}" postgresql "${dry[@]:1}"
row yes yes no Verify "s${dry[0]}" nothing 0
row yes yes no Cancel t 471100
row yes yes no Restore "ss${dry[0]}" postgresql "" 2 into s /srv/never dry_run b true
row yes no no Restore "ss${dry[0]}" nothing "" 1 in_place b true
row yes yes no Rescan "${dry[0]}" 0
row yes no no Delete "s${dry[0]}" nothing "${dry[@]:1}"
row yes no no Cleanup "${dry[@]}"
row yes no no Adopt "s${dry[0]}" nothing 0
row yes no no KeyList
row yes no no KeyRotate "${dry[@]}"
row yes no no Reload
row unknown unknown unknown Nonsense
exit "$wrong"
