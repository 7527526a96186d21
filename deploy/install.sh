#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing of deploy/packages.txt; a fresh machine needs nothing but make and git. Nothing to do = nothing is touched.
# usage: deploy/install.sh [--check] [build|run|test …]      (no group = all; --check only lists what is missing, exit code 1)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
apt_dir=${EW_APT_DIR:-/etc/apt}

check_only=0
if [ "${1:-}" = --check ]; then
    check_only=1
    shift
fi
groups=" ${*:-build run test} "

# Lines "package source least-version" of the chosen groups.
wanted() {
    awk -v groups="$groups" '
        /^#/ || NF == 0 || !index(groups, " " $2 " ") { next }
        { split($1, part, "/"); least = "-"
          for (i = 3; i <= NF; i++) if (substr($i, 1, 2) == ">=") least = substr($i, 3)
          print part[1], (part[2] == "" ? "main" : part[2]), least }' "$here/packages.txt"
}

is_there() { # package least-version
    state=$(dpkg-query -W -f='${db:Status-Abbrev} ${Version}' "$1" 2>/dev/null) || return 1
    case $state in "ii "*) ;; *) return 1 ;; esac
    [ "$2" = - ] || dpkg --compare-versions "${state#ii }" ge "$2" 2>/dev/null || return 1
}

codename() {
    sed -n 's/^VERSION_CODENAME=//p' "${EW_OS_RELEASE:-/etc/os-release}" | tr -d '"'
}

# Every configured suite, one a line: one-line and deb822 format.
suites() {
    for file in "$apt_dir"/sources.list "$apt_dir"/sources.list.d/*.list; do
        [ ! -f "$file" ] || sed -n 's/^[[:space:]]*deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}[^[:space:]]\{1,\}[[:space:]]\{1,\}\([^[:space:]]\{1,\}\).*/\2/p' "$file"
    done
    for file in "$apt_dir"/sources.list.d/*.sources; do
        [ ! -f "$file" ] || awk 'BEGIN { RS = ""; FS = "\n" }
            { off = 0; list = ""
              for (i = 1; i <= NF; i++) {
                  if (tolower($i) ~ /^enabled:[ \t]*(no|false|0)/) off = 1
                  if (tolower($i) ~ /^suites:/) { list = $i; sub(/^[^:]*:/, "", list) } }
              n = split(list, part, /[ \t]+/)
              for (i = 1; i <= n && !off; i++) if (part[i] != "") print part[i] }' "$file"
    done
}

# The deb822 stanza of the source that has suite $1 with component main, as a source of suite $2 from the same place, signed the same way.
derive_stanza() {
    for file in "$apt_dir"/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        awk -v suite="$1" -v backports="$2" 'BEGIN { RS = ""; FS = "\n" }
            { off = 0; has_suite = 0; has_main = 0; uri = ""; key = ""; arch = ""; in_key = 0; is_deb = 0
              for (i = 1; i <= NF; i++) {
                  line = $i; name = tolower(line); sub(/:.*/, "", name)
                  value = line; sub(/^[^:]*:[ \t]*/, "", value)
                  if (line ~ /^#/) continue
                  if (line ~ /^[ \t]/) { if (in_key) key = key "\n" line; continue }
                  in_key = 0
                  if (name == "enabled" && tolower(value) ~ /^(no|false|0)/) off = 1
                  if (name == "types" && (" " value " ") ~ / deb /) is_deb = 1
                  if (name == "suites" && index(" " value " ", " " suite " ")) has_suite = 1
                  if (name == "components" && index(" " value " ", " main ")) has_main = 1
                  if (name == "uris") uri = value
                  if (name == "architectures") arch = value
                  if (name == "signed-by") { key = value; in_key = 1 } }
              if (!off && is_deb && has_suite && has_main && uri != "") {
                  print "Types: deb\nURIs: " uri "\nSuites: " backports "\nComponents: main"
                  if (arch != "") print "Architectures: " arch
                  if (key != "") print "Signed-By: " key
                  exit } }' "$file"
    done
    for file in "$apt_dir"/sources.list "$apt_dir"/sources.list.d/*.list; do
        [ -f "$file" ] || continue
        awk -v suite="$1" -v backports="$2" '$1 == "deb" {
              options = ""; line = $0
              if (match(line, /\[[^]]*\]/)) { options = substr(line, RSTART + 1, RLENGTH - 2); sub(/\[[^]]*\]/, "", line) }
              n = split(line, part, /[ \t]+/)
              if (part[3] != suite || !index(line " ", " main ")) next
              print "Types: deb\nURIs: " part[2] "\nSuites: " backports "\nComponents: main"
              m = split(options, option, /[ \t]+/)
              for (i = 1; i <= m; i++) {
                  if (option[i] ~ /^signed-by=/) print "Signed-By: " substr(option[i], 11)
                  if (option[i] ~ /^arch=/) { gsub(/,/, " ", option[i]); print "Architectures: " substr(option[i], 6) } }
              exit }' "$file"
    done
}

add_backports() {
    release=$(codename)
    backports="$release-backports"
    if suites | grep -qx "$backports"; then
        return 0
    fi
    # Only the first stanza found: one empty line would begin a second.
    stanza=$(derive_stanza "$release" "$backports" | awk '/^Types:/ { n++ } n <= 1')
    if [ -z "$stanza" ]; then
        echo "install: no configured apt source has the suite '$release'; add a source of '$backports' by hand and run this again" >&2
        return 1
    fi
    {
        echo "# Made by deploy/install.sh of Emergent Workspaces from the source of $release."
        echo "$stanza"
    } > "$apt_dir/sources.list.d/emergent-backports.sources"
    echo "install: added $apt_dir/sources.list.d/emergent-backports.sources" >&2
}

missing=
needs_backports=0
list=$(wanted)
while read -r package source least; do
    is_there "$package" "$least" && continue
    if [ "$source" = backports ]; then
        needs_backports=1
        missing="$missing $package/$(codename)-backports"
    else
        missing="$missing $package"
    fi
done <<END
$list
END

if [ -z "$missing" ]; then
    exit 0
fi
if [ "$check_only" = 1 ]; then
    echo "missing packages:$missing" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "install: these packages are missing and only root can install them:$missing" >&2
    exit 1
fi
[ "$needs_backports" = 0 ] || add_backports
echo "install: apt-get install$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# The tests start servers of their own: Debian's package is not to start one for the whole machine.
case "$missing " in
*" postgresql "*)
    apt-get install -q -y --no-install-recommends postgresql-common
    sed -i 's/^#\{0,1\} *create_main_cluster *=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    ;;
esac
# shellcheck disable=SC2086 # a list of words
apt-get install -q -y --no-install-recommends $missing
