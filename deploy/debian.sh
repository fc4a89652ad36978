#!/usr/bin/env bash
# Builds the Debian packages wanproxy-client and wanproxy-server into DIR:
#
#   deploy/debian.sh DIR [OPTION...]
#
# Needs cargo-deb (cargo install cargo-deb --locked), and dpkg-dev to find the libraries that they depend on. Options are cargo-deb's:
# --fast packs quickly and larger.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# == 0)) || [[ $1 == -* ]]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
mkdir -p "$1"
output=$(cd "$1" && pwd)
shift
cargo build --release --locked -p wanproxy-client -p wanproxy-server
programs="${CARGO_TARGET_DIR:-$PWD/target}/release"

# What the programs say of themselves: pages, completions, and the configurations that they write.
parts=target/debian-parts
rm -rf "$parts"
for side in client server; do
    mkdir -p "$parts/$side/man"
    "$programs/wanproxy-$side" man --dir "$parts/$side/man"
    for shell in bash zsh fish; do
        "$programs/wanproxy-$side" completions "$shell" >"$parts/$side/$shell"
    done
done
edges=$(mktemp -d)
trap 'rm -rf "$edges"' EXIT
"$programs/wanproxy-server" init --dir "$edges/server" --address hq.example.com:7443 --allow '10.0.0.0/8:*' >/dev/null
"$programs/wanproxy-server" invite branch-1 --dir "$edges/server" --out "$edges/invite" >/dev/null
"$programs/wanproxy-client" join "$edges/invite" --dir "$edges/client" >/dev/null
for side in client server; do
    cp "$edges/$side/$side.toml" "$parts/$side/"
    chmod 644 "$parts/$side/$side.toml"
    # Quiet, because it warns of every file below target that cargo has not made.
    cargo deb --locked --no-build --quiet --package "wanproxy-$side" --output "$output/" "$@"
done
