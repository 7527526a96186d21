// SPDX-License-Identifier: Apache-2.0
// LINK: services/gateway/audit.c services/gateway/audit_keep.c services/gateway/audit_list.c
// LINK: services/gateway/workspace_time.c services/gateway/store.c services/gateway/store_sqlite.c
// LINK: services/gateway/store_migrations.c
/* The audit's chain: numbered without gaps whatever the database does, checkable by anybody, read by its owner only. */
#include "services/gateway/audit.h"
#include "services/gateway/store.h"
#include "services/gateway/store_internal.h"
#include "tests/unit/fake_api.h"

#include "common/audit_chain.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/text.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALIVE "11111111-2222-4333-8444-555555555555"
#define GONE "99999999-2222-4333-8444-555555555555"
#define SESSION "aaaaaaaa-0000-4000-8000-000000000001"

typedef struct fixture {
    gateway_t gw;
    char dir[64];
    char path[128];
    sqlite3 *other; /* somebody else at the same database */
} fixture_t;

static workspace_row_t alive = {.id_text = ALIVE, .owner = "me"};

workspace_row_t *workspaces_find(gateway_t *gw, const char *id_text, const caller_t *caller, err_t **e)
{
    (void)gw;
    if (strcmp(id_text, ALIVE) == 0 && strcmp(caller->owner, "me") == 0)
        return &alive;
    err_set(e, ERR_NOT_FOUND, "workspace '%s' not found", id_text);
    return NULL;
}

static void open_gateway(fixture_t *f)
{
    auto_err err_t *e = NULL;
    f->gw.store = store_open_at(f->gw.daemon.base, f->path, &e);
    cr_assert_not_null(f->gw.store, "%s", err_message(e));
    cr_assert_eq(audit_open(&f->gw, &e), 0, "%s", err_message(e));
}

static void close_gateway(fixture_t *f)
{
    audit_close(&f->gw);
    store_close(&f->gw.store);
}

