#!/usr/bin/env bash
# Builds the Debian package into target/packages/ and lets lintian look at it: an error or a warning is a failure.
#
# NEO4J_BACKUP_BIN names programs that were built elsewhere; otherwise they are built here. NEO4J_BACKUP_PACKAGES is
# another directory for the result. Packaging works in a copy: nothing of it stays in the checkout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
# The job server of a calling make is not meant for cargo.
unset MAKEFLAGS MFLAGS MAKELEVEL

packages=${NEO4J_BACKUP_PACKAGES:-$PWD/target/packages}
if [ -z "${NEO4J_BACKUP_BIN:-}" ]; then
    scripts/install-prerequisites.sh build deb
    cargo build --release --locked --bins
    NEO4J_BACKUP_BIN=${CARGO_TARGET_DIR:-$PWD/target}/release
else
    scripts/install-prerequisites.sh deb
fi
NEO4J_BACKUP_BIN=$(realpath "$NEO4J_BACKUP_BIN")
export NEO4J_BACKUP_BIN

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tree"
cp -a debian packaging systemd docs ./*.md LICENSE Cargo.toml "$work/tree"
# A package is the same whoever checked out with which umask.
chmod -R u+rwX,go+rX,go-w "$work/tree"
(cd "$work/tree" && dpkg-buildpackage --build=binary --no-sign)
lintian --fail-on error,warning --info "$work"/*.deb
mkdir -p "$packages"
cp "$work"/*.deb "$packages/"
echo "make deb: $packages/$(basename "$work"/*.deb)"
