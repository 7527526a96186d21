/* SPDX-License-Identifier: Apache-2.0
 *
 * One PostgreSQL connection, between store_postgres.c and its siblings. Only non-blocking calls of libpq after the
 * connection is made, each wait bounded: a server that says nothing for POSTGRES_PATIENCE_MS counts as lost.
 */
#ifndef EW_GATEWAY_STORE_POSTGRES_H
#define EW_GATEWAY_STORE_POSTGRES_H

#include "services/gateway/store_internal.h"

#include <libpq-fe.h>

#define POSTGRES_PATIENCE_MS 10000
#define POSTGRES_LOCK_MS 4000 /* how long a statement waits for another session's lock */

typedef struct postgres_db {
    store_db_t db; /* first: a store_db_t is its postgres_db_t */
    PGconn *conn;  /* NULL = not connected */
    char *url;     /* with its password: never logged */
    char *password;
    char name[64]; /* of this store in pg_stat_activity and in core.store_commits */
    bool is_prepared[STORE_STATEMENT_COUNT];
    bool is_transient; /* the last failure */
    bool is_writing;   /* the transaction under way is marked with `sequence` */
    bool is_unknown;   /* what became of transaction `sequence` */
    int64_t sequence;
    int patience_ms;
    unsigned delay_ms; /* between attempts to connect */
    uint64_t due_ms;   /* monotonic time of the next one */
} postgres_db_t;

/* ---- store_postgres_wire.c ---- */
/* The connection is given up; the next attempt is due at once. */
void postgres_lost(postgres_db_t *db, const char *why);
/* Sends what libpq holds. False: lost. */
bool postgres_flush(postgres_db_t *db);
/* The next result of the command under way; NULL at its end, and when the connection is lost. */
PGresult *postgres_next(postgres_db_t *db);
/* Sets *e by the SQLSTATE; notices a server that goes away. `result` NULL = the connection is lost. */
int postgres_fail(postgres_db_t *db, const PGresult *result, const char *what, err_t **e);
/* Runs statements without parameters. *rows_r (may be NULL) gets the last result with rows: PQclear it. */
int postgres_text(postgres_db_t *db, const char *sql, PGresult **rows_r, err_t **e);
/* libpq's last message on one line, without the password. */
char *postgres_message(const postgres_db_t *db, const char *text);

/* ---- store_postgres_run.c ---- */
int postgres_run(store_db_t *db, enum store_statement statement, const store_value_t *params, size_t per_row,
                 size_t rows, store_rows_t *out, err_t **e);

static inline postgres_db_t *postgres_of(store_db_t *db)
{
    return (postgres_db_t *)db;
}

#endif
