/* SPDX-License-Identifier: Apache-2.0
 *
 * The store: SQL in one actor thread, so that the event loop never waits for a disk. Statements are rows of
 * store_sql.def, written once in the dialect that SQLite and PostgreSQL share: `$1` parameters, `kb.table` names
 * (SQLite: prefix `kb_`), times as milliseconds since 1970.
 *
 * Requests are executed in the order of the calls. The actor takes everything that waits into one transaction (group
 * commit), so that a thousand creates cost one fsync; a request is answered after the commit that holds it. A statement
 * that fails fails alone.
 *
 * A database that cannot be reached (PostgreSQL) fails requests with `database_unavailable`: then nothing of them was
 * or will be done. Only those whose COMMIT was under way when the connection broke are kept, and answered with the
 * truth as soon as the database tells it. The store comes back by itself.
 *
 * Ownership: parameters are copied; a result is borrowed for the callback. Callbacks run in the event loop, never
 * within the call. Limits: STORE_QUEUE_MAX requests and STORE_QUEUE_BYTES of parameters are under way, then
 * `overloaded`; a result has at most STORE_ROWS_MAX rows.
 */
#ifndef EW_GATEWAY_STORE_H
#define EW_GATEWAY_STORE_H

#include "common/err.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define STORE_QUEUE_MAX 8192
#define STORE_QUEUE_BYTES ((size_t)64 << 20)
#define STORE_GROUP_MAX 512 /* requests in one transaction */
#define STORE_ROWS_MAX 1000000
#define STORE_PARAMS_MAX 32

typedef struct store store_t;

enum store_statement {
#define X(name, sql) STORE_##name,
#include "services/gateway/store_sql.def"
#undef X
    STORE_STATEMENT_COUNT
};

enum store_kind { STORE_NULL, STORE_INT, STORE_TEXT, STORE_BLOB };
typedef struct store_value {
    enum store_kind kind;
    int64_t integer;
    const void *bytes; /* TEXT: NUL-terminated in results */
    size_t len;
} store_value_t;

static inline store_value_t store_int(int64_t value)
{
    return (store_value_t){.kind = STORE_INT, .integer = value};
}
/* NULL becomes SQL NULL. */
static inline store_value_t store_text(const char *s)
{
    if (s == NULL)
        return (store_value_t){.kind = STORE_NULL};
    return (store_value_t){.kind = STORE_TEXT, .bytes = s, .len = strlen(s)};
}
static inline store_value_t store_blob(const void *bytes, size_t len)
{
    if (bytes == NULL)
        return (store_value_t){.kind = STORE_NULL};
    return (store_value_t){.kind = STORE_BLOB, .bytes = bytes, .len = len};
}

typedef struct store_result {
    size_t row_count;
    size_t column_count;
    const store_value_t *values; /* row by row */
    int64_t changed;             /* rows that a write touched */
} store_result_t;

const store_value_t *store_at(const store_result_t *result, size_t row, size_t column);
const char *store_text_at(const store_result_t *result, size_t row, size_t column); /* NULL for SQL NULL */
int64_t store_int_at(const store_result_t *result, size_t row, size_t column);      /* 0 for SQL NULL */

/* err NULL = committed. */
typedef void (*store_done_fn)(void *arg, const store_result_t *result, const err_t *err);

/* Durable: survives power loss once `done` says so. done may be NULL (a failure is logged). */
int store_exec(store_t *s, enum store_statement statement, const store_value_t *params, size_t count,
               store_done_fn done, void *arg, err_t **e);
/* The same statement for many rows of parameters (rows × per_row values), survives a crash of the process but maybe not
 * of the machine. */
int store_exec_batch(store_t *s, enum store_statement statement, const store_value_t *params, size_t per_row,
                     size_t rows, store_done_fn done, void *arg, err_t **e);
/* For start-up only: blocks until it is done; `done` is called before this returns, with a result only. */
int store_exec_wait(store_t *s, enum store_statement statement, const store_value_t *params, size_t count,
                    store_done_fn done, void *arg, err_t **e);

/* Opens (or makes, 0600) the SQLite file and brings its schema up to date. A schema newer than this program is refused.
 */
store_t *store_open_at(struct event_base *base, const char *path, err_t **e);
/* The same for postgres://… or postgresql://…, as libpq reads it. Waits some seconds for a server that starts. */
store_t *store_open_postgres(struct event_base *base, const char *url, err_t **e);
/* Finishes what waits, then closes. Callbacks that did not run yet never will. */
void store_close(store_t **s);

size_t store_queue_length(store_t *s);
/* Whether the database could be reached when it was last tried; else -1 and `database_unavailable`. Never waits. */
int store_check(store_t *s, err_t **e);
/* What a client is told when the store failed: none of the database's own words, but whether it may retry. */
void store_client_error(const err_t *err, err_t **e);

#endif
