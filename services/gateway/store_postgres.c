// SPDX-License-Identifier: Apache-2.0
/* One PostgreSQL connection: made again whenever it is lost, transactions, and what became of one whose COMMIT was cut.
 *
 * Every transaction that writes also writes its number into this store's row of core.store_commits. After a cut the
 * row tells, beyond doubt and a crash of the server, whether the transaction is there: reading it FOR UPDATE waits
 * until the old session is done with it. (A transaction's xid cannot tell: a server that crashed may give it away
 * again.) So nothing that is written needs to be repeatable. */
#include "services/gateway/store_postgres.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#define CONNECT_TIMEOUT_S "3"
#define DELAY_MIN_MS 100
#define DELAY_MAX_MS 3000
#define OPEN_WAIT_MS 10000    /* for a server that starts at the same time */
#define SCHEMA_WAIT_MS 600000 /* another gateway may be migrating a large table */
#define RESOLVE_EVERY_MS 500
#define SERVER_MIN 120000
#define MIGRATION_LOCK "7308895158401199732" /* "emergent" in ASCII */

/* ---- connection ---- */

static void log_notice(void *arg, const PGresult *result)
{
    (void)arg;
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    log_debug("database: %s", text == NULL ? "a notice" : text);
}

static PGconn *connect_by_url(const postgres_db_t *db)
{
    /* What stands before dbname gives way to the URL, what stands behind it does not. */
    const char *const keys[] = {
        "connect_timeout",  "gssencmode", "keepalives_idle",  "keepalives_interval", "keepalives_count",
        "tcp_user_timeout", "dbname",     "application_name", "client_encoding",     NULL};
    const char *const values[] = {CONNECT_TIMEOUT_S, "disable", "5",      "2",    "3",
                                  "10000",           db->url,   db->name, "UTF8", NULL};
    return PQconnectdbParams(keys, values, 1);
}

/* Lets go of what the operator's defaults would change about our promises. */
static int set_up_session(postgres_db_t *db, err_t **e)
{
    char sql[600];
    snprintf(sql, sizeof(sql),
             "SET search_path TO core; SET lock_timeout TO %d; SET statement_timeout TO 0;"
             "SET idle_in_transaction_session_timeout TO 60000;"
             "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED;"
             "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';"
             "SELECT current_setting('transaction_read_only'), current_setting('fsync')",
             POSTGRES_LOCK_MS);
    PGresult *rows = NULL;
    if (postgres_text(db, sql, &rows, e) != 0)
        return -1;
    int status = 0;
    if (rows == NULL || PQntuples(rows) != 1 || strcmp(PQgetvalue(rows, 0, 0), "on") == 0)
        status = err_set(e, ERR_DATABASE_UNAVAILABLE, "the server takes no writes: it is a standby, or read only");
    else if (strcmp(PQgetvalue(rows, 0, 1), "on") != 0)
        log_warn("the database server runs with fsync = off: what is acknowledged may be lost with its power");
    PQclear(rows);
    return status;
}

static int connect_now(postgres_db_t *db, err_t **e)
{
    db->conn = connect_by_url(db);
    int status = 0;
    if (PQstatus(db->conn) != CONNECTION_OK) {
        auto_free char *text = postgres_message(db, PQerrorMessage(db->conn));
        /* A password that was sent and refused is no matter of time. */
        status = err_set(e, PQconnectionUsedPassword(db->conn) ? ERR_DATABASE : ERR_DATABASE_UNAVAILABLE, "%s", text);
    } else if (PQserverVersion(db->conn) < SERVER_MIN) {
        status = err_set(e, ERR_DATABASE_UNAVAILABLE, "the server is PostgreSQL %d, this needs 12 or newer",
                         PQserverVersion(db->conn) / 10000);
    } else {
        PQsetNoticeReceiver(db->conn, log_notice, NULL);
        (void)PQsetnonblocking(db->conn, 1);
        status = set_up_session(db, e);
    }
    if (status != 0 && db->conn != NULL) {
        PQfinish(db->conn);
        db->conn = NULL;
    }
    return status;
}

/* One attempt when it is due; the next one is due later each time. */
static int connect_if_due(postgres_db_t *db, err_t **e)
{
    if (db->conn != NULL)
        return 0;
    if (clock_monotonic_ms() < db->due_ms)
        return err_set(e, ERR_DATABASE_UNAVAILABLE, STORE_UNAVAILABLE);
    bool is_first = db->delay_ms == 0;
    if (connect_now(db, e) == 0) {
        log_info("connected to PostgreSQL %d.%d", PQserverVersion(db->conn) / 10000, PQserverVersion(db->conn) % 10000);
        db->delay_ms = 0;
        return 0;
    }
    db->delay_ms = is_first ? DELAY_MIN_MS : db->delay_ms * 2 > DELAY_MAX_MS ? DELAY_MAX_MS : db->delay_ms * 2;
    db->due_ms = clock_monotonic_ms() + db->delay_ms;
    return -1;
}

