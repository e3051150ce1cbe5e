#!/usr/bin/env bash
# Installs the Debian package on a host that really boots, with a real PostgreSQL, and goes through an administrator's
# first day: configure, enable, back up over the system's bus, timers, `kill -9`, restore, upgrade, remove, purge.
#
# The host is a Debian 12 in systemd-nspawn without network. It needs root, and scripts/install-prerequisites.sh host.
# NEO4J_BACKUP_DEB names a package that was built elsewhere; otherwise scripts/deb.sh builds it. KEEP=1 keeps the host's
# directory. The first step that fails ends it. Java and the jars of Neo4j are this host's, seen read-only from the booted one;
# without Java (scripts/install-prerequisites.sh test) the part with Neo4j is left out, which the last line says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

# 77: cannot be done on this machine, and says why.
cannot() { printf 'host-test: cannot run here: %s\n' "$*" >&2; exit 77; }
[ "$(id -u)" -eq 0 ] || cannot "it boots a container, which needs root"
unshare --mount --pid --fork true 2>/dev/null || cannot "this machine gives no namespaces, as in a container without that right"
scripts/install-prerequisites.sh host

work=$(mktemp -d "${TMPDIR:-/tmp}/neo4j-backup-host.XXXXXX")
machine=$work/machine
nspawn_pid= leader= binds=()

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
note() { printf '  %s\n' "$*"; }
fail() { printf 'host-test: %s\n' "$*" >&2; exit 1; }
# A command on the booted host.
on_host() { nsenter --target "$leader" --mount --uts --ipc --net --pid --root --wd -- "$@"; }
shell() { on_host sh -euc "$1"; }
ctl() { on_host neo4j-backupctl "$@"; }
wait_for() {
    local what=$1 tries=600
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "$what: still not so after two minutes"
        sleep 0.2
    done
}
# The command must fail with exactly this status.
must_exit() {
    local wanted=$1 status=0
    shift
    "$@" || status=$?
    [ "$status" -eq "$wanted" ] || fail "exit $status instead of $wanted: $*"
}
has() { grep -q -- "$1" <<<"$2" || fail "no \"$1\" in: $2"; }

find_leader() {
    kill -0 "$nspawn_pid" 2>/dev/null || fail "nspawn ended: $(cat "$work/console")"
    leader=$(pgrep -P "$nspawn_pid" | head -n 1) && [ -n "$leader" ]
}
booted() { case $(on_host systemctl is-system-running 2>/dev/null || true) in running | degraded) ;; *) return 1 ;; esac; }
boot() {
    systemd-nspawn --quiet --directory="$machine" --boot --register=no --keep-unit --private-network \
        --machine="backup-test-$$" ${binds[@]+"${binds[@]}"} --console=pipe >"$work/console" 2>&1 &
    nspawn_pid=$!
    wait_for "the host's first process" find_leader
    wait_for "the boot" booted
}
# SIGRTMIN+4 is "power off" to the host's systemd; what does not obey is ended.
stop_host() {
    [ -n "$nspawn_pid" ] && kill -0 "$nspawn_pid" 2>/dev/null || return 0
    [ -z "$leader" ] || kill -s RTMIN+4 "$leader" 2>/dev/null || true
    for _ in $(seq 1 300); do kill -0 "$nspawn_pid" 2>/dev/null || break; sleep 0.2; done
    # shellcheck disable=SC2086  # there may be no leader
    kill -9 $leader "$nspawn_pid" 2>/dev/null || true
    wait "$nspawn_pid" 2>/dev/null || true
    nspawn_pid= leader=
}

cleanup() {
    status=$?
    trap - EXIT INT TERM
    if [ "$status" -ne 0 ] && [ -n "$leader" ]; then
        echo "--- the agent's last words" >&2
        on_host journalctl --no-pager -n 60 -u 'neo4j-backup*' >&2 || true
    fi
    stop_host
    if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
    exit "$status"
}
trap cleanup EXIT INT TERM