static void start(fixture_t *f)
{
    memset(f, 0, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/test_audit.XXXXXX");
    cr_assert_not_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/gateway.db", f->dir);
    f->gw.daemon.base = event_base_new();
    f->gw.daemon.config = (config_t){.state_dir = f->dir, .node = (char *)(uintptr_t) "n1", .audit_keep_days = 90};
    open_gateway(f);
    cr_assert_eq(sqlite3_open(f->path, &f->other), SQLITE_OK);
    sqlite3_busy_timeout(f->other, 5000);
}

static void finish(fixture_t *f)
{
    if (f->gw.store != NULL)
        close_gateway(f);
    sqlite3_close(f->other);
    event_base_free(f->gw.daemon.base);
    auto_err err_t *e = NULL;
    cr_assert_eq(dir_remove(f->dir, &e), 0);
}

static void sql(fixture_t *f, const char *text)
{
    char *error = NULL;
    cr_assert_eq(sqlite3_exec(f->other, text, NULL, NULL, &error), SQLITE_OK, "%s: %s", text, error);
}

static void add(fixture_t *f, const char *owner, const char *workspace, const char *operation, int status)
{
    bool is_ok = status < 400;
    audit_add(&f->gw, &(audit_fields_t){.owner = owner,
                                        .workspace_id = workspace,
                                        .operation = operation,
                                        .method = "POST",
                                        .status = status,
                                        .duration_ms = 7,
                                        .caller = "key",
                                        .session = SESSION,
                                        .request_id = "req-1",
                                        .summary = "path=\"a\"",
                                        .error_code = is_ok ? NULL : "not_found",
                                        .error = is_ok ? NULL : "no such file"});
}

static void turn(fixture_t *f)
{
    struct timeval tick = {.tv_usec = 10000};
    event_base_loopexit(f->gw.daemon.base, &tick);
    event_base_dispatch(f->gw.daemon.base);
}

/* Until nothing waits for the database. */
static bool settle(fixture_t *f)
{
    uint64_t end = clock_monotonic_ms() + 15000;
    while (audit_waiting(&f->gw) > 0 && clock_monotonic_ms() < end)
        turn(f);
    return audit_waiting(&f->gw) == 0;
}

static const char *text_at(sqlite3_stmt *stmt, int column)
{
    return (const char *)sqlite3_column_text(stmt, column);
}

/* Recomputes the whole chain from the table, as its documentation says. The number of rows; -1: broken. */
static int verify(fixture_t *f)
{
    sqlite3_stmt *stmt = NULL;
    int rows = 0;
    char previous[AUDIT_HASH_SIZE] = "", hash[AUDIT_HASH_SIZE], at[40];
    cr_assert_eq(sqlite3_prepare_v2(f->other,
                                    "SELECT chain, sequence, at, owner, workspace_id, operation, method, status, "
                                    "duration_ms, caller, agent_session_id, request_id, summary, error_code, error, "
                                    "hash FROM kb_workspace_audit ORDER BY sequence",
                                    -1, &stmt, NULL),
                 SQLITE_OK);
    int64_t before = -1;
    while (sqlite3_step(stmt) == SQLITE_ROW && rows >= 0) {
        int64_t sequence = sqlite3_column_int64(stmt, 1), ms = sqlite3_column_int64(stmt, 2);
        time_t seconds = (time_t)(ms / 1000);
        struct tm tm;
        char date[24];
        strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &tm));
        snprintf(at, sizeof(at), "%s.%03dZ", date, (int)(ms % 1000));
        struct audit_entry entry = {.chain = text_at(stmt, 0),
                                    .sequence = (uint64_t)sequence,
                                    .at = at,
                                    .owner = text_at(stmt, 3),
                                    .workspace_id = text_at(stmt, 4),
                                    .operation = text_at(stmt, 5),
                                    .method = text_at(stmt, 6),
                                    .status = (uint32_t)sqlite3_column_int(stmt, 7),
                                    .duration_ms = (uint64_t)sqlite3_column_int64(stmt, 8),
                                    .caller = text_at(stmt, 9),
                                    .agent_session_id = text_at(stmt, 10),
                                    .request_id = text_at(stmt, 11),
                                    .summary = text_at(stmt, 12),
                                    .error_code = text_at(stmt, 13),
                                    .error = text_at(stmt, 14),
                                    .previous_hash = previous};
        audit_chain_hash(&entry, hash);
        bool is_first_kept = before < 0 && sequence > 1; /* what it follows is gone */
        bool is_good =
            is_first_kept || (sequence == (before < 0 ? 1 : before + 1) && strcmp(hash, text_at(stmt, 15)) == 0);
        snprintf(previous, sizeof(previous), "%s", text_at(stmt, 15));
        before = sequence;
        rows = is_good ? rows + 1 : -1;
    }
    sqlite3_finalize(stmt);
    return rows;
}

TestSuite(audit, .timeout = 60);

Test(audit, lines_become_a_chain_that_anybody_can_check)
{
    fixture_t f;
    start(&f);
    add(&f, "me", ALIVE, "bash", 200);
    add(&f, "me", ALIVE, "read", 404);
    audit_note(&f.gw, "expire", &alive, NULL, NULL);
    cr_assert(settle(&f));
    cr_assert_eq(verify(&f), 3);
    sql(&f, "UPDATE kb_workspace_audit SET summary = 'path=\"b\"' WHERE sequence = 2");
    cr_assert_eq(verify(&f), -1, "a changed line does not fit its hash");
    finish(&f);
}

