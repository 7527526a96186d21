// SPDX-License-Identifier: Apache-2.0
/* Commands to and results from PostgreSQL, each wait bounded, and what its errors mean to us. */
#include "services/gateway/store_postgres.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <errno.h>
#include <poll.h>

#define DELAY_MIN_MS 100

char *postgres_message(const postgres_db_t *db, const char *text)
{
    buf_t line = {0};
    size_t secret = db->password == NULL ? 0 : strlen(db->password);
    while (*text != '\0') {
        if (secret > 0 && strncmp(text, db->password, secret) == 0) {
            buf_append_str(&line, "***");
            text += secret;
            continue;
        }
        if (*text != '\n' && *text != '\t')
            buf_append_byte(&line, (uint8_t)*text);
        else if (text[1] != '\0')
            buf_append_str(&line, *text == '\n' ? "; " : " ");
        text++;
    }
    return buf_steal(&line);
}

void postgres_lost(postgres_db_t *db, const char *why)
{
    if (db->conn == NULL)
        return;
    auto_free char *line = postgres_message(db, why);
    log_error("the connection to the database is lost: %s", line);
    PQfinish(db->conn);
    db->conn = NULL;
    memset(db->is_prepared, 0, sizeof(db->is_prepared));
    db->delay_ms = DELAY_MIN_MS;
    db->due_ms = clock_monotonic_ms();
}

/* False: lost. */
static bool wait_for(postgres_db_t *db, short events)
{
    struct pollfd fd = {.fd = PQsocket(db->conn), .events = events};
    uint64_t until = clock_monotonic_ms() + (uint64_t)db->patience_ms;
    int ready;
    do {
        uint64_t now = clock_monotonic_ms();
        ready = poll(&fd, 1, now >= until ? 0 : (int)(until - now));
    } while (ready < 0 && errno == EINTR);
    if (ready <= 0) {
        postgres_lost(db, "the server does not answer");
        return false;
    }
    if ((fd.revents & ~POLLOUT) != 0 && PQconsumeInput(db->conn) == 0) {
        postgres_lost(db, PQerrorMessage(db->conn));
        return false;
    }
    return true;
}

bool postgres_flush(postgres_db_t *db)
{
    int left;
    while ((left = PQflush(db->conn)) > 0)
        if (!wait_for(db, POLLIN | POLLOUT))
            return false;
    if (left < 0)
        postgres_lost(db, PQerrorMessage(db->conn));
    return left == 0;
}

PGresult *postgres_next(postgres_db_t *db)
{
    if (db->conn == NULL || !postgres_flush(db))
        return NULL;
    while (PQisBusy(db->conn))
        if (!wait_for(db, POLLIN))
            return NULL;
    return PQgetResult(db->conn);
}

/* ---- errors ---- */

typedef struct meaning {
    const char *state; /* SQLSTATE, or how it begins */
    enum err_code code;
    bool is_lost;      /* this server serves us no more */
    bool is_transient; /* the same transaction may work now */
    const char *sentence;
} meaning_t;

/* The server's own text may quote values, so it is shown only where it cannot. */
static const meaning_t MEANINGS[] = {
    {"08", ERR_DATABASE_UNAVAILABLE, true, false, STORE_UNAVAILABLE},
    {"57P", ERR_DATABASE_UNAVAILABLE, true, false, STORE_UNAVAILABLE},   /* it is shut down, or has crashed */
    {"25006", ERR_DATABASE_UNAVAILABLE, true, false, STORE_UNAVAILABLE}, /* it has become a standby */
    {"53300", ERR_DATABASE_UNAVAILABLE, true, false, STORE_UNAVAILABLE},
    {"40", ERR_DATABASE, false, true, "another session was in the way; retry in a moment"},
    {"55P03", ERR_DATABASE, false, false, "another session holds a lock for too long; retry in a moment"},
    {"23", ERR_CONFLICT, false, false, NULL},
    {"22", ERR_BAD_REQUEST, false, false, "a value cannot be stored in its column"},
    {"53", ERR_DATABASE, false, false, NULL}, /* disk full, out of memory */
    {"", ERR_DATABASE, false, false, NULL},
};

static const meaning_t *meaning_of(const char *state)
{
    const meaning_t *m = MEANINGS;
    while (strncmp(state, m->state, strlen(m->state)) != 0)
        m++;
    return m;
}

/* FATAL and PANIC end the session, whatever their number. */
static bool is_fatal(const PGresult *result)
{
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    return severity != NULL && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
}

int postgres_fail(postgres_db_t *db, const PGresult *result, const char *what, err_t **e)
{
    db->is_transient = false;
    if (result == NULL || db->conn == NULL || PQstatus(db->conn) == CONNECTION_BAD) {
        postgres_lost(db, db->conn == NULL ? "" : PQerrorMessage(db->conn));
        return err_set(e, ERR_DATABASE_UNAVAILABLE, STORE_UNAVAILABLE);
    }
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const meaning_t *m = meaning_of(state == NULL ? "" : state);
    if (m->is_lost || is_fatal(result)) {
        postgres_lost(db, text == NULL ? "the server ends the session" : text);
        return err_set(e, ERR_DATABASE_UNAVAILABLE, STORE_UNAVAILABLE);
    }
    db->is_transient = m->is_transient;
    return err_set(e, m->code, "%s: %s (%s)", what,
                   m->sentence != NULL ? m->sentence
                   : text == NULL      ? "failed"
                                       : text,
                   state == NULL ? "no SQLSTATE" : state);
}

int postgres_text(postgres_db_t *db, const char *sql, PGresult **rows_r, err_t **e)
{
    int status = 0;
    if (db->conn == NULL || PQsendQuery(db->conn, sql) == 0)
        return postgres_fail(db, NULL, "database", e);
    PGresult *result, *rows = NULL;
    while ((result = postgres_next(db)) != NULL) {
        ExecStatusType kind = PQresultStatus(result);
        if (kind == PGRES_TUPLES_OK) {
            PQclear(rows);
            rows = result;
            continue;
        }
        if (kind != PGRES_COMMAND_OK && kind != PGRES_EMPTY_QUERY && status == 0)
            status = postgres_fail(db, result, "database", e);
        PQclear(result);
    }
    if (status == 0 && db->conn == NULL)
        status = postgres_fail(db, NULL, "database", e);
    if (status == 0 && rows_r != NULL)
        *rows_r = rows;
    else
        PQclear(rows);
    return status;
}
