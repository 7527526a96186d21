#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What is linked or shipped stands in docs/licenses/AGENT_WORKSPACE.md with a licence of the allow-list.
# A row of its tables: | component | Debian package | version | licence | how it is used |
set -u
. "$(dirname "$0")/common.sh"
table=docs/licenses/AGENT_WORKSPACE.md
bin=${EW_BIN:-build/bin}
allowed='Apache-2.0 MIT BSD-2-Clause BSD-3-Clause ISC Zlib curl OpenSSL blessing PostgreSQL MPL-2.0 LGPL-2.1-or-later LGPL-3.0-or-later MIT-Modern LGPL-with-linking-exception GPL-with-linking-exception LGPL-3.0-linking-exception public-domain'

component_rows() {
    awk -F'|' '/^## / { section = $0 } /^\|/ && $2 !~ /component|---/ && section ~ /[Ll]inked|[Rr]un by/ { gsub(/^ +| +$/, "", $2); gsub(/^ +| +$/, "", $3); gsub(/^ +| +$/, "", $5); gsub(/^ +| +$/, "", $6); print $2 "|" $5 "|" $6 "|" section }' "$table"
}

if [ ! -f "$table" ]; then
    echo "$table:1: licence: the file is missing" > "$found"
    finish
fi
# 1. The libraries of the Makefile: by pkg-config name.
packages=$(sed -n 's/^PKGS = //p' Makefile)
for library in $packages $(grep -oE -- '[[:space:]]-l[a-z_0-9-]+' Makefile | sed 's/^.-l//' | grep -vx m | sort -u); do
    grep -qF "\`$library\`" "$table" || echo "$table:1: licence: '$library' is linked (Makefile) but not in the table"
done >> "$found"
# 2. What the built programs really load.
for program in "$bin"/gateway "$bin"/gvisord "$bin"/emergent; do
    [ -x "$program" ] || continue
    objdump -p "$program" 2>/dev/null | awk '$1 == "NEEDED" { print $2 }' | grep -vE '^(ld-linux.*|libgcc_s)\.' | while read -r object; do
        grep -qF "\`$object\`" "$table" || echo "$table:1: licence: $(basename "$program") loads $object, which is not in the table"
    done
done >> "$found"
# 3. The licences: each word of "A OR B" / "A AND B" must be allowed for linked components.
component_rows | while IFS='|' read -r component licence how section; do
    case $section in *"Run by"*) continue ;; esac
    for word in $(echo "$licence" | sed 's/ OR / /g; s/ AND / /g'); do
        case " $allowed " in *" $word "*) ;; *) echo "$table:1: licence: $component: '$word' is not on the allow-list" ;; esac
        case $word:$how in
        LGPL*:*dynamically* | LGPL*:*relinkable*) ;;
        LGPL*) echo "$table:1: licence: $component: LGPL must be linked dynamically or be relinkable" ;;
        esac
    done
    [ -n "$licence" ] || echo "$table:1: licence: $component has no licence"
done >> "$found"
finish