Test(audit, the_encoding_is_the_documented_one)
{
    /* printf '16:emergent-audit-1,-,1:c,1:1,24:1970-01-01T00:00:00.000Z,2:me,-,4:bash,-,3:200,1:0,-,-,-,-,-,-,' |
     * sha256sum */
    struct audit_entry entry = {.chain = "c",
                                .sequence = 1,
                                .at = "1970-01-01T00:00:00.000Z",
                                .owner = "me",
                                .operation = "bash",
                                .status = 200};
    char hash[AUDIT_HASH_SIZE];
    audit_chain_hash(&entry, hash);
    cr_assert_str_eq(hash, "a14be9ff626a4cc8ccba820c705d32f9452914e001409fd72038315078de183e");
}

Test(audit, a_killed_gateway_leaves_no_gap)
{
    fixture_t f;
    start(&f);
    close_gateway(&f);
    pid_t pid = fork();
    if (pid == 0) {
        event_reinit(f.gw.daemon.base);
        open_gateway(&f);
        for (int i = 0; i < 300; i++)
            add(&f, "me", ALIVE, "bash", 200);
        while (audit_waiting(&f.gw) > 44)
            turn(&f); /* 256 are stored, 44 wait for their time */
        raise(SIGKILL);
    }
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status));
    open_gateway(&f);
    add(&f, "me", ALIVE, "read", 200);
    cr_assert(settle(&f));
    cr_assert_eq(verify(&f), 257);
    finish(&f);
}

Test(audit, closing_stores_what_waits)
{
    fixture_t f;
    start(&f);
    for (int i = 0; i < 1000; i++)
        add(&f, "me", ALIVE, "bash", 200);
    close_gateway(&f);
    cr_assert_eq(verify(&f), 1000);
    finish(&f);
}

Test(audit, a_database_that_refuses_loses_and_doubles_nothing)
{
    fixture_t f;
    start(&f);
    add(&f, "me", ALIVE, "first", 200);
    cr_assert(settle(&f));
    sql(&f, "CREATE TRIGGER no BEFORE INSERT ON kb_workspace_audit WHEN NEW.operation = 'third' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END");
    for (int i = 0; i < 2; i++)
        add(&f, "me", ALIVE, "second", 200); /* these two are stored, then the batch breaks off */
    for (int i = 0; i < 5; i++)
        add(&f, "me", ALIVE, "third", 200);
    uint64_t end = clock_monotonic_ms() + 1500;
    while (clock_monotonic_ms() < end)
        turn(&f);
    cr_assert_geq(audit_waiting(&f.gw), 5);
    sql(&f, "DROP TRIGGER no");
    cr_assert(settle(&f));
    cr_assert_eq(verify(&f), 8);
    finish(&f);
}

Test(audit, another_writer_of_the_chain_is_followed)
{
    fixture_t f;
    start(&f);
    add(&f, "me", ALIVE, "first", 200);
    cr_assert(settle(&f));
    sql(&f, "INSERT INTO kb_workspace_audit (chain, sequence, at, owner, operation, hash) "
            "SELECT chain, 2, at, owner, 'foreign', 'ab' FROM kb_workspace_audit");
    add(&f, "me", ALIVE, "third", 200);
    cr_assert(settle(&f));
    sqlite3_stmt *stmt = NULL;
    sqlite3_prepare_v2(f.other, "SELECT COUNT(*) FROM kb_workspace_audit WHERE operation = 'third' AND sequence = 3",
                       -1, &stmt, NULL);
    cr_assert_eq(sqlite3_step(stmt), SQLITE_ROW);
    cr_assert_eq(sqlite3_column_int(stmt, 0), 1);
    sqlite3_finalize(stmt);
    finish(&f);
}

