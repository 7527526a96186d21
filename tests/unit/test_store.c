// SPDX-License-Identifier: Apache-2.0
/* Every case on SQLite and on a real PostgreSQL. */
#include "tests/unit/store_world.h"

#include <signal.h>

static void on_done(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    cr_assert_null(err);
    ++*(int *)arg;
}

static void what_is_written_is_read_again(void)
{
    auto_err err_t *e = NULL;
    int done = 0;
    store_value_t setting[] = {store_text("color"), store_text("blue")};
    cr_assert_eq(store_exec(world.store, STORE_SETTING_ADD, setting, 2, on_done, &done, &e), 0);
    cr_assert_eq(done, 0, "callbacks come from the loop, never within the call");
    spin(&done, 1);
    char value[64];
    get_setting("color", value);
    cr_assert_str_eq(value, "blue");
    get_setting("shape", value);
    cr_assert_str_eq(value, "");
}
TEST_ON_BOTH(what_is_written_is_read_again)

static void what_waits_is_written_before_a_close(void)
{
    auto_err err_t *e = NULL;
    store_value_t setting[] = {store_text("color"), store_text("blue")};
    cr_assert_eq(store_exec(world.store, STORE_SETTING_ADD, setting, 2, NULL, NULL, &e), 0);
    store_close(&world.store);
    world_open();
    char value[64];
    get_setting("color", value);
    cr_assert_str_eq(value, "blue");
}
TEST_ON_BOTH(what_waits_is_written_before_a_close)

