// SPDX-License-Identifier: Apache-2.0
/* The statements of store_sql.def on PostgreSQL: prepared once for each connection, many rows of parameters in one
 * pipeline, results row by row so that a large one is refused before it is in memory. */
#include "services/gateway/store_postgres.h"

#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PIPELINE_ROWS 256 /* between two synchronisations */
#define VALUE_MAX ((size_t)256 << 20)

/* Types by their numbers, which PostgreSQL never changes (pg_type.dat). */
enum oid { OID_BOOL = 16, OID_BYTEA = 17, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_NUMERIC = 1700 };

static void statement_name(enum store_statement statement, char name[16])
{
    snprintf(name, 16, "s%d", (int)statement);
}

/* Takes all results of a command without rows. */
static int finish_command(postgres_db_t *db, const char *what, err_t **e)
{
    int status = 0;
    PGresult *result;
    while ((result = postgres_next(db)) != NULL) {
        if (PQresultStatus(result) != PGRES_COMMAND_OK && status == 0)
            status = postgres_fail(db, result, what, e);
        PQclear(result);
    }
    return status == 0 && db->conn == NULL ? postgres_fail(db, NULL, what, e) : status;
}

static int prepare(postgres_db_t *db, enum store_statement statement, err_t **e)
{
    if (db->is_prepared[statement])
        return 0;
    char name[16];
    statement_name(statement, name);
    if (PQsendPrepare(db->conn, name, store_statement_sql(statement), 0, NULL) == 0)
        return postgres_fail(db, NULL, "prepare a statement", e);
    if (finish_command(db, "prepare a statement", e) != 0)
        return -1;
    db->is_prepared[statement] = true;
    return 0;
}

/* ---- parameters ---- */

static int check_value(const store_value_t *value, err_t **e)
{
    if (value->len > VALUE_MAX)
        return err_set(e, ERR_PAYLOAD_TOO_LARGE, "a value of %zu bytes is too large for the database", value->len);
    if (value->kind == STORE_TEXT && memchr(value->bytes, '\0', value->len) != NULL)
        return err_set(e, ERR_BAD_REQUEST, "a text with a NUL byte cannot be stored");
    if (value->kind == STORE_TEXT && !utf8_is_valid(value->bytes, value->len))
        return err_set(e, ERR_BAD_REQUEST, "a text that is not UTF-8 cannot be stored");
    return 0;
}

static int send_row(postgres_db_t *db, enum store_statement statement, const store_value_t *params, size_t count,
                    err_t **e)
{
    const char *values[STORE_PARAMS_MAX];
    int lengths[STORE_PARAMS_MAX], formats[STORE_PARAMS_MAX];
    char numbers[STORE_PARAMS_MAX][24];
    char name[16];
    statement_name(statement, name);
    for (size_t i = 0; i < count; i++) {
        const store_value_t *value = &params[i];
        lengths[i] = (int)value->len;
        formats[i] = value->kind == STORE_BLOB;
        values[i] = value->kind == STORE_NULL ? NULL : value->bytes;
        if (value->kind == STORE_INT) {
            snprintf(numbers[i], sizeof(numbers[i]), "%" PRId64, value->integer);
            values[i] = numbers[i];
        }
    }
    if (PQsendQueryPrepared(db->conn, name, (int)count, values, lengths, formats, 0) == 0)
        return postgres_fail(db, NULL, "database", e);
    return 0;
}

static int check_params(const store_value_t *params, size_t per_row, size_t rows, err_t **e)
{
    if (per_row > STORE_PARAMS_MAX)
        return err_set(e, ERR_INTERNAL, "a statement with %zu parameters", per_row);
    for (size_t i = 0; i < per_row * rows; i++)
        if (check_value(&params[i], e) != 0)
            return -1;
    return 0;
}

/* ---- results ---- */

/* A sum of bigint is numeric here and an integer in SQLite. */
static bool take_integer(const char *text, store_value_t *value)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        return false;
    value->kind = STORE_INT;
    value->integer = number;
    return true;
}

static bool take_bytes(const char *text, store_value_t *value)
{
    size_t len;
    unsigned char *bytes = PQunescapeBytea((const unsigned char *)text, &len);
    if (bytes == NULL)
        return false;
    value->kind = STORE_BLOB;
    value->bytes = store_copy_bytes(bytes, len);
    value->len = len;
    PQfreemem(bytes);
    return true;
}