Test(audit, what_does_not_fit_is_counted_and_told)
{
    fixture_t f;
    start(&f);
    for (int i = 0; i < AUDIT_LINES_MAX + 100; i++)
        add(&f, "me", ALIVE, "bash", 200);
    cr_assert_eq(audit_waiting(&f.gw), AUDIT_LINES_MAX);
    cr_assert_eq(audit_lost(&f.gw), 100);
    cr_assert(settle(&f));
    cr_assert_eq(verify(&f), AUDIT_LINES_MAX + 1);
    sqlite3_stmt *stmt = NULL;
    sqlite3_prepare_v2(f.other, "SELECT summary FROM kb_workspace_audit WHERE operation = 'audit_lost'", -1, &stmt,
                       NULL);
    cr_assert_eq(sqlite3_step(stmt), SQLITE_ROW);
    cr_assert_str_eq(text_at(stmt, 0), "lines=100");
    sqlite3_finalize(stmt);
    add(&f, "me", ALIVE, "bash", 200);
    cr_assert(settle(&f));
    cr_assert_eq(audit_lost(&f.gw), 100, "there is room again");
    finish(&f);
}

Test(audit, waiting_bytes_are_bounded_too)
{
    fixture_t f;
    start(&f);
    char long_text[1025];
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[1024] = '\0';
    for (int i = 0; i < AUDIT_LINES_MAX; i++)
        audit_add(&f.gw, &(audit_fields_t){.owner = "me", .operation = "bash", .summary = long_text});
    cr_assert_gt(audit_lost(&f.gw), 0);
    cr_assert_leq(audit_waiting(&f.gw) * 1024, AUDIT_BYTES_MAX);
    finish(&f);
}

Test(audit, texts_are_cut_where_a_character_ends)
{
    fixture_t f;
    start(&f);
    char text[301] = "";
    for (int i = 0; i < 100; i++)
        memcpy(text + 3 * i, "€", 3);
    text[159] = '\0'; /* in the middle of one, as snprintf cuts */
    audit_add(&f.gw, &(audit_fields_t){.owner = "me", .operation = "bash", .error = text, .summary = "good\xff bad"});
    cr_assert(settle(&f));
    cr_assert_eq(verify(&f), 1);
    sqlite3_stmt *stmt = NULL;
    sqlite3_prepare_v2(f.other, "SELECT error, summary FROM kb_workspace_audit", -1, &stmt, NULL);
    cr_assert_eq(sqlite3_step(stmt), SQLITE_ROW);
    cr_assert(utf8_is_valid(text_at(stmt, 0), strlen(text_at(stmt, 0))));
    cr_assert_geq(strlen(text_at(stmt, 0)), 156);
    cr_assert_str_eq(text_at(stmt, 1), "good");
    sqlite3_finalize(stmt);
    finish(&f);
}

Test(audit, old_lines_go_and_the_rest_stays_a_chain)
{
    fixture_t f;
    start(&f);
    for (int i = 0; i < 2500; i++)
        add(&f, "me", ALIVE, "bash", 200);
    cr_assert(settle(&f));
    sql(&f, "UPDATE kb_workspace_audit SET at = at - 91 * 86400000 WHERE sequence <= 2400");
    audit_keep_t *keep = audit_keep_new(&f.gw);
    audit_keep_now(keep);
    for (int i = 0; i < 100; i++)
        turn(&f);
    cr_assert_eq(verify(&f), 100);
    sql(&f, "UPDATE kb_workspace_audit SET at = at - 91 * 86400000");
    audit_keep_now(keep);
    for (int i = 0; i < 100; i++)
        turn(&f);
    cr_assert_eq(verify(&f), 1, "the newest stays, for the chain to go on from");
    close_gateway(&f);
    audit_keep_free(keep);
    open_gateway(&f);
    add(&f, "me", ALIVE, "bash", 200);
    cr_assert(settle(&f));
    cr_assert_eq(verify(&f), 2);
    finish(&f);
}

/* ---- GET …/audit ---- */

/* Asks at once, with lines still on their way: they are in the answer. */
static fake_request_t *ask(fixture_t *f, const char *owner, const char *workspace, const char *name, const char *value)
{
    fake_request_t *r = fake_request_new(&f->gw, owner);
    r->r.params[0] = workspace;
    if (name != NULL) {
        r->http.query[0][0] = name;
        r->http.query[0][1] = value;
    }
    if (workspace != NULL)
        audit_list_workspace(&r->r);
    else
        audit_list(&r->r);
    while (r->status == 0)
        turn(f);
    return r;
}

