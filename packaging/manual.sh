#!/usr/bin/env bash
# Prints a manual page made of what a built program says of itself, so that it is true of that program.
#
#   manual.sh PROGRAM SECTION        section 1 or 8: the program's help and that of each command; 5: the configuration
set -euo pipefail
program=$1 section=$2
name=$(basename "$program")
version=$("$program" --version | awk '{print $2}')

# Text as it stands: no line of it is taken for a request, no dash for a hyphen.
literal() { sed -e 's/\\/\\e/g' -e 's/-/\\-/g' -e "s/^\([.']\)/\\\\\&\1/"; }
# The help of a command, without the options that all commands have.
help_of() { COLUMNS=78 "$program" "$@" --help | sed '/^Global options:/,$d'; }
page() { # title, section, one line
    printf '.TH %s %s "" "neo4j\\-backup\\-agent %s"\n.SH NAME\n%s \\- %s\n' \
        "$(tr '[:lower:]' '[:upper:]' <<<"$1" | literal)" "$2" "$version" "$(literal <<<"$1")" "$(literal <<<"$3")"
}
verbatim() {
    printf '.nf\n'
    cat -s | literal
    printf '.fi\n'
}
# Names of the commands below a command, each on a line.
commands_of() { help_of "$@" | awk '/^Commands:/ { on = 1; next } /^[^ ]/ { on = 0 } on && /^  [a-z]/ && $1 != "help" { print $1 }'; }
sections_of() {
    local command
    while read -r command; do
        printf '.SS "%s"\n' "$(literal <<<"$* $command" | sed 's/^ //')"
        help_of "$@" "$command" | verbatim
        sections_of "$@" "$command"
    done < <(commands_of "$@")
}

if [ "$section" = 5 ]; then
    page neo4j-backup.toml 5 'configuration of neo4j-backup-agent'
    printf '.SH DESCRIPTION\n.I /etc/neo4j\\-backup/config.toml\nis read first, then every file of\n.I /etc/neo4j\\-backup/config.d\n'
    printf 'whose name ends in .toml, in the order of their names.\nThe file below has every key in it; it is what\n'
    printf '.B neo4j\\-backupctl config template\nprints.\n.SH KEYS\n'
    "$program" config template | verbatim
    printf '.SH SEE ALSO\n.BR neo4j\\-backupctl (1),\n.BR neo4j\\-backupd (8)\n'
    exit 0
fi

page "$name" "$section" "$("$program" --help | head -n 1)"
printf '.SH SYNOPSIS\n'
"$program" --help | sed -n 's/^Usage: //p' | verbatim
printf '.SH DESCRIPTION\n'
COLUMNS=78 "$program" --help | sed '1,/^Usage:/d' | verbatim
printf '.SH COMMANDS\n'
sections_of
printf '.SH FILES\n.TP\n.I /etc/neo4j\\-backup/config.toml\nthe configuration\n.TP\n.I /etc/neo4j\\-backup/keys\nthe passphrases\n'
printf '.TP\n.I /var/lib/neo4j\\-backup\nthe ledger, and the repository where the configuration names no other\n'
printf '.SH SEE ALSO\n.BR neo4j\\-backupctl (1),\n.BR neo4j\\-backup.toml (5),\n.BR neo4j\\-backupd (8)\n'
