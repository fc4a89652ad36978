#!/bin/sh
# The packages that `cargo bench -p codec --bench compare` measures on: corpora.sh DIR
#
# Fetches two releases of a source package with pip and two builds of binary packages with apt-get, by name, from wherever those are configured to
# look, and leaves each as a plain tar: DIR/NAME.old.tar and DIR/NAME.new.tar. What cannot be had is said and left out; what is there already is kept.
# The benchmark makes everything else that it needs by itself, from fixed seeds. About 250 MB are downloaded.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
work=$(mktemp -d "$dir/.fetching.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
missing=0

there() { [ -s "$dir/$1.old.tar" ] && [ -s "$dir/$1.new.tar" ]; }
left_out() { echo "$1: left out: $2" >&2; missing=1; }
keep() { # NAME AGE FILE
    mv "$3" "$dir/$1.$2.tar"
    echo "$1.$2: $(wc -c < "$dir/$1.$2.tar") bytes, $4"
}

# Sources: NAME PACKAGE OLD NEW
sources() {
    there "$1" && return
    command -v pip > /dev/null || { left_out "$1" "there is no pip"; return; }
    for pair in "old $3" "new $4"; do
        age=${pair% *} version=${pair#* }
        rm -rf "$work/pip" && mkdir "$work/pip"
        pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$work/pip" "$2==$version" >&2 ||
            { left_out "$1" "pip does not find $2 $version"; return; }
        gzip -dc "$work/pip"/*.tar.gz > "$work/tar" || { left_out "$1" "$2 $version is no .tar.gz"; return; }
        keep "$1" "$age" "$work/tar" "$2 $version"
    done
}

# A Debian package as a plain tar: NAME AGE PACKAGE[=VERSION]
deb() {
    rm -rf "$work/deb" && mkdir "$work/deb"
    (cd "$work/deb" && apt-get download -qq "$3" >&2) || { left_out "$1" "apt-get does not find $3"; return 1; }
    dpkg-deb --fsys-tarfile "$work/deb"/*.deb > "$work/tar" || { left_out "$1" "$3 cannot be unpacked"; return 1; }
    keep "$1" "$2" "$work/tar" "$3"
}

# The newest two of what stands in lines, oldest first, or nothing.
newest_two() { sort -uV | tail -n 2 | { read -r old && read -r new && echo "$old $new"; } || true; }

# Two builds of one package, the first of the named ones that the archive has in two versions: NAME PACKAGE...
builds() {
    name=$1 && shift
    there "$name" && return
    command -v apt-cache > /dev/null || { left_out "$name" "there is no apt-get"; return; }
    for package; do
        two=$(apt-cache madison "$package" | awk -F'|' '$3 ~ /Packages/ { gsub(/ /, "", $2); print $2 }' | newest_two)
        [ -n "$two" ] || continue
        deb "$name" old "$package=${two% *}" && deb "$name" new "$package=${two#* }"
        return
    done
    left_out "$name" "the archive has no two versions of any of: $*; try after apt-get update"
}

# Two packages that follow each other by their names: NAME PATTERN
names() {
    there "$1" && return
    command -v apt-cache > /dev/null || { left_out "$1" "there is no apt-get"; return; }
    two=$(apt-cache search --names-only "$2" | cut -d' ' -f1 | newest_two)
    [ -n "$two" ] || { left_out "$1" "the archive has no two packages $2; try after apt-get update"; return; }
    deb "$1" old "${two% *}" && deb "$1" new "${two#* }" || true
}

sources django-patch Django 5.0.6 5.0.7
sources django-minor Django 5.0.7 5.1
builds office libreoffice-core openjdk-17-jre-headless openjdk-21-jre-headless
names kernel '^linux-image-[0-9.]*-[0-9]*-(amd64|arm64)$'
exit "$missing"