static void the_file_is_private(void)
{
    struct stat st;
    cr_assert_eq(stat(world.where, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
}
TEST_ON_SQLITE(the_file_is_private)

static size_t param_count(enum store_statement statement)
{
    size_t count = 0;
    const char *sql = store_statement_sql(statement);
    for (const char *at = strchr(sql, '$'); at != NULL; at = strchr(at + 1, '$')) {
        size_t number = strtoul(at + 1, NULL, 10);
        count = number > count ? number : count;
    }
    cr_assert_leq(count, STORE_PARAMS_MAX);
    return count;
}

enum {
    COLUMN_CREATED = 14,
    COLUMN_USED = 15,
    COLUMN_EXPIRES = 16,
    COLUMN_MCP = 19,
    COLUMN_ENV = 25,
    COLUMN_INTENT = 27
};

/* Returns how many columns a workspace has by now; those after `intent` may be NULL. */
static size_t fill_row(store_value_t row[STORE_PARAMS_MAX])
{
    static const int NUMBERS[] = {8, COLUMN_CREATED, COLUMN_USED, COLUMN_EXPIRES, 26};
    for (size_t i = 0; i < STORE_PARAMS_MAX; i++)
        row[i] = store_text(i <= COLUMN_INTENT ? "x" : NULL);
    for (size_t i = 0; i < COUNT_OF(NUMBERS); i++)
        row[NUMBERS[i]] = store_int(1);
    row[COLUMN_MCP] = row[COLUMN_ENV] = store_blob(NULL, 0);
    return param_count(STORE_WORKSPACE_INSERT);
}

static void on_values(void *arg, const store_result_t *result, const err_t *err)
{
    cr_assert_null(err);
    cr_assert_eq(result->row_count, 1);
    const store_value_t *env = store_at(result, 0, COLUMN_ENV);
    cr_assert_eq(env->kind, STORE_BLOB);
    cr_assert_eq(env->len, 5);
    cr_assert_eq(memcmp(env->bytes, "a\0b\0\xff", 5), 0, "bytes with zeros");
    cr_assert_eq(store_at(result, 0, COLUMN_MCP)->kind, STORE_NULL);
    cr_assert_eq(store_int_at(result, 0, COLUMN_CREATED), INT64_MAX);
    cr_assert_eq(store_int_at(result, 0, COLUMN_USED), INT64_MIN);
    cr_assert_eq(store_at(result, 0, COLUMN_EXPIRES)->kind, STORE_NULL);
    cr_assert_str_eq(store_text_at(result, 0, 3), "", "an empty text is no NULL");
    cr_assert_null(store_text_at(result, 0, 2));
    cr_assert_str_eq(store_text_at(result, 0, 1), "Zo\xc3\xab $1 'quoted' \\ \"x\"");
    *(bool *)arg = true;
}

static void values_come_back_as_they_went(void)
{
    auto_err err_t *e = NULL;
    store_value_t row[STORE_PARAMS_MAX];
    size_t count = fill_row(row);
    row[1] = store_text("Zo\xc3\xab $1 'quoted' \\ \"x\"");
    row[2] = store_text(NULL);
    row[3] = store_text("");
    row[COLUMN_CREATED] = store_int(INT64_MAX);
    row[COLUMN_USED] = store_int(INT64_MIN);
    row[COLUMN_EXPIRES] = store_text(NULL);
    row[COLUMN_ENV] = store_blob("a\0b\0\xff", 5);
    bool is_seen = false;
    cr_assert_eq(store_exec_wait(world.store, STORE_WORKSPACE_INSERT, row, count, NULL, NULL, &e), 0, "%s",
                 err_message(e));
    cr_assert_eq(store_exec_wait(world.store, STORE_WORKSPACE_ALL, NULL, 0, on_values, &is_seen, &e), 0);
    cr_assert(is_seen);
}
TEST_ON_BOTH(values_come_back_as_they_went)

/* The dialects agree: a statement may fail for what it is given here (nothing), not for how it is written. */
static void every_statement_is_understood(void)
{
    for (int i = 0; i < STORE_STATEMENT_COUNT; i++) {
        auto_err err_t *e = NULL;
        const char *sql = store_statement_sql((enum store_statement)i);
        size_t count = param_count((enum store_statement)i);
        const char *limit = strstr(sql, "LIMIT $"); /* SQLite wants a number there */
        store_value_t nothing[STORE_PARAMS_MAX] = {0};
        if (limit != NULL)
            nothing[strtoul(limit + strlen("LIMIT $"), NULL, 10) - 1] = store_int(1);
        int result = store_exec_wait(world.store, (enum store_statement)i, nothing, count, NULL, NULL, &e);
        cr_expect(result == 0 || err_code(e) == ERR_CONFLICT, "%s: %s", sql, err_message(e));
    }
}
TEST_ON_BOTH(every_statement_is_understood)

/* ---- groups ---- */

typedef struct outcome {
    int *count;
    enum err_code code;
    int64_t changed;
} outcome_t;

static void on_outcome(void *arg, const store_result_t *result, const err_t *err)
{
    outcome_t *o = arg;
    o->code = err_code(err);
    o->changed = result->changed;
    ++*o->count;
}

static void insert_key(int id, outcome_t *o)
{
    auto_err err_t *e = NULL;
    char text[32];
    snprintf(text, sizeof(text), "k%d", id);
    store_value_t key[] = {store_text(text), store_text("n"), store_text("o"),  store_text(text),
                           store_text("p"),  store_text(""),  store_text(NULL), store_int(1)};
    cr_assert_eq(store_exec(world.store, STORE_API_KEY_INSERT, key, COUNT_OF(key), on_outcome, o, &e), 0);
}

static void on_count(void *arg, const store_result_t *result, const err_t *err)
{
    cr_assert_null(err);
    *(size_t *)arg = result->row_count;
}

static void a_failing_statement_fails_alone(void)
{
    enum { MANY = 1200, EVERY = 7 };
    static outcome_t outcomes[MANY];
    auto_err err_t *e = NULL;
    int done = 0;
    for (int i = 0; i < MANY; i++) { /* each seventh breaks the primary key */
        outcomes[i].count = &done;
        insert_key(i % EVERY == EVERY - 1 ? i - 1 : i, &outcomes[i]);
    }
    spin(&done, MANY);
    for (int i = 0; i < MANY; i++) {
        bool is_bad = i % EVERY == EVERY - 1;
        cr_assert_eq(outcomes[i].code, is_bad ? ERR_CONFLICT : ERR_NONE, "%d", i);
        cr_assert_eq(outcomes[i].changed, is_bad ? 0 : 1, "%d", i);
    }
    size_t count = 0;
    cr_assert_eq(store_exec_wait(world.store, STORE_API_KEY_ALL, NULL, 0, on_count, &count, &e), 0);
    cr_assert_eq(count, MANY - MANY / EVERY);
}
TEST_ON_BOTH(a_failing_statement_fails_alone)

static void refuses_when_its_queue_is_full(void)
{
    auto_err err_t *e = NULL;
    size_t len = (size_t)24 << 20;
    char *text = mem_alloc(len + 1);
    memset(text, 'x', len);
    store_value_t setting[] = {store_text("big"), store_text(text)};
    int sent = 0;
    while (sent < 100 && store_exec(world.store, STORE_SETTING_GET, setting + 1, 1, NULL, NULL, &e) == 0)
        sent++;
    cr_assert_lt(sent, 100);
    cr_assert_eq(err_code(e), ERR_OVERLOADED);
    free(text);
}
TEST_ON_BOTH(refuses_when_its_queue_is_full)

static void a_batch_changes_every_row(void)
{
    enum { MANY = 1000 };
    static outcome_t outcomes[MANY + 1];
    auto_err err_t *e = NULL;
    int done = 0;
    store_value_t rows[2 * MANY];
    char names[MANY][16];
    for (int i = 0; i < MANY; i++) {
        outcomes[i].count = &done;
        insert_key(i, &outcomes[i]);
        snprintf(names[i], sizeof(names[i]), "k%d", i);
        rows[2 * i] = store_text(names[i]);
        rows[2 * i + 1] = store_int(i);
    }
    outcomes[MANY].count = &done;
    cr_assert_eq(store_exec_batch(world.store, STORE_API_KEY_TOUCH, rows, 2, MANY, on_outcome, &outcomes[MANY], &e), 0);
    spin(&done, MANY + 1);
    cr_assert_eq(outcomes[MANY].code, ERR_NONE);
    cr_assert_eq(outcomes[MANY].changed, MANY);
}
TEST_ON_BOTH(a_batch_changes_every_row)

static void a_batch_that_fails_leaves_the_others_alone(void)
{
    outcome_t first, batch, last;
    auto_err err_t *e = NULL;
    int done = 0;
    first.count = batch.count = last.count = &done;
    store_value_t rows[3 * 8];
    for (int i = 0; i < 3; i++) { /* all three are the same */
        store_value_t key[] = {store_text("twice"), store_text("n"), store_text("o"),  store_text("twice"),
                               store_text("p"),     store_text(""),  store_text(NULL), store_int(1)};
        memcpy(rows + i * 8, key, sizeof(key));
    }
    insert_key(1, &first);
    cr_assert_eq(store_exec_batch(world.store, STORE_API_KEY_INSERT, rows, 8, 3, on_outcome, &batch, &e), 0);
    insert_key(2, &last);
    spin(&done, 3);
    cr_assert_eq(first.code, ERR_NONE);
    cr_assert_eq(batch.code, ERR_CONFLICT);
    cr_assert_eq(last.code, ERR_NONE);
}
TEST_ON_BOTH(a_batch_that_fails_leaves_the_others_alone)

/* ---- schema ---- */

static void refuses_a_schema_of_the_future(void)
{
    auto_err err_t *e = NULL;
    store_close(&world.store);
    store_db_t *db = world.backend->open(world.where, &e);
    cr_assert_not_null(db);
    cr_assert_eq(world.backend->note_version(db, 9999, "future", &e), 0, "%s", err_message(e));
    world.backend->close(db);
    cr_assert_null(store_open_on(world.base, world.backend, world.where, &e));
    cr_assert_not_null(strstr(err_message(e), "9999"));
}
TEST_ON_BOTH(refuses_a_schema_of_the_future)

static void a_file_that_is_no_database_is_an_error(void)
{
    store_close(&world.store);
    auto_err err_t *e = NULL;
    static const char JUNK[] = "this is certainly not a database, but it is long enough to look at: 0123456789 "
                               "0123456789 0123456789 0123456789";
    cr_assert_eq(file_write_atomic(world.where, JUNK, sizeof(JUNK), 0600, &e), 0);
    cr_assert_null(store_open_at(world.base, world.where, &e));
    cr_assert_eq(err_code(e), ERR_DATABASE);
}
TEST_ON_SQLITE(a_file_that_is_no_database_is_an_error)

/* Four processes at once: one migrates, the others find it done. */
static void several_migrate_an_empty_database_at_once(void)
{
    auto_err err_t *e = NULL;
    store_close(&world.store);
    store_db_t *db = world.backend->open(world.where, &e);
    cr_assert_eq(world.backend->exec_text(db, "DROP SCHEMA kb CASCADE; DROP SCHEMA core CASCADE", &e), 0);
    world.backend->close(db);
    pid_t children[4];
    for (size_t i = 0; i < COUNT_OF(children); i++) {
        children[i] = fork();
        if (children[i] == 0) {
            auto_err err_t *mine = NULL;
            struct event_base *base = event_base_new();
            store_t *store = store_open_on(base, world.backend, world.where, &mine);
            if (store == NULL)
                fprintf(stderr, "%s\n", err_message(mine));
            store_close(&store);
            _exit(mine != NULL);
        }
    }
    for (size_t i = 0; i < COUNT_OF(children); i++) {
        int status;
        waitpid(children[i], &status, 0);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "process %zu: %d", i, status);
    }
    world_open();
}
TEST_ON_POSTGRES(several_migrate_an_empty_database_at_once)

/* ---- kill -9 in the middle: what was acknowledged is there ---- */

typedef struct acked {
    int fd;
    int number;
} acked_t;

static void on_acked(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    acked_t *a = arg;
    if (err != NULL || write(a->fd, &a->number, sizeof(a->number)) != sizeof(a->number))
        _exit(9);
    free(a);
}

/* Names of one round are new: nothing an earlier one left may answer for them. */
static void row_name(char name[32], unsigned round, int number)
{
    snprintf(name, 32, "n%u.%d", round, number);
}

static void writer(unsigned round, int fd)
{
    auto_err err_t *e = NULL;
    struct event_base *base = event_base_new();
    store_t *store = store_open_on(base, world.backend, world.where, &e);
    if (store == NULL)
        _exit(8);
    for (int i = 0;; i++) {
        acked_t *a = mem_alloc(sizeof(*a));
        *a = (acked_t){.fd = fd, .number = i};
        char name[32];
        row_name(name, round, i);
        store_value_t setting[] = {store_text(name), store_text("v")};
        if (store_exec(store, STORE_SETTING_ADD, setting, 2, on_acked, a, &e) != 0)
            _exit(7);
        event_base_loop(base, store_queue_length(store) > 64 ? EVLOOP_ONCE : EVLOOP_NONBLOCK);
    }
}

static int kill_a_writer(unsigned round, unsigned after_us)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        close(fds[0]);
        writer(round, fds[1]);
    }
    close(fds[1]);
    int newest = -1, number;
    /* the first acknowledgement tells that it runs */
    cr_assert_eq(read(fds[0], &number, sizeof(number)), (ssize_t)sizeof(number));
    newest = number;
    usleep(after_us);
    kill(child, SIGKILL);
    while (read(fds[0], &number, sizeof(number)) == (ssize_t)sizeof(number))
        newest = number > newest ? number : newest;
    close(fds[0]);
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFSIGNALED(status), "the writer ended by itself: %d", status);
    return newest;
}

static void on_names(void *arg, const store_result_t *result, const err_t *err)
{
    cr_assert_null(err);
    ++*(int *)arg;
    cr_assert_eq(result->row_count, 1, "row %d is lost", *(int *)arg - 1);
}

static void what_was_acknowledged_survives_kill_9(void)
{
    for (unsigned round = 0; round < 6; round++) {
        store_close(&world.store);
        int newest = kill_a_writer(round, 3000 + round * 7000);
        world_open();
        int seen = 0;
        for (int i = 0; i <= newest; i++) {
            auto_err err_t *e = NULL;
            char name[32];
            row_name(name, round, i);
            store_value_t key[] = {store_text(name)};
            cr_assert_eq(store_exec(world.store, STORE_SETTING_GET, key, 1, on_names, &seen, &e), 0);
            if (i % 256 == 0)
                spin(&seen, i + 1);
        }
        spin(&seen, newest + 1);
    }
}
TEST_ON_BOTH(what_was_acknowledged_survives_kill_9)
