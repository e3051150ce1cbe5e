#!/usr/bin/env bash
# Sees that the programs which building, testing or measuring needs are there, and installs what is missing.
#
#   install-prerequisites.sh [build] [test] [demo] [bench] [deb] [rpm] [host]        without arguments: build and test
#
# Each prerequisite is looked for by what it gives, not by its package, so that other distributions work too; only the
# installation knows Debian. As root the missing packages are installed; otherwise the command that does it is printed.
# Nothing is fetched when nothing is missing. An existing PostgreSQL cluster is not touched, and none is created.
set -euo pipefail

groups=("$@")
[ ${#groups[@]} -gt 0 ] || groups=(build test)

# group, package of Debian 12, command that succeeds when the prerequisite is there
prerequisites() {
    cat <<'LIST'
build build-essential cc --version
build build-essential make --version
build pkg-config pkg-config --version
build libssl-dev pkg-config --exists openssl
build libsqlite3-dev pkg-config --exists sqlite3
build ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
test openssl openssl version
test zstd zstd --version
test gzip gzip --version
test tar tar --version
test dbus-daemon dbus-daemon --version
test util-linux setpriv --version
test procps ps --version
test strace strace --version
test xfsprogs mkfs.xfs -V
test postgresql-15 test -x /usr/lib/postgresql/15/bin/initdb
test postgresql-client-15 test -x /usr/lib/postgresql/15/bin/pg_basebackup
test openjdk-17-jre-headless java -version
test maven mvn --version
test unzip unzip -v
test xz-utils xz --version
test golang-go go version || test -x /usr/local/go/bin/go
demo python3 python3 --version
bench openssl openssl version
bench zstd zstd --version
bench util-linux setpriv --version
bench postgresql-15 test -x /usr/lib/postgresql/15/bin/pgbench
bench pgbackrest pgbackrest version
deb dpkg-dev dpkg-buildpackage --version
deb debhelper command -v dh_installsysusers
deb lintian lintian --version
rpm rpm rpmbuild --version
rpm rpm2cpio command -v rpm2cpio
rpm cpio cpio --version
host debootstrap debootstrap --version
host systemd-container systemd-nspawn --version
LIST
}

# Prints the packages whose prerequisite does not answer, each once.
missing() {
    local group package probe wanted
    while read -r group package probe; do
        for wanted in "${groups[@]}"; do
            if [ "$group" = "$wanted" ] && ! bash -c "$probe" >/dev/null 2>&1 </dev/null; then
                echo "$package"
            fi
        done
    done < <(prerequisites) | sort -u
}

install_with_apt() {
    export DEBIAN_FRONTEND=noninteractive
    # Debian's package would create a cluster "main" and start it; no test needs one.
    local drop_in=/etc/postgresql-common/createcluster.d/neo4j-backup-agent.conf made_directory=
    if [[ " $* " == *" postgresql-15 "* ]]; then
        [ -d "${drop_in%/*}" ] || made_directory=yes
        mkdir -p "${drop_in%/*}"
        echo 'create_main_cluster = false' >"$drop_in"
    fi
    local status=0
    apt-get update -q && apt-get install -q -y --no-install-recommends "$@" || status=$?
    rm -f "$drop_in"
    if [ -n "$made_directory" ]; then
        rmdir --ignore-fail-on-non-empty "${drop_in%/*}"
    fi
    return "$status"
}

find_cargo() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    if ! cargo --version >/dev/null 2>&1; then
        echo "install-prerequisites: there is no working cargo; install Rust with rustup (https://rustup.rs)," >&2
        echo "  which then fetches the version that rust-toolchain.toml names" >&2
        exit 1
    fi
}

mapfile -t packages < <(missing)
if [ ${#packages[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "install-prerequisites: missing; on Debian 12 these packages have them: ${packages[*]}" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "install-prerequisites: missing; run this as root, then try again:" >&2
        echo "  apt-get update && apt-get install --no-install-recommends ${packages[*]}" >&2
        exit 1
    fi
    echo "install-prerequisites: installing ${packages[*]}"
    install_with_apt "${packages[@]}" || echo "install-prerequisites: apt-get failed, looking at what is there" >&2
    mapfile -t packages < <(missing)
    if [ ${#packages[@]} -gt 0 ]; then
        echo "install-prerequisites: still missing: ${packages[*]}" >&2
        exit 1
    fi
fi
case " ${groups[*]} " in *" build "*) find_cargo ;; esac
echo "install-prerequisites: everything for ${groups[*]} is there"
