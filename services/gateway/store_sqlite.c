// SPDX-License-Identifier: Apache-2.0
/* One SQLite connection: WAL, FULL sync for durable transactions, statements prepared once. */
#include "services/gateway/store.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MS 10000

static const char *const STATEMENTS[] = {
#define X(name, sql) sql,
#include "services/gateway/store_sql.def"
#undef X
};

struct store_db {
    sqlite3 *handle;
    sqlite3_stmt *prepared[STORE_STATEMENT_COUNT];
    bool is_relaxed; /* PRAGMA synchronous=NORMAL is on */
};

static int fail(store_db_t *db, const char *what, err_t **e)
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

int store_db_exec_text(store_db_t *db, const char *sql, err_t **e)
{
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

store_db_t *store_db_open(const char *path, err_t **e)
{
    if (create_private(path, e) != 0)
        return NULL;
    store_db_t *db = mem_alloc(sizeof(*db));
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    if (sqlite3_open_v2(path, &db->handle, flags, NULL) != SQLITE_OK) {
        (void)fail(db, path, e);
        store_db_close(&db);
        return NULL;
    }
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    if (store_db_exec_text(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON", e) != 0) {
        err_wrap(e, "open the database %s", path);
        store_db_close(&db);
        return NULL;
    }
    return db;
}

void store_db_close(store_db_t **db)
{
    if (*db == NULL)
        return;
    for (size_t i = 0; i < STORE_STATEMENT_COUNT; i++)
        sqlite3_finalize((*db)->prepared[i]);
    sqlite3_close((*db)->handle);
    free(*db);
    *db = NULL;
}

int store_db_begin(store_db_t *db, bool is_durable, err_t **e)
{
    if (is_durable == db->is_relaxed) {
        if (store_db_exec_text(db, is_durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", e) != 0)
            return -1;
        db->is_relaxed = !is_durable;
    }
    return store_db_exec_text(db, "BEGIN IMMEDIATE", e);
}

int store_db_commit(store_db_t *db, err_t **e)
{
    if (store_db_exec_text(db, "COMMIT", e) == 0)
        return 0;
    if (!sqlite3_get_autocommit(db->handle)) {
        auto_err err_t *ignored = NULL;
        (void)store_db_exec_text(db, "ROLLBACK", &ignored);
    }
    return -1;
}

bool store_db_is_in_transaction(store_db_t *db)
{
    return !sqlite3_get_autocommit(db->handle);
}

static int prepare(store_db_t *db, enum store_statement statement, err_t **e)
{
    if (db->prepared[statement] != NULL)
        return 0;
    auto_free char *text = to_dialect(STATEMENTS[statement]);
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

static store_value_t *add_value(store_rows_t *rows)
{
    if (rows->value_count == rows->value_cap) {
        rows->value_cap = rows->value_cap ? rows->value_cap * 2 : 32;
        rows->values = mem_realloc(rows->values, rows->value_cap * sizeof(*rows->values));
    }
    store_value_t *value = &rows->values[rows->value_count++];
    memset(value, 0, sizeof(*value));
    return value;
}

/* With a NUL behind them, for texts. */
static void *copy_bytes(const void *bytes, size_t len)
{
    uint8_t *copy = mem_alloc(len + 1);
    if (len > 0)
        memcpy(copy, bytes, len);
    return copy;
}

static void take_row(sqlite3_stmt *stmt, store_rows_t *rows)
{
    for (int i = 0; i < (int)rows->column_count; i++) {
        store_value_t *value = add_value(rows);
        int type = sqlite3_column_type(stmt, i);
        if (type == SQLITE_INTEGER) {
            value->kind = STORE_INT;
            value->integer = sqlite3_column_int64(stmt, i);
        } else if (type != SQLITE_NULL) {
            value->kind = type == SQLITE_BLOB ? STORE_BLOB : STORE_TEXT;
            const void *bytes =
                type == SQLITE_BLOB ? sqlite3_column_blob(stmt, i) : (const void *)sqlite3_column_text(stmt, i);
            value->len = (size_t)sqlite3_column_bytes(stmt, i);
            value->bytes = copy_bytes(bytes, value->len);
        }
    }
}

static int step_all(store_db_t *db, sqlite3_stmt *stmt, store_rows_t *rows, err_t **e)
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

int store_db_run(store_db_t *db, enum store_statement statement, const store_value_t *params, size_t count,
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

void store_rows_free(store_rows_t *rows)
{
    for (size_t i = 0; i < rows->value_count; i++)
        free((void *)(uintptr_t)rows->values[i].bytes);
    free(rows->values);
    memset(rows, 0, sizeof(*rows));
}

int store_db_version(store_db_t *db, int64_t *version, err_t **e)
{
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

int store_db_note_version(store_db_t *db, int64_t version, const char *name, err_t **e)
{
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
