// SPDX-License-Identifier: Apache-2.0
/* Brings the schema up to date: numbered files of services/gateway/migrations, each applied once, each in one
 * transaction with the note that it was. A new migration is a new file and a line below; an applied one is never
 * changed. */
#include "services/gateway/store_internal.h"

#include "common/log.h"
#include "common/mem.h"

#include <inttypes.h>

typedef struct migration {
    int64_t version;
    const char *name;
    const char *sql;
} migration_t;

#ifdef __clang__
#pragma clang diagnostic ignored "-Winvalid-pp-token" /* an empty text of SQL is no character to C */
#endif
#define MIGRATION(number, title, ...) {.version = (number), .name = #title, .sql = #__VA_ARGS__},
static const migration_t MIGRATIONS[] = {
#include "services/gateway/migrations/0001_workspaces.sql"
#include "services/gateway/migrations/0002_api_keys.sql"
#include "services/gateway/migrations/0003_lifecycle.sql"
#include "services/gateway/migrations/0004_snapshots.sql"
#include "services/gateway/migrations/0005_audit.sql"
};
#undef MIGRATION

static int apply(store_db_t *db, const migration_t *m, err_t **e)
{
    const store_backend_t *backend = db->backend;
    if (backend->begin(db, true, true, e) != 0)
        return -1;
    if (backend->exec_text(db, m->sql, e) != 0 || backend->note_version(db, m->version, m->name, e) != 0) {
        backend->rollback(db);
        return err_wrap(e, "migration %" PRId64 " (%s)", m->version, m->name);
    }
    if (backend->commit(db, e) != STORE_COMMITTED)
        return err_wrap(e, "migration %" PRId64 " (%s)", m->version, m->name);
    log_info("database schema is at version %" PRId64 " (%s)", m->version, m->name);
    return 0;
}

static int migrate_locked(store_db_t *db, err_t **e)
{
    int64_t version = 0;
    if (db->backend->exec_text(db,
                               "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint PRIMARY KEY, name text "
                               "NOT NULL, applied_at bigint NOT NULL)",
                               e) != 0 ||
        db->backend->version(db, &version, e) != 0)
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

/* One gateway at a time: the others find it done. */
int store_migrate(store_db_t *db, err_t **e)
{
    const store_backend_t *backend = db->backend;
    if (backend->lock_schema != NULL && backend->lock_schema(db, e) != 0)
        return -1;
    int result = migrate_locked(db, e);
    if (backend->unlock_schema != NULL)
        backend->unlock_schema(db);
    return result;
}
