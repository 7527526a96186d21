#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A PostgreSQL server for tests, on a Unix socket in a directory of its own. Its URL, with a password, is in DIR/url.
# usage: postgres.sh start DIR | stop DIR | crash DIR | destroy DIR
#   start    makes the cluster if there is none, starts it, waits until it answers
#   stop     cuts its sessions and stops it
#   crash    kill -9 of all its processes at once
#   destroy  crash, and removes DIR
# Root is refused by the server, so it runs as `postgres`.
set -eu
bin=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
dir=${2:-}
password='p@ss w0rd/%'
encoded='p%40ss%20w0rd%2F%25'

as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid postgres --regid postgres --clear-groups --inh-caps=-all "$@"
    else
        "$@"
    fi
}

make_cluster() {
    mkdir -p "$dir"
    [ "$(id -u)" != 0 ] || chown postgres "$dir"
    chmod 0755 "$dir"
    printf '%s\n' "$password" > "$dir/password"
    chmod 0644 "$dir/password"
    as_postgres "$bin/initdb" -D "$dir/data" -U gateway -A scram-sha-256 --pwfile="$dir/password" -E UTF8 --locale=C --no-sync > "$dir/initdb.log" 2>&1 || {
        cat "$dir/initdb.log" >&2
        return 1
    }
    rm -f "$dir/password"
    cat >> "$dir/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
max_connections = 30
shared_buffers = 16MB
max_wal_senders = 0
wal_level = minimal
CONF
    printf 'postgresql://gateway:%s@/postgres?host=%s\n' "$encoded" "$dir" > "$dir/url"
    chmod 0600 "$dir/url"
}

pid() { head -n 1 "$dir/data/postmaster.pid" 2>/dev/null; }

is_alive() { [ -n "${1:-}" ] && kill -0 "$1" 2>/dev/null && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }

start() {
    [ -f "$dir/data/PG_VERSION" ] || make_cluster
    # After a crash the first attempt may still meet a process of the old server.
    for _ in $(seq 30); do
        if as_postgres "$bin/pg_ctl" -D "$dir/data" -l "$dir/data/server.log" -w -t 60 -s start < /dev/null > /dev/null 2> "$dir/data/start.log"; then
            return 0
        fi
        sleep 0.3
    done
    cat "$dir/data/start.log" "$dir/data/server.log" >&2
    return 1
}

crash() {
    postmaster=$(pid) || return 0
    is_alive "$postmaster" || return 0
    children=$(pgrep -P "$postmaster" || true)
    # shellcheck disable=SC2086 # a list of numbers
    kill -9 "$postmaster" $children 2>/dev/null || true
    for process in $postmaster $children; do
        while is_alive "$process"; do sleep 0.02; done
    done
    # A zombie that nobody has reaped yet would count as a server that holds these.
    rm -f "$dir/data/postmaster.pid" "$dir/.s.PGSQL.5432.lock" "$dir/.s.PGSQL.5432"
}

[ -n "$dir" ] && [ -n "$bin" ] || {
    echo "postgres.sh: no directory was given, or no server is installed below /usr/lib/postgresql (package postgresql)" >&2
    exit 3
}
case $1 in
start) start ;;
stop) as_postgres "$bin/pg_ctl" -D "$dir/data" -m fast -w -s stop ;;
crash) crash ;;
destroy)
    crash
    rm -rf --one-file-system "$dir"
    ;;
*) exit 2 ;;
esac
