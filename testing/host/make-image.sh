#!/usr/bin/env bash
# Prints the directory of a Debian 12 that boots, with a real PostgreSQL 15 in it; makes it when it is not there. It is
# made once and kept outside the checkout; tests boot copies of it.
#
#   make-image.sh            needs root, debootstrap, and the mirror that this host's apt uses
set -euo pipefail

# Part of the image's name: an image of another list of packages is another image.
edition=2
cache=${NEO4J_BACKUP_TEST_CACHE:-$HOME/.cache/neo4j-backup-agent}/host
image=$cache/bookworm-$edition
if [ -d "$image" ]; then
    echo "$image"
    exit 0
fi

[ "$(id -u)" -eq 0 ] || { echo "make-image: debootstrap needs root" >&2; exit 1; }
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ -d "$image" ]; then
    echo "$image"
    exit 0
fi

# shellcheck disable=SC2016  # apt fills that in
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
making=$(mktemp -d "$cache/making.XXXXXX")
trap 'umount "$making/proc" 2>/dev/null || true; rm -rf "$making"' EXIT
# Accounts other than root must get into their own root directory.
chmod 0755 "$making"
{
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,udev,procps bookworm "$making" "$mirror"
    # Services must not start within the chroot; they do when the image boots.
    printf '#!/bin/sh\nexit 101\n' >"$making/usr/sbin/policy-rc.d"
    chmod 0755 "$making/usr/sbin/policy-rc.d"
    mount -t proc proc "$making/proc"
    # With the package's own libraries, since the booted host has no network to fetch them from.
    chroot "$making" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get install -q -y --no-install-recommends \
        postgresql-15 libssl3 libsqlite3-0 openssl zstd polkitd
    chroot "$making" apt-get clean
    umount "$making/proc"
    rm "$making/usr/sbin/policy-rc.d"
    # Each copy is a host of its own, and nothing in it waits for a network that is not there.
    : >"$making/etc/machine-id"
    echo backup-test >"$making/etc/hostname"
    printf '127.0.0.1 localhost backup-test\n' >"$making/etc/hosts"
} >&2
[ -f "$making/etc/postgresql/15/main/postgresql.conf" ] || { echo "make-image: PostgreSQL's package made no cluster" >&2; exit 1; }
mv "$making" "$image"
trap - EXIT
echo "$image"
