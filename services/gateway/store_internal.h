/* SPDX-License-Identifier: Apache-2.0
 *
 * What the store*.c files share: a connection behind a table of functions (one row per kind of database), and the jobs
 * that the actor runs on it in groups. A connection is used by one thread at a time.
 *
 *   store.c              the queue, the actor, the calls of store.h
 *   store_group.c        one group of jobs in one transaction, tried again where that is right
 *   store_migrations.c   brings the schema up to date
 *   store_sqlite.c       SQLite
 *   store_postgres.c     PostgreSQL: connection, transactions, what a lost one has become
 *   store_postgres_values.c  its parameters and results
 *   store_open.c         which of them DATABASE_URL means
 */
#ifndef EW_GATEWAY_STORE_INTERNAL_H
#define EW_GATEWAY_STORE_INTERNAL_H

#include "services/gateway/store.h"

#define STORE_UNAVAILABLE "the database cannot be reached now; retry in a moment"

typedef struct store_rows { /* grows while a statement runs; freed by store_rows_free */
    store_value_t *values;
    size_t value_count;
    size_t value_cap;
    size_t column_count;
    int64_t changed;
} store_rows_t;

store_value_t *store_rows_add(store_rows_t *rows); /* one more value, NULL at first */
void *store_copy_bytes(const void *bytes, size_t len);
void store_rows_free(store_rows_t *rows);

/* How a transaction ended. UNKNOWN: the connection broke while COMMIT was under way; `resolve` finds out. */
enum store_outcome { STORE_COMMITTED, STORE_NOT_COMMITTED, STORE_UNKNOWN };

typedef struct store_backend store_backend_t;
typedef struct store_db {
    const store_backend_t *backend;
} store_db_t;

struct store_backend {
    const char *name;
    store_db_t *(*open)(const char *where, err_t **e);
    void (*close)(store_db_t *db);
    /* Connects again when that is due, else fails with `database_unavailable`. is_writing: something may be written. */
    int (*begin)(store_db_t *db, bool is_durable, bool is_writing, err_t **e);
    enum store_outcome (*commit)(store_db_t *db, err_t **e); /* sets *e for all but COMMITTED */
    void (*rollback)(store_db_t *db);
    /* `rows` × `per_row` parameters: the statement once for each; results are added up. */
    int (*run)(store_db_t *db, enum store_statement statement, const store_value_t *params, size_t per_row, size_t rows,
               store_rows_t *out, err_t **e);
    bool (*is_in_transaction)(const store_db_t *db); /* a full disk or a lost connection ends one by itself */
    int (*exec_text)(store_db_t *db, const char *sql, err_t **e); /* schema statements */
    int (*version)(store_db_t *db, int64_t *version, err_t **e);
    int (*note_version)(store_db_t *db, int64_t version, const char *name, err_t **e);
    /* Around migrations; NULL where the file's lock is enough. */
    int (*lock_schema)(store_db_t *db, err_t **e);
    void (*unlock_schema)(store_db_t *db);

    /* The rest is of databases behind a connection; NULL for a file. */
    bool (*is_connected)(const store_db_t *db);
    bool (*is_aborted)(const store_db_t *db);   /* a failed statement has spoilt the transaction */
    bool (*is_transient)(const store_db_t *db); /* the last failure was a deadlock or the like: the same may work now */
    enum store_outcome (*resolve)(store_db_t *db); /* of the commit that was UNKNOWN; UNKNOWN = still not reached */
    int (*fd)(const store_db_t *db);               /* readable = call `tick`; -1 = none */
    int (*due_ms)(const store_db_t *db);           /* call `tick` after that time; -1 = no need */
    void (*tick)(store_db_t *db);                  /* notices a cut, connects again */
};

extern const store_backend_t STORE_SQLITE, STORE_POSTGRES;

static inline bool store_db_is_connected(const store_db_t *db)
{
    return db->backend->is_connected == NULL || db->backend->is_connected(db);
}

/* ---- jobs ---- */

typedef struct store_job {
    struct store_job *next;
    enum store_statement statement;
    bool is_durable;
    bool is_waited; /* store_exec_wait stands by */
    bool is_done;
    size_t per_row, rows;
    store_value_t *params; /* bytes behind the array, each with a NUL after it, in one allocation */
    size_t bytes;
    store_rows_t result;
    err_t *err;
    store_done_fn done;
    void *arg;
} store_job_t;

/* Runs the list in one transaction and fills results and errors. STORE_UNKNOWN: nothing may be answered yet, ask
 * `resolve`; after NOT_COMMITTED run it again. */
enum store_outcome store_group_run(store_db_t *db, store_job_t *group);
void store_group_fail(store_job_t *group, const err_t *why); /* those without an error */

/* ---- for the backends ---- */

store_t *store_open_on(struct event_base *base, const store_backend_t *backend, const char *where, err_t **e);
int store_migrate(store_db_t *db, err_t **e);
const char *store_statement_sql(enum store_statement statement);
bool store_statement_is_read(enum store_statement statement);

#endif
