#!/usr/bin/env bash
# Builds static programs, and from them the container image without pulling another image.
#
#   deploy/static.sh                 programs and image wanproxy:local
#   deploy/static.sh --image NAME    programs and image NAME
#   deploy/static.sh --tree DIR      programs only, laid out in DIR as the image has them
#
# Needs cargo, a C compiler and, for the image, a container engine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

image=wanproxy:local
tree=
case "${1-}" in
    '') ;;
    --image) image=${2:?--image needs a name} ;;
    --tree) tree=${2:?--tree needs a directory} ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac

programs=(wanproxy-client wanproxy-server wanproxy-line wanproxy-origin wanproxy-hello wanproxy-first-start)
target="$(uname -m)-unknown-linux-gnu"
build="${CARGO_TARGET_DIR:-$PWD/target}"
# With an explicit target the flags are for the programs alone and not for build scripts and macros, which cannot be static.
RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static" cargo build --release --locked --target "$target" \
    -p wanproxy-client -p wanproxy-server -p wanproxy-tests \
    "${programs[@]/#/--bin=}"

make_image=
if [[ -z $tree ]]; then
    make_image=yes
    tree="$build/image"
    rm -rf "$tree"
elif [[ -e $tree ]]; then
    echo "static.sh: $tree exists already; name a directory that does not" >&2
    exit 1
fi

# root/ and demo/ belong to root and are not written to; owned/ is where the edges write, and belongs to their user.
mkdir -p "$tree/root/usr/local/bin" "$tree/demo/srv/sample" "$tree/owned/data" "$tree/owned/handover"
install -D -m 644 deploy/compose/client.toml "$tree/demo/etc/wanproxy/client.toml"
for program in "${programs[@]}"; do
    if LC_ALL=C readelf --program-headers "$build/$target/release/$program" | grep -q INTERP; then
        echo "static.sh: $program is not static: it asks for a dynamic loader" >&2
        exit 1
    fi
    strip -o "$tree/root/usr/local/bin/$program" "$build/$target/release/$program"
done
# The sample that the demonstration fetches: the sources of wanproxy, the same archive from the same sources.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --exclude='.*' -cf "$tree/demo/srv/sample/sources.tar" \
    Cargo.toml Cargo.lock README.md docs codec tunnel edge wanproxy-client wanproxy-server tests
chmod 755 "$tree" "$tree"/*/
chmod 700 "$tree/owned/data" "$tree/owned/handover"

if [[ -n $make_image ]]; then
    docker build --quiet --file deploy/Dockerfile.scratch --tag "$image" "$tree"
    echo "static.sh: image $image is built"
else
    echo "static.sh: the programs are in $tree"
fi