/* As above for a request, which need not know the host. */
static int need_connection(postgres_db_t *db, err_t **e)
{
    auto_err err_t *why = NULL;
    if (connect_if_due(db, &why) == 0)
        return 0;
    if (strcmp(err_message(why), STORE_UNAVAILABLE) != 0)
        log_warn("connect to the database: %s", err_message(why));
    return err_set(e, ERR_DATABASE_UNAVAILABLE, STORE_UNAVAILABLE);
}

/* ---- open and close ---- */

/* libpq's own words about a URL may quote the password in it. */
static int check_url(postgres_db_t *db, const char *url, err_t **e)
{
    char *text = NULL;
    PQconninfoOption *options = PQconninfoParse(url, &text);
    PQfreemem(text);
    if (options == NULL)
        return err_set(
            e, ERR_BAD_REQUEST,
            "DATABASE_URL is no PostgreSQL URL: it must be like postgres://user:password@host:5432/database, "
            "with `%%40` for `@` and so on within user and password, options such as sslmode behind `?`");
    for (PQconninfoOption *o = options; o->keyword != NULL; o++)
        if (strcmp(o->keyword, "password") == 0 && o->val != NULL && o->val[0] != '\0')
            db->password = mem_strdup(o->val);
    PQconninfoFree(options);
    db->url = mem_strdup(url);
    return 0;
}

