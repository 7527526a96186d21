// SPDX-License-Identifier: Apache-2.0
// LINK: services/gateway/store.c services/gateway/store_sqlite.c services/gateway/store_migrations.c
#include "services/gateway/store.h"

#include "common/file.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct fixture {
    char dir[64];
    char path[128];
    struct event_base *base;
    store_t *store;
} fixture_t;

static void open_store(fixture_t *f)
{
    auto_err err_t *e = NULL;
    f->store = store_open_at(f->base, f->path, &e);
    cr_assert_not_null(f->store, "%s", err_message(e));
}

static void start(fixture_t *f)
{
    snprintf(f->dir, sizeof(f->dir), "/tmp/test_store.XXXXXX");
    cr_assert_not_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/gateway.db", f->dir);
    f->base = event_base_new();
    open_store(f);
}

static void finish(fixture_t *f)
{
    store_close(&f->store);
    event_base_free(f->base);
    auto_err err_t *e = NULL;
    cr_assert_eq(dir_remove(f->dir, &e), 0);
}

static void on_setting(void *arg, const store_result_t *result, const err_t *err)
{
    cr_assert_null(err);
    char *value = arg;
    value[0] = '\0';
    if (result->row_count == 1)
        snprintf(value, 64, "%s", store_text_at(result, 0, 0));
}

static void get_setting(store_t *s, const char *name, char value[64])
{
    auto_err err_t *e = NULL;
    store_value_t key[] = {store_text(name)};
    cr_assert_eq(store_exec_wait(s, STORE_SETTING_GET, key, 1, on_setting, value, &e), 0);
}

static void on_done(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    cr_assert_null(err);
    ++*(int *)arg;
}

Test(store, what_is_written_is_read_again, .timeout = 20)
{
    fixture_t f;
    start(&f);
    auto_err err_t *e = NULL;
    int done = 0;
    store_value_t setting[] = {store_text("color"), store_text("blue")};
    cr_assert_eq(store_exec(f.store, STORE_SETTING_ADD, setting, 2, on_done, &done, &e), 0);
    cr_assert_eq(done, 0, "callbacks come from the loop, never within the call");
    while (done == 0)
        event_base_loop(f.base, EVLOOP_ONCE);
    char value[64];
    get_setting(f.store, "color", value);
    cr_assert_str_eq(value, "blue");
    get_setting(f.store, "shape", value);
    cr_assert_str_eq(value, "");
    finish(&f);
}

