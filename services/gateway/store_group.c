// SPDX-License-Identifier: Apache-2.0
/* One group of jobs in one transaction. Where a failed statement spoils the transaction (PostgreSQL) the group is run
 * again with a savepoint before each job, so that the one that fails fails alone; without a failure there are none. */
#include "services/gateway/store_internal.h"

#include "common/mem.h"

#define TRIES_MAX 5

static const char *const STATEMENTS[] = {
#define X(name, sql) sql,
#include "services/gateway/store_sql.def"
#undef X
};

const char *store_statement_sql(enum store_statement statement)
{
    return STATEMENTS[statement];
}

bool store_statement_is_read(enum store_statement statement)
{
    return strncmp(STATEMENTS[statement], "SELECT", strlen("SELECT")) == 0;
}

/* ---- results ---- */

store_value_t *store_rows_add(store_rows_t *rows)
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
void *store_copy_bytes(const void *bytes, size_t len)
{
    uint8_t *copy = mem_alloc(len + 1);
    if (len > 0)
        memcpy(copy, bytes, len);
    return copy;
}

void store_rows_free(store_rows_t *rows)
{
    for (size_t i = 0; i < rows->value_count; i++)
        free((void *)(uintptr_t)rows->values[i].bytes);
    free(rows->values);
    memset(rows, 0, sizeof(*rows));
}

/* ---- the group ---- */

static void forget_results(store_job_t *group)
{
    for (store_job_t *job = group; job != NULL; job = job->next) {
        store_rows_free(&job->result);
        err_free(&job->err);
    }
}

void store_group_fail(store_job_t *group, const err_t *why)
{
    for (store_job_t *job = group; job != NULL; job = job->next)
        if (job->err == NULL)
            err_set(&job->err, err_code(why), "%s", err_message(why));
}

enum ran { RAN_ALL, RAN_SPOILT, RAN_UNDONE };

/* What the failure of one job means for the others. */
static enum ran after_failure(store_db_t *db, bool is_guarded)
{
    const store_backend_t *backend = db->backend;
    if (!backend->is_in_transaction(db))
        return RAN_UNDONE;
    if (backend->is_aborted == NULL || !backend->is_aborted(db))
        return RAN_ALL;
    if (!is_guarded || backend->is_transient(db))
        return RAN_SPOILT;
    auto_err err_t *ignored = NULL;
    if (backend->exec_text(db, "ROLLBACK TO SAVEPOINT job", &ignored) == 0)
        return RAN_ALL;
    return backend->is_in_transaction(db) ? RAN_SPOILT : RAN_UNDONE;
}

static enum ran run_job(store_db_t *db, store_job_t *job, bool is_guarded)
{
    const store_backend_t *backend = db->backend;
    if (is_guarded && backend->exec_text(db, "SAVEPOINT job", &job->err) != 0)
        return backend->is_in_transaction(db) ? RAN_SPOILT : RAN_UNDONE;
    enum ran ran = RAN_ALL;
    if (backend->run(db, job->statement, job->params, job->per_row, job->rows, &job->result, &job->err) != 0)
        ran = after_failure(db, is_guarded);
    auto_err err_t *ignored = NULL;
    if (ran == RAN_ALL && is_guarded && backend->exec_text(db, "RELEASE SAVEPOINT job", &ignored) != 0)
        ran = backend->is_in_transaction(db) ? RAN_SPOILT : RAN_UNDONE;
    return ran;
}

static enum ran run_jobs(store_db_t *db, store_job_t *group, bool is_guarded)
{
    enum ran ran = RAN_ALL;
    for (store_job_t *job = group; job != NULL && ran == RAN_ALL; job = job->next)
        ran = run_job(db, job, is_guarded);
    return ran;
}

typedef struct kind {
    bool is_durable, is_writing;
} kind_t;

static kind_t kind_of(const store_job_t *group)
{
    kind_t kind = {0};
    for (const store_job_t *job = group; job != NULL; job = job->next) {
        kind.is_durable |= job->is_durable;
        kind.is_writing |= !store_statement_is_read(job->statement);
    }
    return kind;
}

static void fail_undone(store_db_t *db, store_job_t *group)
{
    auto_err err_t *e = NULL;
    if (!store_db_is_connected(db)) {
        forget_results(group); /* what each saw of the cut says no more */
        err_set(&e, ERR_DATABASE_UNAVAILABLE, STORE_UNAVAILABLE);
    } else {
        err_set(&e, ERR_DATABASE, "the database undid a transaction, as it does when the disk is full or failing");
    }
    store_group_fail(group, e);
}

/* One transaction. *is_again: nothing of it happened, and it is worth another try. */
static enum store_outcome try_group(store_db_t *db, store_job_t *group, bool *is_guarded, bool *is_again)
{
    const store_backend_t *backend = db->backend;
    kind_t kind = kind_of(group);
    auto_err err_t *e = NULL;
    forget_results(group);
    *is_again = false;
    if (backend->begin(db, kind.is_durable, kind.is_writing, &e) != 0) {
        store_group_fail(group, e);
        return STORE_NOT_COMMITTED;
    }
    enum ran ran = run_jobs(db, group, *is_guarded);
    if (ran == RAN_SPOILT) {
        backend->rollback(db);
        *is_guarded = true;
        *is_again = true;
        return STORE_NOT_COMMITTED;
    }
    if (ran == RAN_UNDONE) {
        *is_again = !store_db_is_connected(db);
        fail_undone(db, group);
        return STORE_NOT_COMMITTED;
    }
    enum store_outcome outcome = backend->commit(db, &e);
    if (outcome != STORE_NOT_COMMITTED)
        return outcome;
    *is_again = backend->is_transient != NULL && backend->is_transient(db);
    store_group_fail(group, e);
    return outcome;
}

enum store_outcome store_group_run(store_db_t *db, store_job_t *group)
{
    bool is_guarded = false, is_again = true;
    enum store_outcome outcome = STORE_NOT_COMMITTED;
    for (int i = 0; i < TRIES_MAX && is_again; i++)
        outcome = try_group(db, group, &is_guarded, &is_again);
    if (is_again) { /* only rolled back ones can be here: some job must not be answered as if it were done */
        auto_err err_t *e = NULL;
        err_set(&e, ERR_DATABASE, "the database refused a transaction %d times in a row; retry in a moment", TRIES_MAX);
        store_group_fail(group, e);
    }
    return outcome == STORE_UNKNOWN ? STORE_UNKNOWN : STORE_COMMITTED;
}