static size_t count_of(fixture_t *f, const char *owner, const char *workspace, const char *name, const char *value)
{
    fake_request_t *r = ask(f, owner, workspace, name, value);
    cr_assert_eq(r->status, 200, "%d %s", r->status, r->body);
    size_t count = json_array_size(r->json);
    fake_request_free(r);
    return count;
}

static int status_of(fixture_t *f, const char *owner, const char *workspace, const char *name, const char *value)
{
    fake_request_t *r = ask(f, owner, workspace, name, value);
    int status = r->status;
    fake_request_free(r);
    return status;
}

static void add_some(fixture_t *f)
{
    add(f, "me", ALIVE, "bash", 200);
    add(f, "me", ALIVE, "read", 404);
    add(f, "me", GONE, "delete", 204);
    add(f, "other", ALIVE, "bash", 200);
    audit_note(&f->gw, "expire", &alive, NULL, NULL);
}

Test(audit, an_owner_reads_its_own_lines_newest_first)
{
    fixture_t f;
    start(&f);
    add_some(&f);
    fake_request_t *r = ask(&f, "me", NULL, NULL, NULL);
    cr_assert_eq(r->status, 200, "%s", r->body);
    cr_assert_eq(json_array_size(r->json), 4);
    const json_t *newest = json_array_get(r->json, 0), *failed = json_array_get(r->json, 2);
    cr_expect_str_eq(json_string_value(json_object_get(newest, "operation")), "expire");
    cr_expect_null(json_object_get(newest, "status"));
    cr_expect_eq(json_integer_value(json_object_get(failed, "status")), 404);
    cr_expect_str_eq(json_string_value(json_object_get(failed, "error_code")), "not_found");
    cr_expect_str_eq(json_string_value(json_object_get(failed, "agent_session_id")), SESSION);
    const char *hash = json_string_value(json_object_get(json_array_get(r->json, 3), "hash"));
    cr_expect_str_eq(json_string_value(json_object_get(failed, "previous_hash")), hash);
    fake_request_free(r);
    finish(&f);
}

Test(audit, a_workspace_has_its_history_after_its_end_and_only_for_its_owner)
{
    fixture_t f;
    start(&f);
    add_some(&f);
    cr_expect_eq(count_of(&f, "me", ALIVE, NULL, NULL), 3);
    cr_expect_eq(count_of(&f, "me", GONE, NULL, NULL), 1);
    cr_expect_eq(count_of(&f, "me", GONE, "operation", "bash"), 0, "known, but nothing fits");
    cr_expect_eq(status_of(&f, "other", GONE, NULL, NULL), 404);
    cr_expect_eq(status_of(&f, "me", "88888888-2222-4333-8444-555555555555", NULL, NULL), 404);
    cr_expect_eq(status_of(&f, "me", "nonsense", NULL, NULL), 400);
    finish(&f);
}

Test(audit, filters)
{
    fixture_t f;
    start(&f);
    add_some(&f);
    static const struct {
        const char *name, *value;
        size_t count;
    } good[] = {
        {"operation", "bash", 1},
        {"status", "404", 1},
        {"status", "2xx", 2},
        {"status", "5XX", 0},
        {"from", "2020-01-01T00:00:00Z", 4},
        {"from", "2999-01-01T00:00:00Z", 0},
        {"to", "2020-01-01T00:00:00Z", 0},
        {"agent_session_id", SESSION, 3},
        {"agent_session_id", ALIVE, 0},
        {"limit", "2", 2},
    };
    for (size_t i = 0; i < COUNT_OF(good); i++)
        cr_expect_eq(count_of(&f, "me", NULL, good[i].name, good[i].value), good[i].count, "%s=%s", good[i].name,
                     good[i].value);
    static const char *const bad[][2] = {{"status", "6xx"},         {"status", "abc"},      {"status", "99"},
                                         {"from", "now"},           {"to", "2020-13-01"},   {"limit", "0"},
                                         {"limit", "1001"},         {"cursor", "x"},        {"cursor", "MS4yLjM"},
                                         {"agent_session_id", "x"}, {"all_owners", "maybe"}};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_expect_eq(status_of(&f, "me", NULL, bad[i][0], bad[i][1]), 400, "%s=%s", bad[i][0], bad[i][1]);
    finish(&f);
}

