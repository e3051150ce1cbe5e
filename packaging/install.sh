#!/usr/bin/env bash
# Places everything that the packages hold below a directory: the one list that the .deb and the .rpm share.
#
#   install.sh DESTDIR UNITS ZSH        UNITS and ZSH: where the distribution has systemd's units and zsh's completions
#
# NEO4J_BACKUP_BIN names the directory of the built programs; without it, target/release. What the programs can say of
# themselves (completions, manual pages, the template) is asked of them, so that it is of their version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$1 units=$2 zsh=$3
bin=${NEO4J_BACKUP_BIN:-target/release}
ctl=$bin/neo4j-backupctl

put() { # mode, file, place below DESTDIR
    install -D -p -m "$1" "$2" "$root/$3"
}
made() { # place below DESTDIR, command whose output goes there
    local place=$root/$1
    shift
    mkdir -p "${place%/*}"
    "$@" >"$place"
    chmod 0644 "$place"
}

put 0755 "$ctl" /usr/bin/neo4j-backupctl
put 0755 "$bin/neo4j-backupd" /usr/sbin/neo4j-backupd

for unit in systemd/*.service systemd/*.timer; do put 0644 "$unit" "$units/${unit##*/}"; done
put 0755 systemd/neo4j-backup-generator "${units%/*}/system-generators/neo4j-backup-generator"
put 0644 packaging/sysusers.conf /usr/lib/sysusers.d/neo4j-backup-agent.conf
put 0644 packaging/journal.catalog /usr/lib/systemd/catalog/neo4j-backup-agent.catalog
put 0644 packaging/tmpfiles.conf /usr/lib/tmpfiles.d/neo4j-backup-agent.conf

put 0644 packaging/dbus/org.neo4jbackup.Agent1.conf /usr/share/dbus-1/system.d/org.neo4jbackup.Agent1.conf
put 0644 packaging/dbus/org.neo4jbackup.Agent1.service /usr/share/dbus-1/system-services/org.neo4jbackup.Agent1.service
for interface in packaging/dbus/*.xml; do put 0644 "$interface" "/usr/share/dbus-1/interfaces/${interface##*/}"; done
put 0644 packaging/polkit/org.neo4jbackup.Agent1.policy /usr/share/polkit-1/actions/org.neo4jbackup.Agent1.policy
put 0644 packaging/polkit/neo4j-backup-agent.rules /usr/share/polkit-1/rules.d/neo4j-backup-agent.rules

# Without a package manager between, what an administrator wrote must survive a second installation.
[ -e "$root/etc/neo4j-backup/config.toml" ] || put 0644 packaging/config.toml /etc/neo4j-backup/config.toml
install -d -m 0755 "$root/etc/neo4j-backup/config.d"

made /usr/share/bash-completion/completions/neo4j-backupctl "$ctl" completions bash
made "$zsh/_neo4j-backupctl" "$ctl" completions zsh
made /usr/share/fish/vendor_completions.d/neo4j-backupctl.fish "$ctl" completions fish

made /usr/share/man/man1/neo4j-backupctl.1 packaging/manual.sh "$ctl" 1
made /usr/share/man/man8/neo4j-backupd.8 packaging/manual.sh "$bin/neo4j-backupd" 8
made /usr/share/man/man5/neo4j-backup.toml.5 packaging/manual.sh "$ctl" 5
for page in man1/neo4j-backupctl.1 man8/neo4j-backupd.8 man5/neo4j-backup.toml.5; do gzip -9 -n -f "$root/usr/share/man/$page"; done

doc=/usr/share/doc/neo4j-backup-agent
made "$doc/examples/config.toml" "$ctl" config template
for text in README.md SECURITY.md docs/*.md; do put 0644 "$text" "$doc/${text##*/}"; done
for sample in packaging/cloud/* packaging/cloud/terraform/*; do
    [ -d "$sample" ] || put 0644 "$sample" "$doc/${sample#packaging/}"
done
