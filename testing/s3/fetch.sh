#!/bin/sh
# Builds a real S3 server for the tests and prints its path: fetch.sh
#
# It is versitygw, one Go program that serves a directory. It is built once, with its modules from the Go module proxy,
# into CACHE/bin, where CACHE is $NEO4J_BACKUP_TEST_CACHE or ~/.cache/neo4j-backup-agent. Running it again costs nothing:
# the program appears by a rename, and a lock keeps parallel runs from building twice.
#
# Any go will do: one that is too old to build it (Debian 12's is) fetches one that is not, as the module
# golang.org/toolchain. Exit status: 0 it is there, 1 it could not be had; the last line on standard error says why.
set -eu

version=v1.8.0
toolchain=go1.26.8
# What the server's go.mod asks for.
minimum=25
cache=${NEO4J_BACKUP_TEST_CACHE:-${HOME:-/root}/.cache/neo4j-backup-agent}
place=$cache/bin/versitygw-$version
# Longest time that fetching and building may each take, in seconds.
patience=600

say() { echo "fetch.sh: $*" >&2; }

if [ -x "$place" ]; then
    echo "$place"
    exit 0
fi
mkdir -p "$cache/bin"
exec 9>"$cache/versitygw.lock"
flock 9
if [ -x "$place" ]; then
    echo "$place"
    exit 0
fi
command -v go >/dev/null 2>&1 || PATH=$PATH:/usr/local/go/bin:/usr/lib/go/bin
if ! command -v go >/dev/null 2>&1; then
    say "there is no go to build versitygw with; Debian's package is golang-go"
    exit 1
fi

work=$(mktemp -d "$cache/.fetch-XXXXXX")
# Modules are kept read-only.
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export GOPATH="$work/go" GOCACHE="$work/cache" GOTOOLCHAIN=local GOFLAGS= GOBIN="$work/bin" CGO_ENABLED=0
cd "$work"

minor=$(go env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
go=go
if [ "${minor:-0}" -lt "$minimum" ]; then
    # An old go knows the toolchain only as a module like any other: it fetches it and checks it against the checksum
    # database, and leaves out the modes that programs need.
    say "$(go version) is too old; fetching $toolchain"
    case $(uname -m) in aarch64) machine=arm64 ;; *) machine=amd64 ;; esac
    module=golang.org/toolchain@v0.0.1-$toolchain.linux-$machine
    if ! timeout "$patience" go mod download "$module" >&2; then
        say "$toolchain could not be fetched"
        exit 1
    fi
    chmod -R u+w "$GOPATH/pkg/mod/$module"
    chmod +x "$GOPATH/pkg/mod/$module/bin/"* "$GOPATH/pkg/mod/$module/pkg/tool/"*/*
    go=$GOPATH/pkg/mod/$module/bin/go
    unset GOROOT
fi
say "building versitygw $version into $place"
if ! timeout "$patience" "$go" install -ldflags=-s "github.com/versity/versitygw/cmd/versitygw@$version" >"$work/log" 2>&1; then
    tail -n 20 "$work/log" >&2
    say "versitygw $version could not be built"
    exit 1
fi
mv "$work/bin/versitygw" "$place"
echo "$place"