package=${NEO4J_BACKUP_DEB:-}
if [ -z "$package" ]; then
    NEO4J_BACKUP_PACKAGES=$work/packages scripts/deb.sh
    package=$(ls "$work"/packages/*.deb)
fi
image=$(testing/host/make-image.sh)
probe=$(systemd-nspawn --quiet --directory="$image" --read-only --register=no --keep-unit --private-network --console=pipe /bin/true 2>&1) \
    || cannot "systemd-nspawn starts no container: $probe"
# What is told at the end is the time of the host's story.
SECONDS=0

skipped=
java=$(readlink -f "$(command -v java || true)")
if [ -x "$java" ]; then
    jars=$(testing/neo4j/fetch.sh "${NEO4J_VERSION:-5.26.0}")
    for place in "${java%/bin/java}" /etc/java-*; do [ ! -d "$place" ] || binds+=("--bind-ro=$place"); done
    binds+=("--bind-ro=$jars:/opt/jars")
else
    skipped="; without Neo4j, since there is no Java"
fi

say "1. A host boots"
cp -a --reflink=auto "$image" "$machine"
cp "$package" "$machine/root/agent.deb"
mkdir "$machine/backup"
boot
note "$(on_host systemctl --version | head -n 1), $(on_host cat /etc/debian_version), $(shell 'systemctl is-system-running || true')"
pg_up() { on_host runuser -u postgres -- psql -Atqc 'SELECT 1' >/dev/null 2>&1; }
on_host systemctl start postgresql@15-main
wait_for "PostgreSQL" pg_up
on_host runuser -u postgres -- psql -Atqc 'CREATE DATABASE shop' -c '\c shop' -c 'CREATE TABLE sale (id int PRIMARY KEY, price int)' \
    -c 'INSERT INTO sale SELECT i, i % 97 FROM generate_series(1, 10000) i' -c 'VACUUM (ANALYZE)' >/dev/null

say "2. The package is installed, and nothing runs before it is told to"
shell 'apt-get install -y --no-install-recommends /root/agent.deb' >"$work/install" 2>&1 || fail "$(cat "$work/install")"
note "$(on_host dpkg-query -W neo4j-backup-agent)"
on_host getent passwd neo4j-backup >/dev/null || fail "the account was not made"
[ "$(on_host stat -c '%a %U' /etc/neo4j-backup/keys)" = "700 root" ] || fail "/etc/neo4j-backup/keys is open"
[ "$(on_host stat -c %a /var/lib/neo4j-backup)" = 711 ] || fail "/var/lib/neo4j-backup has another mode"
must_exit 1 on_host systemctl --quiet is-enabled neo4j-backupd.service
must_exit 3 on_host systemctl --quiet is-active neo4j-backupd.service
must_exit 1 ctl status
shell 'systemd-analyze verify --man=no /lib/systemd/system/neo4j-backup*.timer /lib/systemd/system/neo4j-backup*.service' || fail "a unit is wrong"

# Systemd's patience must be longer than the agent's with its jobs, or it kills what still cleans up.
patience=$(sed -n 's/.*STOP_PATIENCE: Duration = Duration::from_secs(\([0-9]*\)).*/\1/p' src/dbus/service.rs)
allowed=$(on_host systemctl show -P TimeoutStopUSec neo4j-backupd.service)
allowed=$(systemd-analyze timespan "$allowed" | sed -n 's/.*s: \([0-9]*\)$/\1/p')
[ "$allowed" -gt $(((patience + 20) * 1000000)) ] || fail "TimeoutStopSec is not longer than $patience s and 20"

say "3. init: servers found, configured, set up, backed up and verified"
printf '[preflight]\nminimum_free_percent = 1\n' >"$machine/etc/neo4j-backup/config.d/host.toml"
planned=$(ctl init --dry-run --repository /backup 2>&1) || fail "$planned"
for wanted in 'PostgreSQL in /var/lib/postgresql/15/main, unit postgresql@15-main.service, running' 'CREATE ROLE "neo4j-backup"' \
    'wal push postgresql %p' 'local all,replication neo4j-backup peer map=backup'; do has "$wanted" "$planned"; done
[ ! -e "$machine/etc/neo4j-backup/keys/current" ] && [ ! -e "$machine/backup/repository.json" ] || fail "a dry run wrote something"
must_exit 4 ctl init </dev/null
began=$SECONDS
begun=$(ctl --yes init --repository /backup 2>"$work/init") || fail "$(cat "$work/init")$begun"
sed 's/^/  /' <<<"$begun"
note "from the installed package to the first verified backup: $((SECONDS - began)) s"
has 'was taken and verified' "$begun"
has 'full backups at 02:00 UTC' "$begun"
# What the server's log is not archived for would fail every 15 minutes; a restart is an administrator's to do.
has 'neo4j-backup-incremental@postgresql.timer is left out' "$begun"
has 'systemctl restart postgresql' "$begun"
must_exit 1 on_host systemctl --quiet is-enabled neo4j-backup-incremental@postgresql.timer
has 'everything that was found is configured' "$(ctl --yes init 2>&1)"
on_host systemctl restart postgresql@15-main
wait_for "PostgreSQL" pg_up
enabled=$(ctl enable postgresql 2>&1) || fail "$enabled"
has 'incremental backups at' "$enabled"
# What the base ended in was used again when the restart came: that is told, and a base closes the gap.
on_host systemctl start neo4j-backup-incremental@postgresql.service
has 'was taken, because' "$(on_host journalctl --no-pager -o cat -u neo4j-backup-incremental@postgresql.service)"
on_host systemctl start neo4j-backup-incremental@postgresql.service
[ "$(on_host runuser -u postgres -- psql -Atqc 'SELECT archived_count > 0, failed_count FROM pg_stat_archiver')" = 't|0' ] \
    || fail "the server's log did not come through: $(on_host runuser -u postgres -- psql -Atqc 'SELECT * FROM pg_stat_archiver')"
note "the log came over the bus, from the server's account, which has no key"
# It would meet the steps below, which say when what is done.
on_host systemctl stop neo4j-backup-incremental@postgresql.timer
on_host systemctl show -p ActiveState,StatusText,NotifyAccess neo4j-backupd.service | sed 's/^/  /'
ctl check || fail "check finds something wrong"
calendar() { on_host systemctl show -P TimersCalendar "neo4j-backup-full@$1.timer"; }
has 'OnCalendar=\*-\*-\* 02:00:00 UTC' "$(calendar postgresql)"
has 'next full' "$(ctl status)"
note "another configuration: times of timers, a reload of the agent, and one that is refused"
printf '[schedule]\nfull = "03:07 UTC"\n' >"$machine/etc/neo4j-backup/config.d/when.toml"
on_host systemctl daemon-reload
has 'OnCalendar=\*-\*-\* 03:07:00 UTC' "$(calendar postgresql)"
on_host systemctl reload neo4j-backupd.service
echo '[nonsense]' >"$machine/etc/neo4j-backup/config.d/wrong.toml"
must_exit 1 on_host systemctl reload neo4j-backupd.service 2>/dev/null
on_host systemctl --quiet is-active neo4j-backupd.service
rm "$machine/etc/neo4j-backup/config.d/wrong.toml" "$machine/etc/neo4j-backup/config.d/when.toml"
on_host systemctl reload neo4j-backupd.service
ctl disable postgresql >/dev/null
must_exit 3 on_host systemctl --quiet is-active neo4j-backup-full@postgresql.timer
must_exit 1 on_host systemctl --quiet is-enabled neo4j-backup-full@postgresql.timer
ctl enable postgresql >/dev/null 2>&1
on_host systemctl stop neo4j-backup-incremental@postgresql.timer
has 'OnCalendar=\*-\*-\* 02:00:00 UTC' "$(calendar postgresql)"
on_host systemctl --quiet is-enabled neo4j-backup-full@postgresql.timer
[ "$(on_host systemctl service-log-level neo4j-backupd.service)" = info ] || fail "the log's level is another one"
on_host systemctl service-log-level neo4j-backupd.service debug
on_host systemctl service-log-level neo4j-backupd.service info
note "systemd-analyze security: $(on_host systemd-analyze security --no-pager neo4j-backupd.service | tail -n 1)"

say "4. A backup over the system's bus, and the timers' services by hand"
ctl backup postgresql
has 'postgresql-' "$(ctl list)"
ctl check || fail "check finds something wrong"
explained=$(on_host journalctl --no-pager -x -n 1 MESSAGE_ID=ffad7b93675c42aea8ebf501c90a47f7)
has 'The work is done' "$explained"
# Looking is everybody's right, doing is not.
on_host runuser -u postgres -- neo4j-backupctl status >/dev/null
must_exit 77 on_host runuser -u postgres -- neo4j-backupctl backup postgresql
cp testing/host/matrix.sh "$machine/root/matrix.sh"
matrix=$(on_host /root/matrix.sh) || fail "somebody may do what he may not, or may not what he may:"$'\n'"$matrix"
note "root, an operator and anybody, each method: $(wc -l <<<"$matrix") answers as they should be"
idle() { [ "$(ctl jobs)" = 'no job runs' ]; }
wait_for "the end of the dry runs" idle
# Without polkit, root alone.
on_host systemctl mask --now polkit.service >/dev/null 2>&1
on_host runuser -u postgres -- neo4j-backupctl status >/dev/null 2>&1 || true
must_exit 77 on_host runuser -u oscar -- neo4j-backupctl --no-ask-password backup postgresql --dry-run
ctl backup postgresql --dry-run >/dev/null
on_host systemctl unmask polkit.service >/dev/null 2>&1
on_host runuser -u oscar -- neo4j-backupctl backup postgresql --dry-run >/dev/null
on_host systemctl start neo4j-backup-full@postgresql.service
on_host systemctl start neo4j-backup-verify.service
on_host systemctl start neo4j-backup-cleanup.service
[ "$(ctl --no-legend list | grep -c '^ *postgresql-')" -eq 4 ] || fail "four backups were expected: $(ctl list)"
timers=$(on_host systemctl list-timers --no-pager 'neo4j-backup*')
for timer in neo4j-backup-full@postgresql.timer neo4j-backup-cleanup.timer neo4j-backup-verify.timer; do has "$timer" "$timers"; done
sed 's/^/  /' <<<"$timers"

say "5. A failure shows"
must_exit 1 on_host systemctl start neo4j-backup-full@nothing.service
has 'neo4j-backup-full@nothing.service' "$(on_host systemctl --failed --no-pager)"
on_host systemctl reset-failed neo4j-backup-full@nothing.service
[ -z "$(on_host systemctl list-units --failed --no-legend --no-pager 'neo4j-backup*')" ] || fail "something of the agent failed"

say "6. kill -9 in the middle of a backup; systemd starts the agent again, which says what it found"
# A role without the functions of a backup has pg_basebackup make it, a program that can be halted.
functions='pg_backup_start(text, boolean), pg_backup_stop(boolean)'
on_host runuser -u postgres -- psql -Atqc "REVOKE EXECUTE ON FUNCTION $functions FROM \"neo4j-backup\""
main_pid() { on_host systemctl show -P MainPID neo4j-backupd.service; }
before=$(main_pid)
# Its tool is halted as soon as it is seen, so that the job cannot end before the agent does.
shell 'for try in $(seq 1 6000); do if pkill -STOP -x pg_basebackup; then exit 0; fi; sleep 0.01; done; exit 1' &
halting=$!
ctl backup postgresql --no-block
wait "$halting" || fail "no pg_basebackup was seen"
no_job() { [ "$(ctl jobs)" = 'no job runs' ]; }
if no_job; then fail "the job is over already"; fi
inhibits() { on_host systemd-inhibit --list --no-pager | grep -q neo4j-backupd; }
if on_host systemctl --quiet is-active systemd-logind.service; then
    wait_for "the lock that holds up a shutdown" inhibits
    note "a shutdown waits: $(on_host systemd-inhibit --list --no-pager | grep neo4j-backupd)"
else
    note "logind does not run here, so nothing holds up a shutdown"
fi
must_exit 11 ctl backup postgresql
on_host kill -9 "$before"
restarted() { now=$(main_pid) && [ "$now" != 0 ] && [ "$now" != "$before" ] && on_host systemctl --quiet is-active neo4j-backupd.service; }
wait_for "the agent's restart" restarted
on_host journalctl --no-pager -o cat -u neo4j-backupd.service MESSAGE_ID=ad074280ca8a4be996ebe09a957d1588 + MESSAGE_ID=f200b9ee66b347c0b6d612922018988c \
    | sort -u | sed 's/^/  /' >"$work/said"
cat "$work/said"
if on_host pgrep -x pg_basebackup; then fail "the killed agent's tool still runs"; fi
[ -s "$work/said" ] || fail "the agent did not say that it was interrupted"
on_host systemctl start neo4j-backup-full@postgresql.service
note "the next run succeeded"
ctl verify --all >/dev/null

say "7. Restored into a directory"
ctl restore postgresql --into /srv/postgresql-restored
[ -f "$machine/srv/postgresql-restored/PG_VERSION" ] || fail "there is no cluster in /srv/postgresql-restored"

say "8. A mistake, and a restore in place: the agent stops the server's unit, exchanges the directories, starts it again"
sql() { on_host runuser -u postgres -- psql -Atqd shop -c "$1"; }
sold=$(sql 'SELECT count(*), sum(price) FROM sale')
sql 'DELETE FROM sale'
ctl --yes restore postgresql --in-place >"$work/restore" 2>&1 || fail "$(cat "$work/restore")"
wait_for "PostgreSQL" pg_up
[ "$(sql 'SELECT count(*), sum(price) FROM sale')" = "$sold" ] || fail "the rows are not what they were"
[ "$(on_host systemctl show -P ControlGroup postgresql@15-main.service)" = "/system.slice/system-postgresql.slice/postgresql@15-main.service" ] \
    || fail "the server is not its own unit's"
note "all rows are back, and the server runs as its unit"

say "9. The agent is stopped in the middle of a backup, the host reboots, and everything comes up by itself"
shell 'for try in $(seq 1 6000); do if pkill -STOP -x pg_basebackup; then exit 0; fi; sleep 0.01; done; exit 1' &
halting=$!
ctl backup postgresql --no-block
wait "$halting" || fail "no pg_basebackup was seen"
on_host systemctl stop neo4j-backupd.service
[ "$(on_host systemctl show -P Result neo4j-backupd.service)" = success ] || fail "the agent did not end in good order"
if on_host pgrep -x pg_basebackup; then fail "a stopped agent's tool still runs"; fi
stop_host
boot
wait_for "PostgreSQL" pg_up
on_host systemctl --quiet is-active neo4j-backupd.service neo4j-backup-full@postgresql.timer
on_host systemctl start neo4j-backup-full@postgresql.service
no_job || fail "a job is left: $(ctl jobs)"
given=$(ctl --yes setup postgresql 2>/dev/null) || fail "$given"
has 'done: GRANT EXECUTE ON FUNCTION' "$given"
has 'the server lacks nothing' "$(ctl setup postgresql --dry-run)"

if [ -z "$skipped" ]; then
    say "10. A Neo4j that runs as a unit: online base, incremental, official dump, and a restore in place"
    testing/neo4j/make-home.sh "$jars" "$machine/opt/graph"
    ln -sfn /opt/jars/lib "$machine/opt/graph/lib"
    ln -sf "$java" "$machine/usr/bin/java"
    password=canary-$RANDOM$RANDOM-of-neo4j
    on_host /opt/graph/bin/neo4j-admin dbms set-initial-password "$password" >/dev/null
    install -m 0600 /dev/stdin "$machine/etc/neo4j-backup/neo4j.password" <<<"$password"
    cat >"$machine/etc/systemd/system/neo4j.service" <<'UNIT'
[Service]
User=neo4j
ExecStart=/opt/graph/bin/neo4j console
SuccessExitStatus=143
UNIT
    shell 'useradd --system neo4j && chown -R neo4j: /opt/graph && systemctl daemon-reload && systemctl start neo4j'
    graph_up() { grep -q 'Started\.' "$machine/opt/graph/logs/neo4j.log" 2>/dev/null; }
    wait_for "Neo4j" graph_up
    # What is new is found, what is known stays; the server runs on.
    begun=$(ctl --yes init 2>"$work/init") || fail "$(cat "$work/init")$begun"
    sed 's/^/  /' <<<"$begun"
    has 'Neo4j in /opt/graph, unit neo4j.service, running → neo4j' "$(cat "$work/init")"
    has 'neo4j-.*-base was taken and verified' "$begun"
    has 'OnCalendar=\*-\*-\* 02:30:00 UTC' "$(calendar neo4j)"
    server=$(on_host systemctl show -P MainPID neo4j.service)
    on_host systemctl start neo4j-backup-full@neo4j.service
    on_host systemctl start neo4j-backup-incremental@neo4j.service
    ctl backup neo4j --type dump
    [ "$(on_host systemctl show -P MainPID neo4j.service)" = "$server" ] || fail "the graph server was stopped"
    ctl --yes restore neo4j --in-place >"$work/restore" 2>&1 || fail "$(cat "$work/restore")"
    on_host systemctl --quiet is-active neo4j.service
    note "restored; the server runs as its unit"
fi

say "11. Nothing secret leaves its file: processes, bus, journal, ledger and repository are watched while jobs run"
secrets=$machine/root/secrets
cat "$machine"/etc/neo4j-backup/keys/* >"$secrets"
[ -n "$skipped" ] || cat "$machine/etc/neo4j-backup/neo4j.password" >>"$secrets"
busctl_pid=
on_host busctl --system capture >"$work/bus" 2>/dev/null &
busctl_pid=$!
# Command lines and environments of every process, again and again; one look takes some milliseconds.
shell 'while [ ! -e /run/watched ]; do
    for file in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do
        if grep -qaFf /root/secrets "$file" 2>/dev/null; then echo "$file: $(tr "\0" " " <"$file" | cut -c 1-80)"; fi
    done
    echo looked >&2
done' >"$work/seen" 2>"$work/looks" &
watching=$!
ctl backup postgresql
ctl restore postgresql --into /srv/watched >/dev/null
[ -n "$skipped" ] || { ctl backup neo4j; ctl backup neo4j --type dump; ctl restore neo4j --into /srv/watched-graph >/dev/null; }
ctl --yes key rotate >/dev/null
ctl backup postgresql >/dev/null
ctl verify --all >/dev/null
on_host touch /run/watched
wait "$watching" || true
kill "$busctl_pid" 2>/dev/null || true
wait "$busctl_pid" 2>/dev/null || true
# The rotated key is one more.
cat "$machine"/etc/neo4j-backup/keys/* >>"$secrets"
sort -u "$secrets" | sed '/^$/d' >"$work/secrets"
[ "$(wc -l <"$work/secrets")" -ge 2 ] && [ "$(wc -l <"$work/looks")" -ge 3 ] && [ -s "$work/bus" ] || fail "nothing was watched"
[ ! -s "$work/seen" ] || fail "a secret was seen in $(sort -u "$work/seen")"
if grep -qaFf "$work/secrets" "$work/bus"; then fail "a secret went over the bus"; fi
on_host journalctl --no-pager --all -o export >"$work/journal"
if grep -qaFf "$work/secrets" "$work/journal"; then fail "a secret is in the journal"; fi
if found=$(grep -rlaFf "$work/secrets" "$machine/var/lib/neo4j-backup" "$machine/backup" "$machine/srv" "$machine/var/log" "$machine/tmp"); then
    fail "a secret is in $found"
fi
# A core would hold them.
has 'Max core file size  *0 ' "$(on_host cat "/proc/$(main_pid)/limits")"
note "$(wc -l <"$work/secrets") secrets, $(wc -l <"$work/looks") looks at all processes, $(stat -c %s "$work/bus") bytes of the bus: nowhere"
on_host rm -f /root/secrets
rm -rf "$machine"/srv/watched*

say "12. Upgraded: configuration kept, the agent restarted, timers still there"
echo '# mine' >>"$machine/etc/neo4j-backup/config.toml"
before=$(main_pid)
shell 'DEBIAN_FRONTEND=noninteractive apt-get install -y --reinstall /root/agent.deb' >"$work/upgrade" 2>&1 || fail "$(cat "$work/upgrade")"
[ "$(tail -n 1 "$machine/etc/neo4j-backup/config.toml")" = '# mine' ] || fail "the configuration was replaced"
[ "$(main_pid)" != "$before" ] || fail "the agent was not restarted"
on_host systemctl --quiet is-active neo4j-backupd.service neo4j-backup-full@postgresql.timer
ctl backup postgresql --note "after the upgrade"

say "13. Removed, then purged; the backups stay"
backups=$(find "$machine/backup" -type f | sort)
[ -n "$backups" ] || fail "there are no backups in /backup"
shell 'apt-get remove -y neo4j-backup-agent' >"$work/remove" 2>&1 || fail "$(cat "$work/remove")"
must_exit 3 on_host systemctl --quiet is-active neo4j-backupd.service
[ -z "$(on_host systemctl list-timers --no-legend --no-pager 'neo4j-backup*')" ] || fail "a timer is left"
[ -z "$(on_host systemctl list-units --failed --no-legend --no-pager 'neo4j-backup*')" ] || fail "removing left failed units"
[ -f "$machine/etc/neo4j-backup/config.toml" ] || fail "remove took the configuration"
shell 'apt-get purge -y neo4j-backup-agent' >"$work/purge" 2>&1 || fail "$(cat "$work/purge")"
grep 'is left as it is' "$work/purge" | sed 's/^/  /'
[ ! -e "$machine/etc/neo4j-backup/config.toml" ] || fail "purge left the configuration"
[ -z "$(find "$machine/etc/systemd/system" -name 'neo4j-backup*' -o -name '*neo4jbackup*')" ] || fail "purge left links to units"
[ "$(find "$machine/backup" -type f | sort)" = "$backups" ] || fail "purge touched the backups"
[ -s "$machine/etc/neo4j-backup/keys/current" ] && [ -s "$machine/var/lib/neo4j-backup/ledger.db" ] || fail "purge took key or ledger"

say "14. Installed again: everything is known"
shell 'apt-get install -y --no-install-recommends /root/agent.deb' >"$work/again" 2>&1 || fail "$(cat "$work/again")"
on_host systemctl enable --now neo4j-backupd.service 2>/dev/null
ctl verify --all
printf '\nhost-test: %d s; everything was as it should be%s\n' "$SECONDS" "$skipped"
