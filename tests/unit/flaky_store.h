/* SPDX-License-Identifier: Apache-2.0
 *
 * SQLite that can be told to be away, as a PostgreSQL behind a cut network is, or to fail in words of its own. Included
 * before workspaces_world.h, whose store it becomes.
 */
#ifndef EW_TESTS_FLAKY_STORE_H
#define EW_TESTS_FLAKY_STORE_H

#include "services/gateway/store.h"
#include "services/gateway/store_internal.h"

#include <stdatomic.h>

#define FLAKY_SECRET "disk I/O error in /var/lib/secret"

enum flaky_state { FLAKY_WELL, FLAKY_AWAY, FLAKY_BROKEN };
static atomic_int flaky_state; /* set by the test, read by the store's thread */
static store_backend_t flaky_backend;

static int flaky_begin(store_db_t *db, bool is_durable, bool is_writing, err_t **e)
{
    int state = atomic_load(&flaky_state);
    if (state == FLAKY_AWAY)
        return err_set(e, ERR_DATABASE_UNAVAILABLE, STORE_UNAVAILABLE);
    if (state == FLAKY_BROKEN)
        return err_set(e, ERR_DATABASE, FLAKY_SECRET);
    return STORE_SQLITE.begin(db, is_durable, is_writing, e);
}

static bool flaky_is_connected(const store_db_t *db)
{
    (void)db;
    return atomic_load(&flaky_state) != FLAKY_AWAY;
}

static store_db_t *flaky_open(const char *path, err_t **e)
{
    store_db_t *db = STORE_SQLITE.open(path, e);
    if (db != NULL)
        db->backend = &flaky_backend;
    return db;
}

static inline store_t *flaky_open_at(struct event_base *base, const char *path, err_t **e)
{
    flaky_backend = STORE_SQLITE;
    flaky_backend.open = flaky_open;
    flaky_backend.begin = flaky_begin;
    flaky_backend.is_connected = flaky_is_connected;
    return store_open_on(base, &flaky_backend, path, e);
}
#define store_open_at flaky_open_at

#endif
