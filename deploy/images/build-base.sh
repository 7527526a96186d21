#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the sandbox image `base` from Debian packages with mmdebstrap and puts it into the image store (EW_IMAGE_DIR).
# About half a minute; does nothing when the image is there and was made by this version of the script. FORCE=1 makes it anew.
# The packages come from where this host's apt takes them. Needs: mmdebstrap, tar, root; GVISORD names the gvisord binary.
set -eu

name=${IMAGE_NAME:-base}
suite=${SUITE:-bookworm}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
gvisord=${GVISORD:-$root/build/bin/gvisord}
packages=bash,coreutils,git,curl,ca-certificates,ripgrep,jq,python3,procps,sudo,findutils,grep,sed,gawk,less,patch,file,diffutils,xz-utils,zip,unzip
state=${EW_STATE_DIR:-$root/var}
store=${EW_IMAGE_DIR:-$state/images}
stamp=$(cksum < "$0" | tr ' ' '-')

say() { printf 'image %s: %s\n' "$name" "$1"; }

[ -x "$gvisord" ] || { say "gvisord is not built ($gvisord); run make first"; exit 1; }
if [ "${FORCE:-0}" != 1 ] && [ -f "$store/$name/image.json" ] && [ "$(cat "$store/$name/recipe" 2>/dev/null)" = "$stamp" ]; then
    say "is there already"
    exit 0
fi
command -v mmdebstrap > /dev/null || { say "mmdebstrap is missing; install it with make install"; exit 1; }

mkdir -p "$store"
work=$(mktemp -d "$store/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

# shellcheck disable=SC2016 # apt and mmdebstrap expand these themselves
# One-line sources of the suite and its updates, as apt on this host knows them.
apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v suite="$suite" '$2 == suite || $2 == suite "-updates" || $2 == suite "-security" { if ($3 == "main") print "deb", $1, $2, $3 }' |
    sort -u > "$work/sources.list"
[ -s "$work/sources.list" ] || { say "apt on this host has no source for $suite; run apt-get update"; exit 1; }

say "installing packages ($packages)"
# shellcheck disable=SC2016
mmdebstrap --quiet --variant=minbase --format=tar \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --include="$packages" \
    --customize-hook='chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 user' \
    --customize-hook='printf "user ALL=(ALL) NOPASSWD: ALL\n" > "$1/etc/sudoers.d/user"; chmod 440 "$1/etc/sudoers.d/user"' \
    --customize-hook='rm -rf "$1"/var/log/*.log "$1"/var/log/apt "$1"/var/cache/apt/*.bin' \
    "$suite" "$work/rootfs.tar" "$work/sources.list"

say "unpacking into $store"
EW_IMAGE_DIR=$store "$gvisord" --import-image "$name" "$work/rootfs.tar" "mmdebstrap $suite"
printf '%s\n' "$stamp" > "$store/$name/recipe.new"
mv "$store/$name/recipe.new" "$store/$name/recipe"
say "ready"
