/* SPDX-License-Identifier: Apache-2.0
 * A store of either kind for a test: SQLite in a directory, or a PostgreSQL server of the test's own. */
#ifndef EW_TESTS_STORE_WORLD_H
#define EW_TESTS_STORE_WORLD_H

#include "common/buf.h"
#include "common/file.h"
#include "common/mem.h"
#include "services/gateway/store_internal.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct world {
    const store_backend_t *backend;
    char dir[64];
    char where[512]; /* the file or the URL */
    struct event_base *base;
    store_t *store;
} world_t;

static world_t world;

/* Exit code of postgres.sh; 3 = no server is installed. */
static inline int postgres_do(const char *verb, const char *dir)
{
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "tests/integration/postgres.sh", verb, dir, (char *)NULL);
        _exit(127);
    }
    int status;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

static inline void world_open(void)
{
    auto_err err_t *e = NULL;
    world.store = store_open_on(world.base, world.backend, world.where, &e);
    cr_assert_not_null(world.store, "%s", err_message(e));
}

static inline void start_postgres(void)
{
    int code = postgres_do("start", world.dir);
    const char *must_work = getenv("EW_MUST_WORK");
    if (code == 3 && must_work != NULL && strcmp(must_work, "0") == 0)
        cr_skip_test("no PostgreSQL server is installed");
    cr_assert_eq(code, 0, "PostgreSQL did not start");
    auto_err err_t *e = NULL;
    auto_buf buf_t url = {0};
    auto_free char *path = mem_printf("%s/url", world.dir);
    cr_assert_eq(file_read(path, 400, &url, &e), 0);
    snprintf(world.where, sizeof(world.where), "%.*s", (int)strcspn(buf_cstr(&url), "\n"), buf_cstr(&url));
}

static inline void world_start(const store_backend_t *backend)
{
    world.backend = backend;
    snprintf(world.dir, sizeof(world.dir), "/tmp/test_store.XXXXXX");
    cr_assert_not_null(mkdtemp(world.dir));
    world.base = event_base_new();
    if (backend == &STORE_POSTGRES)
        start_postgres();
    else
        snprintf(world.where, sizeof(world.where), "%s/gateway.db", world.dir);
    world_open();
}

/* Runs after a test that failed too. */
static inline void world_end(void)
{
    store_close(&world.store);
    if (world.base != NULL)
        event_base_free(world.base);
    auto_err err_t *e = NULL;
    if (world.backend == &STORE_POSTGRES)
        cr_expect_eq(postgres_do("destroy", world.dir), 0);
    else if (world.dir[0] != '\0')
        cr_expect_eq(dir_remove(world.dir, &e), 0);
}

#define TEST_ON_SQLITE(name)                                   \
    Test(store_sqlite, name, .timeout = 60, .fini = world_end) \
    {                                                          \
        world_start(&STORE_SQLITE);                            \
        name();                                                \
    }
#define TEST_ON_POSTGRES(name)                                    \
    Test(store_postgres, name, .timeout = 120, .fini = world_end) \
    {                                                             \
        world_start(&STORE_POSTGRES);                             \
        name();                                                   \
    }
#define TEST_ON_BOTH(name) TEST_ON_SQLITE(name) TEST_ON_POSTGRES(name)

/* ---- small calls ---- */

static inline void on_setting(void *arg, const store_result_t *result, const err_t *err)
{
    cr_assert_null(err);
    char *value = arg;
    value[0] = '\0';
    if (result->row_count == 1)
        snprintf(value, 64, "%s", store_text_at(result, 0, 0));
}

static inline void get_setting(const char *name, char value[64])
{
    auto_err err_t *e = NULL;
    store_value_t key[] = {store_text(name)};
    cr_assert_eq(store_exec_wait(world.store, STORE_SETTING_GET, key, 1, on_setting, value, &e), 0, "%s",
                 err_message(e));
}

/* Ends with the callback of the request that is under way. */
static inline void spin(const int *done, int wanted)
{
    while (*done < wanted)
        event_base_loop(world.base, EVLOOP_ONCE);
}

#endif