static bool take_value(const PGresult *result, int row, int column, store_value_t *value)
{
    if (PQgetisnull(result, row, column))
        return true;
    const char *text = PQgetvalue(result, row, column);
    switch (PQftype(result, column)) {
    case OID_INT2:
    case OID_INT4:
    case OID_INT8:
        return take_integer(text, value);
    case OID_BOOL:
        value->kind = STORE_INT;
        value->integer = text[0] == 't';
        return true;
    case OID_BYTEA:
        return take_bytes(text, value);
    case OID_NUMERIC:
        if (take_integer(text, value))
            return true;
        break;
    default:
        break;
    }
    value->kind = STORE_TEXT;
    value->len = (size_t)PQgetlength(result, row, column);
    value->bytes = store_copy_bytes(text, value->len);
    return true;
}

static int take_rows(const PGresult *result, size_t *row_count, store_rows_t *out, err_t **e)
{
    out->column_count = (size_t)PQnfields(result);
    for (int row = 0; row < PQntuples(result); row++) {
        if ((*row_count)++ >= STORE_ROWS_MAX)
            return err_set(e, ERR_DATABASE, "a query gave more than %d rows", STORE_ROWS_MAX);
        for (int column = 0; column < PQnfields(result); column++)
            if (!take_value(result, row, column, store_rows_add(out)))
                return err_set(e, ERR_DATABASE, "the database gave a value that cannot be read");
    }
    return 0;
}

static int take_result(postgres_db_t *db, PGresult *result, size_t *row_count, store_rows_t *out, err_t **e)
{
    ExecStatusType kind = PQresultStatus(result);
    if (kind != PGRES_COMMAND_OK && kind != PGRES_TUPLES_OK && kind != PGRES_SINGLE_TUPLE)
        return postgres_fail(db, result, "database", e);
    if (kind != PGRES_SINGLE_TUPLE && strncmp(PQcmdStatus(result), "SELECT", strlen("SELECT")) != 0)
        out->changed += strtoll(PQcmdTuples(result), NULL, 10);
    return kind == PGRES_COMMAND_OK ? 0 : take_rows(result, row_count, out, e);
}

/* Everything up to the end of one command; after the first failure the rest is read and dropped. */
static int take_results(postgres_db_t *db, bool is_failed, store_rows_t *out, err_t **e)
{
    int status = 0;
    size_t row_count = 0;
    PGresult *result;
    while ((result = postgres_next(db)) != NULL) {
        if (!is_failed && status == 0)
            status = take_result(db, result, &row_count, out, e);
        PQclear(result);
    }
    if (db->conn == NULL && !is_failed && status == 0)
        status = postgres_fail(db, NULL, "database", e);
    return status;
}

/* ---- many rows: one pipeline, so that the way to the server is paid once ---- */

static int run_pipeline(postgres_db_t *db, enum store_statement statement, const store_value_t *params, size_t per_row,
                        size_t rows, store_rows_t *out, err_t **e)
{
    int status = 0;
    if (PQenterPipelineMode(db->conn) == 0)
        return postgres_fail(db, NULL, "database", e);
    for (size_t i = 0; i < rows; i++)
        if (send_row(db, statement, params + i * per_row, per_row, e) != 0)
            return -1;
    if (PQpipelineSync(db->conn) == 0)
        return postgres_fail(db, NULL, "database", e);
    for (size_t i = 0; i < rows && db->conn != NULL; i++)
        status |= take_results(db, status != 0, out, e);
    PGresult *sync = postgres_next(db);
    PQclear(sync);
    if (db->conn == NULL || PQexitPipelineMode(db->conn) == 0) {
        postgres_lost(db, "the pipeline did not end as it should");
        return status != 0 ? status : postgres_fail(db, NULL, "database", e);
    }
    return status;
}

int postgres_run(store_db_t *opaque, enum store_statement statement, const store_value_t *params, size_t per_row,
                 size_t rows, store_rows_t *out, err_t **e)
{
    postgres_db_t *db = postgres_of(opaque);
    db->is_transient = false;
    if (check_params(params, per_row, rows, e) != 0 || prepare(db, statement, e) != 0)
        return -1;
    if (rows == 1) {
        if (send_row(db, statement, params, per_row, e) != 0)
            return -1;
        if (store_statement_is_read(statement))
            (void)PQsetSingleRowMode(db->conn);
        return take_results(db, false, out, e);
    }
    int status = 0;
    for (size_t i = 0; i < rows && status == 0; i += PIPELINE_ROWS) {
        size_t count = rows - i < PIPELINE_ROWS ? rows - i : PIPELINE_ROWS;
        status = run_pipeline(db, statement, params + i * per_row, per_row, count, out, e);
    }
    return status;
}