static bool plan_has(fixture_t *f, enum store_statement statement, const char *index)
{
    auto_free char *explain = mem_printf("EXPLAIN QUERY PLAN %s", store_statement_sql(statement));
    sqlite3_stmt *stmt = NULL;
    bool is_there = false;
    for (char *at = strstr(explain, "kb."); at != NULL; at = strstr(at, "kb."))
        at[2] = '_';
    cr_assert_eq(sqlite3_prepare_v2(f->other, explain, -1, &stmt, NULL), SQLITE_OK, "%s", sqlite3_errmsg(f->other));
    while (sqlite3_step(stmt) == SQLITE_ROW)
        is_there |= strstr((const char *)sqlite3_column_text(stmt, 3), index) != NULL;
    sqlite3_finalize(stmt);
    return is_there;
}

/* Of one workspace: not through all the lines of its owner, who may be the only one and have millions. */
Test(audit, the_lines_of_a_workspace_are_found_by_its_index)
{
    fixture_t f;
    start(&f);
    cr_expect(plan_has(&f, STORE_AUDIT_WORKSPACE, "idx_workspace_audit_workspace"));
    cr_expect(plan_has(&f, STORE_AUDIT_KNOWN, "idx_workspace_audit_workspace"));
    cr_expect(plan_has(&f, STORE_AUDIT_OWNER, "idx_workspace_audit_owner"));
    finish(&f);
}

Test(audit, pages_show_every_line_once)
{
    fixture_t f;
    start(&f);
    for (int i = 0; i < 1234; i++)
        add(&f, i % 2 ? "me" : "other", ALIVE, "bash", 200);
    char cursor[128] = "";
    size_t pages = 0, total = 0;
    int64_t before = INT64_MAX;
    do {
        fake_request_t *r = ask(&f, "me", NULL, cursor[0] == '\0' ? NULL : "cursor", cursor);
        cr_assert_eq(r->status, 200, "%s", r->body);
        size_t i;
        json_t *line;
        json_array_foreach(r->json, i, line)
        {
            int64_t sequence = json_integer_value(json_object_get(line, "sequence"));
            cr_assert_lt(sequence, before);
            before = sequence;
        }
        total += json_array_size(r->json);
        memcpy(cursor, r->http.next_cursor, sizeof(cursor));
        fake_request_free(r);
        pages++;
    } while (cursor[0] != '\0');
    cr_assert_eq(total, 617);
    cr_assert_eq(pages, 7);
    finish(&f);
}

Test(audit, only_the_operator_sees_every_owner)
{
    fixture_t f;
    start(&f);
    add_some(&f);
    cr_expect_eq(status_of(&f, "me", NULL, "all_owners", "true"), 403);
    cr_expect_eq(count_of(&f, "standalone", NULL, "all_owners", "true"), 5);
    cr_expect_eq(count_of(&f, "standalone", NULL, NULL, NULL), 0);
    finish(&f);
}

Test(audit, a_reader_may_go_before_the_answer)
{
    fixture_t f;
    start(&f);
    add_some(&f);
    fake_request_t *r = fake_request_new(&f.gw, "me");
    audit_list(&r->r);
    fake_request_free(r);
    cr_assert(settle(&f));
    for (int i = 0; i < 5; i++)
        turn(&f);
    finish(&f);
}
