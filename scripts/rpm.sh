#!/usr/bin/env bash
# Builds the RPM package into target/packages/ and unpacks it once, to see that what it lists is what it holds.
#
# NEO4J_BACKUP_BIN names programs that were built elsewhere; otherwise they are built here, against the libraries of this
# host: build it on the distribution that it is for. NEO4J_BACKUP_PACKAGES is another directory for the result.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
# The job server of a calling make is not meant for cargo.
unset MAKEFLAGS MFLAGS MAKELEVEL

packages=${NEO4J_BACKUP_PACKAGES:-$PWD/target/packages}
if [ -z "${NEO4J_BACKUP_BIN:-}" ]; then
    scripts/install-prerequisites.sh build rpm
    cargo build --release --locked --bins
    NEO4J_BACKUP_BIN=${CARGO_TARGET_DIR:-$PWD/target}/release
else
    scripts/install-prerequisites.sh rpm
fi
NEO4J_BACKUP_BIN=$(realpath "$NEO4J_BACKUP_BIN")
export NEO4J_BACKUP_BIN

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
rpmbuild -bb --quiet --define "_topdir $work/rpm" --define "tree $PWD" --define "version $version" \
    packaging/neo4j-backup-agent.spec
rpm=$(find "$work/rpm/RPMS" -name '*.rpm')
mkdir "$work/unpacked"
(cd "$work/unpacked" && rpm2cpio "$rpm" | cpio --quiet -idm)
while read -r path; do
    [ -e "$work/unpacked$path" ] || { echo "rpm: $path is listed and not in the package" >&2; exit 1; }
done < <(rpm -qpl "$rpm")
"$work/unpacked/usr/bin/neo4j-backupctl" --version >/dev/null
mkdir -p "$packages"
cp "$rpm" "$packages/"
echo "make rpm: $packages/$(basename "$rpm")"
