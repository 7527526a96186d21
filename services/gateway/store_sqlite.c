// SPDX-License-Identifier: Apache-2.0
/* One SQLite connection: WAL, FULL sync for durable transactions, statements prepared once. */
#include "services/gateway/store_internal.h"

#include "common/clock.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MS 10000

typedef struct sqlite_db {
    store_db_t db; /* first: a store_db_t is its sqlite_db_t */
    sqlite3 *handle;
    sqlite3_stmt *prepared[STORE_STATEMENT_COUNT];
    bool is_relaxed; /* PRAGMA synchronous=NORMAL is on */
} sqlite_db_t;

static sqlite_db_t *sqlite_of(store_db_t *db)
{
    return (sqlite_db_t *)db;
}

static int fail(const sqlite_db_t *db, const char *what, err_t **e)
{
    int code = sqlite3_errcode(db->handle);
    int system_errno = sqlite3_system_errno(db->handle);
    enum err_code as = (code & 0xff) == SQLITE_CONSTRAINT ? ERR_CONFLICT : ERR_DATABASE;
    if (as == ERR_DATABASE && system_errno != 0)
        return err_set_errno(e, as, system_errno, "%s: %s", what, sqlite3_errmsg(db->handle));
    return err_set(e, as, "%s: %s", what, sqlite3_errmsg(db->handle));
}

/* SQLite has no schemas in one file: `kb.x` and `core.x` become `kb_x` and `core_x`. */
static char *to_dialect(const char *sql)
{
    static const char *const SCHEMAS[] = {"kb.", "core."};
    char *text = mem_strdup(sql);
    for (size_t i = 0; i < COUNT_OF(SCHEMAS); i++)
        for (char *at = strstr(text, SCHEMAS[i]); at != NULL; at = strstr(at + 1, SCHEMAS[i]))
            at[strlen(SCHEMAS[i]) - 1] = '_';
    return text;
}

static int exec_text(store_db_t *opaque, const char *sql, err_t **e)
{
    sqlite_db_t *db = sqlite_of(opaque);
    auto_free char *text = to_dialect(sql);
    if (sqlite3_exec(db->handle, text, NULL, NULL, NULL) != SQLITE_OK)
        return fail(db, "database", e);
    return 0;
}

static int create_private(const char *path, err_t **e)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set_errno(e, ERR_DATABASE, errno, "open the database %s", path);
    close(fd);
    return 0;
}

static void sqlite_close(store_db_t *opaque)
{
    sqlite_db_t *db = sqlite_of(opaque);
    for (size_t i = 0; i < STORE_STATEMENT_COUNT; i++)
        sqlite3_finalize(db->prepared[i]);
    sqlite3_close(db->handle);
    free(db);
}