Test(store, the_file_is_private_and_survives_a_reopen, .timeout = 20)
{
    fixture_t f;
    start(&f);
    auto_err err_t *e = NULL;
    store_value_t setting[] = {store_text("color"), store_text("blue")};
    cr_assert_eq(store_exec(f.store, STORE_SETTING_ADD, setting, 2, NULL, NULL, &e), 0);
    store_close(&f.store); /* finishes what waits */
    struct stat st;
    cr_assert_eq(stat(f.path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    open_store(&f);
    char value[64];
    get_setting(f.store, "color", value);
    cr_assert_str_eq(value, "blue");
    finish(&f);
}

static void on_blob(void *arg, const store_result_t *result, const err_t *err)
{
    cr_assert_null(err);
    const store_value_t *env = store_at(result, 0, 25);
    *(bool *)arg =
        result->row_count == 1 && env->kind == STORE_BLOB && env->len == 5 && memcmp(env->bytes, "a\0b\0\xff", 5) == 0;
}

Test(store, bytes_come_back_as_they_went_with_their_zeros, .timeout = 20)
{
    fixture_t f;
    start(&f);
    auto_err err_t *e = NULL;
    store_value_t row[27];
    for (size_t i = 0; i < 27; i++)
        row[i] = store_text("x");
    row[25] = store_blob("a\0b\0\xff", 5);
    bool is_same = false;
    cr_assert_eq(store_exec_wait(f.store, STORE_WORKSPACE_INSERT, row, 27, NULL, NULL, &e), 0, "%s", err_message(e));
    cr_assert_eq(store_exec_wait(f.store, STORE_WORKSPACE_ALL, NULL, 0, on_blob, &is_same, &e), 0);
    cr_assert(is_same);
    finish(&f);
}

static void on_conflict(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    *(enum err_code *)arg = err_code(err);
}

Test(store, a_failing_statement_fails_alone, .timeout = 20)
{
    fixture_t f;
    start(&f);
    auto_err err_t *e = NULL;
    enum err_code code = ERR_NONE;
    int done = 0;
    for (int i = 0; i < 3; i++) {
        const char *id = i == 2 ? "k2" : "k1"; /* the second breaks the primary key */
        const char *hash = i == 2 ? "h2" : "h1";
        store_value_t key[] = {store_text(id),  store_text("n"), store_text("o"),  store_text(hash),
                               store_text("p"), store_text(""),  store_text(NULL), store_int(1)};
        if (i == 1)
            cr_assert_eq(store_exec(f.store, STORE_API_KEY_INSERT, key, 8, on_conflict, &code, &e), 0);
        else
            cr_assert_eq(store_exec(f.store, STORE_API_KEY_INSERT, key, 8, on_done, &done, &e), 0);
    }
    while (done < 2 || code == ERR_NONE)
        event_base_loop(f.base, EVLOOP_ONCE);
    cr_assert_eq(code, ERR_CONFLICT);
    finish(&f);
}

Test(store, refuses_when_its_queue_is_full, .timeout = 60)
{
    fixture_t f;
    start(&f);
    auto_err err_t *e = NULL;
    size_t len = (size_t)24 << 20;
    char *text = mem_alloc(len + 1);
    memset(text, 'x', len);
    store_value_t setting[] = {store_text("big"), store_text(text)};
    int sent = 0;
    while (sent < 100 && store_exec(f.store, STORE_SETTING_GET, setting + 1, 1, NULL, NULL, &e) == 0)
        sent++;
    cr_assert_lt(sent, 100);
    cr_assert_eq(err_code(e), ERR_OVERLOADED);
    free(text);
    finish(&f);
}

Test(store, a_batch_changes_every_row, .timeout = 20)
{
    fixture_t f;
    start(&f);
    auto_err err_t *e = NULL;
    int done = 0;
    store_value_t rows[2000];
    for (int i = 0; i < 1000; i++) {
        rows[2 * i] = store_text("nobody");
        rows[2 * i + 1] = store_int(i);
    }
    cr_assert_eq(store_exec_batch(f.store, STORE_API_KEY_TOUCH, rows, 2, 1000, on_done, &done, &e), 0);
    while (done == 0)
        event_base_loop(f.base, EVLOOP_ONCE);
    finish(&f);
}

Test(store, refuses_a_schema_of_the_future, .timeout = 20)
{
    fixture_t f;
    start(&f);
    store_close(&f.store);
    auto_err err_t *e = NULL;
    store_db_t *db = store_db_open(f.path, &e);
    cr_assert_eq(store_db_note_version(db, 9999, "future", &e), 0);
    store_db_close(&db);
    cr_assert_null(store_open_at(f.base, f.path, &e));
    cr_assert_not_null(strstr(err_message(e), "9999"));
    finish(&f);
}

Test(store, a_file_that_is_no_database_is_an_error, .timeout = 20)
{
    fixture_t f;
    start(&f);
    store_close(&f.store);
    auto_err err_t *e = NULL;
    static const char JUNK[] = "this is certainly not a database, but it is long enough to look at: 0123456789 "
                               "0123456789 0123456789 0123456789";
    cr_assert_eq(file_write_atomic(f.path, JUNK, sizeof(JUNK), 0600, &e), 0);
    cr_assert_null(store_open_at(f.base, f.path, &e));
    cr_assert_eq(err_code(e), ERR_DATABASE);
    finish(&f);
}

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

static void writer(const char *path, int fd)
{
    auto_err err_t *e = NULL;
    struct event_base *base = event_base_new();
    store_t *store = store_open_at(base, path, &e);
    if (store == NULL)
        _exit(8);
    for (int i = 0;; i++) {
        acked_t *a = mem_alloc(sizeof(*a));
        *a = (acked_t){.fd = fd, .number = i};
        char name[32];
        snprintf(name, sizeof(name), "n%d", i);
        store_value_t setting[] = {store_text(name), store_text("v")};
        if (store_exec(store, STORE_SETTING_ADD, setting, 2, on_acked, a, &e) != 0)
            _exit(7);
        event_base_loop(base, store_queue_length(store) > 64 ? EVLOOP_ONCE : EVLOOP_NONBLOCK);
    }
}

static int kill_a_writer(const char *path, unsigned after_us)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        close(fds[0]);
        writer(path, fds[1]);
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

Test(store, what_was_acknowledged_survives_kill_9, .timeout = 60)
{
    for (unsigned round = 0; round < 8; round++) {
        fixture_t f;
        start(&f);
        store_close(&f.store);
        int newest = kill_a_writer(f.path, 3000 + round * 7000);
        open_store(&f);
        for (int i = 0; i <= newest; i++) {
            char name[32], value[64];
            snprintf(name, sizeof(name), "n%d", i);
            get_setting(f.store, name, value);
            cr_assert_str_eq(value, "v", "round %u: row %d of %d is lost", round, i, newest);
        }
        finish(&f);
    }
}