static void wipe_text(char **text)
{
    if (*text != NULL)
        mem_wipe(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

static void postgres_close(store_db_t *opaque)
{
    postgres_db_t *db = postgres_of(opaque);
    char sql[160];
    auto_err err_t *ignored = NULL;
    snprintf(sql, sizeof(sql), "DELETE FROM core.store_commits WHERE writer = '%s'", db->name);
    if (db->conn != NULL && !db->is_unknown && db->sequence > 0)
        (void)postgres_text(db, sql, NULL, &ignored);
    PQfinish(db->conn);
    wipe_text(&db->url);
    wipe_text(&db->password);
    free(db);
}

static int connect_first(postgres_db_t *db, err_t **e)
{
    uint64_t until = clock_monotonic_ms() + OPEN_WAIT_MS;
    for (;;) {
        auto_err err_t *why = NULL;
        if (connect_if_due(db, &why) == 0)
            return 0;
        uint64_t now = clock_monotonic_ms();
        if (now >= until || err_code(why) != ERR_DATABASE_UNAVAILABLE)
            return err_set(e, err_code(why), "connect to the database of DATABASE_URL: %s", err_message(why));
        log_warn("connect to the database, tried again: %s", err_message(why));
        (void)poll(NULL, 0, (int)(db->due_ms > now ? db->due_ms - now : 0));
    }
}

static store_db_t *postgres_open(const char *url, err_t **e)
{
    postgres_db_t *db = mem_alloc(sizeof(*db));
    uint64_t random;
    db->db.backend = &STORE_POSTGRES;
    db->patience_ms = POSTGRES_PATIENCE_MS;
    random_bytes(&random, sizeof(random));
    snprintf(db->name, sizeof(db->name), "emergent-gateway-%016" PRIx64, random);
    if (check_url(db, url, e) != 0 || connect_first(db, e) != 0) {
        postgres_close(&db->db);
        return NULL;
    }
    return &db->db;
}

/* ---- transactions ---- */

static int exec_text(store_db_t *db, const char *sql, err_t **e)
{
    return postgres_text(postgres_of(db), sql, NULL, e);
}

static bool is_connected(const store_db_t *db)
{
    return ((const postgres_db_t *)db)->conn != NULL;
}

static bool is_in_transaction(const store_db_t *opaque)
{
    const postgres_db_t *db = (const postgres_db_t *)opaque;
    return db->conn != NULL && PQtransactionStatus(db->conn) != PQTRANS_IDLE;
}

static bool is_aborted(const store_db_t *opaque)
{
    const postgres_db_t *db = (const postgres_db_t *)opaque;
    return db->conn != NULL && PQtransactionStatus(db->conn) == PQTRANS_INERROR;
}

static bool is_transient(const store_db_t *db)
{
    return ((const postgres_db_t *)db)->is_transient;
}

static void rollback(store_db_t *db)
{
    auto_err err_t *ignored = NULL;
    if (is_in_transaction(db))
        (void)exec_text(db, "ROLLBACK", &ignored);
}

static int send_begin(postgres_db_t *db, bool is_durable, bool is_writing, err_t **e)
{
    char sql[400];
    const char *relaxed = is_durable || !is_writing ? "" : "SET LOCAL synchronous_commit TO off;";
    if (is_writing)
        snprintf(sql, sizeof(sql),
                 "BEGIN;%sINSERT INTO core.store_commits (writer, sequence, at) VALUES ('%s', %" PRId64 ", now()) "
                 "ON CONFLICT (writer) DO UPDATE SET sequence = excluded.sequence, at = excluded.at",
                 relaxed, db->name, db->sequence + 1);
    else
        snprintf(sql, sizeof(sql), "BEGIN");
    db->is_writing = is_writing;
    db->sequence += is_writing;
    return postgres_text(db, sql, NULL, e);
}

/* A connection that was cut while nobody used it is noticed here: one more attempt. */
static int begin(store_db_t *opaque, bool is_durable, bool is_writing, err_t **e)
{
    postgres_db_t *db = postgres_of(opaque);
    for (int i = 0; i < 2; i++) {
        if (need_connection(db, e) != 0)
            return -1;
        auto_err err_t *why = NULL;
        if (send_begin(db, is_durable, is_writing, &why) == 0)
            return 0;
        if (db->conn != NULL) {
            rollback(opaque);
            return err_set(e, err_code(why), "%s", err_message(why));
        }
    }
    return err_set(e, ERR_DATABASE_UNAVAILABLE, STORE_UNAVAILABLE);
}

/* Lost under COMMIT: it may have come true. What was only read is as good as ever. */
static enum store_outcome outcome_after_loss(postgres_db_t *db)
{
    if (!db->is_writing)
        return STORE_COMMITTED;
    db->is_unknown = true;
    log_warn("the connection was lost during a COMMIT; its requests wait until the database tells what became of it");
    return STORE_UNKNOWN;
}

static enum store_outcome commit(store_db_t *opaque, err_t **e)
{
    postgres_db_t *db = postgres_of(opaque);
    auto_err err_t *why = NULL;
    bool is_committed = false;
    db->is_transient = false;
    if (PQsendQuery(db->conn, "COMMIT") == 0)
        (void)postgres_fail(db, NULL, "commit", &why);
    PGresult *result;
    while ((result = postgres_next(db)) != NULL) {
        if (PQresultStatus(result) == PGRES_COMMAND_OK)
            is_committed = strcmp(PQcmdStatus(result), "COMMIT") == 0;
        else if (why == NULL)
            (void)postgres_fail(db, result, "commit", &why);
        PQclear(result);
    }
    if (is_committed)
        return STORE_COMMITTED;
    if (db->conn == NULL)
        return outcome_after_loss(db);
    if (why == NULL)
        err_set(&why, ERR_DATABASE, "the database rolled a transaction back");
    err_set(e, err_code(why), "%s", err_message(why));
    rollback(opaque);
    return STORE_NOT_COMMITTED;
}

/* ---- what became of it ---- */

/* The old session may still wait for us at the other end of a cut network, and hold the row. */
static int end_old_session(postgres_db_t *db, err_t **e)
{
    char sql[250];
    snprintf(sql, sizeof(sql),
             "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '%s' AND "
             "usename = current_user AND pid <> pg_backend_pid()",
             db->name);
    return postgres_text(db, sql, NULL, e);
}

static int read_sequence(postgres_db_t *db, int64_t *sequence, err_t **e)
{
    char sql[160];
    PGresult *rows = NULL;
    snprintf(sql, sizeof(sql), "SELECT sequence FROM core.store_commits WHERE writer = '%s' FOR UPDATE", db->name);
    if (postgres_text(db, sql, &rows, e) != 0)
        return -1;
    *sequence = rows != NULL && PQntuples(rows) == 1 ? strtoll(PQgetvalue(rows, 0, 0), NULL, 10) : 0;
    PQclear(rows);
    return 0;
}

static enum store_outcome resolve(store_db_t *opaque)
{
    postgres_db_t *db = postgres_of(opaque);
    auto_err err_t *e = NULL;
    int64_t sequence = 0;
    if (need_connection(db, &e) != 0)
        return STORE_UNKNOWN;
    if (end_old_session(db, &e) != 0 || read_sequence(db, &sequence, &e) != 0) {
        log_warn("ask what became of a transaction, tried again: %s", err_message(e));
        return STORE_UNKNOWN;
    }
    db->is_unknown = false;
    bool is_committed = sequence == db->sequence;
    log_info("the transaction whose COMMIT was cut %s", is_committed ? "is there" : "is not there and is done again");
    return is_committed ? STORE_COMMITTED : STORE_NOT_COMMITTED;
}

/* ---- between requests ---- */

static int socket_of(const store_db_t *opaque)
{
    const postgres_db_t *db = (const postgres_db_t *)opaque;
    return db->conn == NULL ? -1 : PQsocket(db->conn);
}

static int due_ms(const store_db_t *opaque)
{
    const postgres_db_t *db = (const postgres_db_t *)opaque;
    if (db->conn != NULL)
        return db->is_unknown ? RESOLVE_EVERY_MS : -1;
    uint64_t now = clock_monotonic_ms();
    return db->due_ms > now ? (int)(db->due_ms - now) : 0;
}

static void tick(store_db_t *opaque)
{
    postgres_db_t *db = postgres_of(opaque);
    auto_err err_t *ignored = NULL;
    if (db->conn == NULL) {
        (void)need_connection(db, &ignored);
        return;
    }
    if (PQconsumeInput(db->conn) == 0) {
        postgres_lost(db, PQerrorMessage(db->conn));
        return;
    }
    PQfreemem(PQnotifies(db->conn)); /* makes libpq read what has come; we listen to nothing */
}

/* ---- schema ---- */

/* Only what is missing is made: a role that may not create schemas can use those that were made for it. */
static int make_schemas(postgres_db_t *db, err_t **e)
{
    static const char SQL[] =
        "DO $$ BEGIN "
        "IF to_regnamespace('core') IS NULL THEN CREATE SCHEMA core; END IF; "
        "IF to_regnamespace('kb') IS NULL THEN CREATE SCHEMA kb; END IF; "
        "END $$;"
        "CREATE TABLE IF NOT EXISTS core.store_commits (writer text PRIMARY KEY, sequence bigint NOT NULL, "
        "at timestamptz NOT NULL) WITH (fillfactor = 10);"
        "DELETE FROM core.store_commits WHERE at < now() - interval '30 days'";
    return postgres_text(db, SQL, NULL, e);
}

static int lock_schema(store_db_t *opaque, err_t **e)
{
    postgres_db_t *db = postgres_of(opaque);
    db->patience_ms = SCHEMA_WAIT_MS;
    if (postgres_text(db, "SET lock_timeout TO 0; SELECT pg_advisory_lock(" MIGRATION_LOCK ")", NULL, e) != 0 ||
        make_schemas(db, e) != 0)
        return err_wrap(e, "prepare the database's schemas");
    return 0;
}

static void unlock_schema(store_db_t *opaque)
{
    postgres_db_t *db = postgres_of(opaque);
    auto_err err_t *e = NULL;
    char sql[160];
    snprintf(sql, sizeof(sql), "SELECT pg_advisory_unlock(%s); SET lock_timeout TO %d", MIGRATION_LOCK,
             POSTGRES_LOCK_MS);
    if (db->conn != NULL && postgres_text(db, sql, NULL, &e) != 0)
        log_warn("unlock the schema: %s", err_message(e));
    db->patience_ms = POSTGRES_PATIENCE_MS;
}

static int version(store_db_t *opaque, int64_t *version_r, err_t **e)
{
    PGresult *rows = NULL;
    if (postgres_text(postgres_of(opaque), "SELECT COALESCE(MAX(version), 0) FROM schema_migrations", &rows, e) != 0)
        return err_wrap(e, "read the schema version");
    *version_r = rows != NULL && PQntuples(rows) == 1 ? strtoll(PQgetvalue(rows, 0, 0), NULL, 10) : 0;
    PQclear(rows);
    return 0;
}

static int note_version(store_db_t *db, int64_t number, const char *name, err_t **e)
{
    auto_free char *sql =
        mem_printf("INSERT INTO schema_migrations (version, name, applied_at) VALUES (%" PRId64 ", '%s', %" PRId64 ")",
                   number, name, (int64_t)clock_realtime_ms());
    return exec_text(db, sql, e);
}

const store_backend_t STORE_POSTGRES = {
    .name = "postgres",
    .open = postgres_open,
    .close = postgres_close,
    .begin = begin,
    .commit = commit,
    .rollback = rollback,
    .run = postgres_run,
    .is_in_transaction = is_in_transaction,
    .exec_text = exec_text,
    .version = version,
    .note_version = note_version,
    .lock_schema = lock_schema,
    .unlock_schema = unlock_schema,
    .is_connected = is_connected,
    .is_aborted = is_aborted,
    .is_transient = is_transient,
    .resolve = resolve,
    .fd = socket_of,
    .due_ms = due_ms,
    .tick = tick,
};

store_t *store_open_postgres(struct event_base *base, const char *url, err_t **e)
{
    return store_open_on(base, &STORE_POSTGRES, url, e);
}