static store_db_t *sqlite_open(const char *path, err_t **e)
{
    if (create_private(path, e) != 0)
        return NULL;
    sqlite_db_t *db = mem_alloc(sizeof(*db));
    db->db.backend = &STORE_SQLITE;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    if (sqlite3_open_v2(path, &db->handle, flags, NULL) != SQLITE_OK) {
        (void)fail(db, path, e);
        sqlite_close(&db->db);
        return NULL;
    }
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    if (exec_text(&db->db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON", e) != 0) {
        err_wrap(e, "open the database %s", path);
        sqlite_close(&db->db);
        return NULL;
    }
    return &db->db;
}

static int sqlite_begin(store_db_t *opaque, bool is_durable, bool is_writing, err_t **e)
{
    sqlite_db_t *db = sqlite_of(opaque);
    (void)is_writing;
    if (is_durable == db->is_relaxed) {
        if (exec_text(opaque, is_durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", e) != 0)
            return -1;
        db->is_relaxed = !is_durable;
    }
    return exec_text(opaque, "BEGIN IMMEDIATE", e);
}

static bool is_in_transaction(const store_db_t *db)
{
    return !sqlite3_get_autocommit(((const sqlite_db_t *)db)->handle);
}

static void sqlite_rollback(store_db_t *db)
{
    auto_err err_t *ignored = NULL;
    if (is_in_transaction(db))
        (void)exec_text(db, "ROLLBACK", &ignored);
}

static enum store_outcome sqlite_commit(store_db_t *db, err_t **e)
{
    if (exec_text(db, "COMMIT", e) == 0)
        return STORE_COMMITTED;
    sqlite_rollback(db);
    return STORE_NOT_COMMITTED;
}

static int prepare(sqlite_db_t *db, enum store_statement statement, err_t **e)
{
    if (db->prepared[statement] != NULL)
        return 0;
    auto_free char *text = to_dialect(store_statement_sql(statement));
    if (sqlite3_prepare_v3(db->handle, text, -1, SQLITE_PREPARE_PERSISTENT, &db->prepared[statement], NULL) !=
        SQLITE_OK)
        return fail(db, "prepare a statement", e);
    return 0;
}

static int bind_value(sqlite3_stmt *stmt, size_t number, const store_value_t *value)
{
    /* `$3` is a named parameter to SQLite: its index is the order of first appearance, so ask. */
    char name[32];
    snprintf(name, sizeof(name), "$%zu", number);
    int index = sqlite3_bind_parameter_index(stmt, name);
    if (index == 0)
        return SQLITE_RANGE;
    switch (value->kind) {
    case STORE_INT:
        return sqlite3_bind_int64(stmt, index, value->integer);
    case STORE_TEXT:
        return sqlite3_bind_text64(stmt, index, value->bytes, value->len, SQLITE_STATIC, SQLITE_UTF8);
    case STORE_BLOB:
        return sqlite3_bind_blob64(stmt, index, value->bytes, value->len, SQLITE_STATIC);
    case STORE_NULL:
        break;
    }
    return sqlite3_bind_null(stmt, index);
}

static void take_row(sqlite3_stmt *stmt, store_rows_t *rows)
{
    for (int i = 0; i < (int)rows->column_count; i++) {
        store_value_t *value = store_rows_add(rows);
        int type = sqlite3_column_type(stmt, i);
        if (type == SQLITE_INTEGER) {
            value->kind = STORE_INT;
            value->integer = sqlite3_column_int64(stmt, i);
        } else if (type != SQLITE_NULL) {
            value->kind = type == SQLITE_BLOB ? STORE_BLOB : STORE_TEXT;
            const void *bytes =
                type == SQLITE_BLOB ? sqlite3_column_blob(stmt, i) : (const void *)sqlite3_column_text(stmt, i);
            value->len = (size_t)sqlite3_column_bytes(stmt, i);
            value->bytes = store_copy_bytes(bytes, value->len);
        }
    }
}

static int step_all(sqlite_db_t *db, sqlite3_stmt *stmt, store_rows_t *rows, err_t **e)
{
    int64_t before = sqlite3_total_changes64(db->handle);
    rows->column_count = (size_t)sqlite3_column_count(stmt);
    for (size_t count = 0;; count++) {
        int result = sqlite3_step(stmt);
        if (result == SQLITE_DONE)
            break;
        if (result != SQLITE_ROW)
            return fail(db, "database", e);
        if (count == STORE_ROWS_MAX)
            return err_set(e, ERR_DATABASE, "a query gave more than %d rows", STORE_ROWS_MAX);
        take_row(stmt, rows);
    }
    rows->changed += sqlite3_total_changes64(db->handle) - before;
    return 0;
}

static int run_once(sqlite_db_t *db, enum store_statement statement, const store_value_t *params, size_t count,
                    store_rows_t *rows, err_t **e)
{
    if (prepare(db, statement, e) != 0)
        return -1;
    sqlite3_stmt *stmt = db->prepared[statement];
    int result = 0;
    for (size_t i = 0; i < count && result == 0; i++)
        if (bind_value(stmt, i + 1, &params[i]) != SQLITE_OK)
            result = err_set(e, ERR_INTERNAL, "statement %d has no parameter $%zu", (int)statement, i + 1);
    if (result == 0)
        result = step_all(db, stmt, rows, e);
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return result;
}

static int sqlite_run(store_db_t *db, enum store_statement statement, const store_value_t *params, size_t per_row,
                      size_t rows, store_rows_t *out, err_t **e)
{
    int result = 0;
    for (size_t i = 0; i < rows && result == 0; i++)
        result = run_once(sqlite_of(db), statement, params + i * per_row, per_row, out, e);
    return result;
}

static int sqlite_version(store_db_t *opaque, int64_t *version, err_t **e)
{
    sqlite_db_t *db = sqlite_of(opaque);
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(db->handle, "SELECT COALESCE(MAX(version), 0) FROM schema_migrations", -1, &stmt, NULL) !=
            SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW) {
        (void)fail(db, "read the schema version", e);
        sqlite3_finalize(stmt);
        return -1;
    }
    *version = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return 0;
}

static int sqlite_note_version(store_db_t *opaque, int64_t version, const char *name, err_t **e)
{
    sqlite_db_t *db = sqlite_of(opaque);
    sqlite3_stmt *stmt = NULL;
    const char *sql = "INSERT INTO schema_migrations (version, name, applied_at) VALUES ($1, $2, $3)";
    int result = sqlite3_prepare_v2(db->handle, sql, -1, &stmt, NULL);
    if (result == SQLITE_OK) {
        store_value_t values[] = {store_int(version), store_text(name), store_int((int64_t)clock_realtime_ms())};
        for (size_t i = 0; i < COUNT_OF(values); i++)
            (void)bind_value(stmt, i + 1, &values[i]);
        result = sqlite3_step(stmt);
    }
    if (result != SQLITE_DONE)
        (void)fail(db, "note the schema version", e);
    sqlite3_finalize(stmt);
    return result == SQLITE_DONE ? 0 : -1;
}

const store_backend_t STORE_SQLITE = {
    .name = "sqlite",
    .open = sqlite_open,
    .close = sqlite_close,
    .begin = sqlite_begin,
    .commit = sqlite_commit,
    .rollback = sqlite_rollback,
    .run = sqlite_run,
    .is_in_transaction = is_in_transaction,
    .exec_text = exec_text,
    .version = sqlite_version,
    .note_version = sqlite_note_version,
};

store_t *store_open_at(struct event_base *base, const char *path, err_t **e)
{
    return store_open_on(base, &STORE_SQLITE, path, e);
}
