// SPDX-License-Identifier: Apache-2.0
/* Brings the schema up to date: numbered files of services/gateway/migrations, each applied once, each in one
 * transaction with the note that it was. A new migration is a new file and a line below; an applied one is never
 * changed. */
#include "services/gateway/store.h"

#include "common/log.h"
#include "common/mem.h"

#include <inttypes.h>

typedef struct migration {
    int64_t version;
    const char *name;
    const char *sql;
} migration_t;

#define MIGRATION(number, title, ...) {.version = (number), .name = #title, .sql = #__VA_ARGS__},
static const migration_t MIGRATIONS[] = {
#include "services/gateway/migrations/0001_workspaces.sql"
#include "services/gateway/migrations/0002_api_keys.sql"
};
#undef MIGRATION

static int apply(store_db_t *db, const migration_t *m, err_t **e)
{
    if (store_db_begin(db, true, e) != 0)
        return -1;
    if (store_db_exec_text(db, m->sql, e) != 0 || store_db_note_version(db, m->version, m->name, e) != 0) {
        auto_err err_t *ignored = NULL;
        (void)store_db_exec_text(db, "ROLLBACK", &ignored);
        return err_wrap(e, "migration %" PRId64 " (%s)", m->version, m->name);
    }
    if (store_db_commit(db, e) != 0)
        return err_wrap(e, "migration %" PRId64 " (%s)", m->version, m->name);
    log_info("database schema is at version %" PRId64 " (%s)", m->version, m->name);
    return 0;
}

int store_migrate(store_db_t *db, err_t **e)
{
    int64_t version = 0;
    if (store_db_exec_text(
            db,
            "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint PRIMARY KEY, name text NOT NULL, "
            "applied_at bigint NOT NULL)",
            e) != 0 ||
        store_db_version(db, &version, e) != 0)
        return -1;
    int64_t newest = MIGRATIONS[COUNT_OF(MIGRATIONS) - 1].version;
    if (version > newest)
        return err_set(e, ERR_DATABASE,
                       "the database has schema version %" PRId64 ", this gateway knows only up to %" PRId64
                       ": start the newer release that made it, or restore a backup",
                       version, newest);
    for (size_t i = 0; i < COUNT_OF(MIGRATIONS); i++)
        if (MIGRATIONS[i].version > version && apply(db, &MIGRATIONS[i], e) != 0)
            return -1;
    return 0;
}
