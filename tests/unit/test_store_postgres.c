// SPDX-License-Identifier: Apache-2.0
/* A database that goes away: crashes, cut sessions, a network that swallows a COMMIT or its answer. A program between
 * the store and a real server (the relay) breaks the connection at the chosen moment. */
#include "common/clock.h"
#include "tests/unit/store_world.h"

#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

/* ---- the relay ---- */

enum fault {
    FAULT_NONE,
    FAULT_LOSE_COMMIT,   /* the COMMIT never arrives; the server's side of the connection stays open */
    FAULT_LOSE_ANSWER,   /* it is done, and nobody is told */
    FAULT_CUT_STATEMENT, /* the connection breaks within the transaction */
    FAULT_REFUSE,        /* nobody gets through */
    FAULT_SWALLOW,       /* all goes in and nothing comes out */
};

static struct relay {
    pid_t pid;
    _Atomic int fault;       /* those that hit once go back to NONE */
    _Atomic int is_refusing; /* after a fault: nobody gets through until it is 0 */
    char dir[80];
    char where[512];
} * relay;

static int connect_to(const char *dir)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL.5432", dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool has(const char *bytes, size_t len, const char *word)
{
    return memmem(bytes, len, word, strlen(word)) != NULL;
}

/* False: the client's side is to be closed. */
static bool to_server(int server, const char *bytes, size_t len)
{
    int fault = relay->fault;
    bool is_commit = has(bytes, len, "COMMIT");
    if (fault == FAULT_SWALLOW)
        return true;
    if ((fault == FAULT_LOSE_COMMIT && is_commit) || (fault == FAULT_CUT_STATEMENT && has(bytes, len, "INSERT"))) {
        relay->fault = FAULT_NONE;
        return false;
    }
    if (write(server, bytes, len) != (ssize_t)len)
        return false;
    if (fault != FAULT_LOSE_ANSWER || !is_commit)
        return true;
    char answer[4096];
    (void)!read(server, answer, sizeof(answer)); /* it is there */
    relay->fault = FAULT_NONE;
    return false;
}

static void pump(int client, int server)
{
    static char bytes[1 << 16];
    for (;;) {
        struct pollfd fds[] = {{.fd = client, .events = POLLIN}, {.fd = server, .events = POLLIN}};
        if (poll(fds, 2, 50) < 0 || relay->fault == FAULT_REFUSE)
            break;
        if (fds[0].revents != 0) {
            ssize_t len = read(client, bytes, sizeof(bytes));
            if (len <= 0)
                break;
            if (!to_server(server, bytes, (size_t)len)) {
                close(client);
                if (relay->fault == FAULT_NONE)
                    pause(); /* the server does not know that the client has gone */
                break;
            }
        }
        if (fds[1].revents != 0) {
            ssize_t len = read(server, bytes, sizeof(bytes));
            if (len <= 0 || write(client, bytes, (size_t)len) != len)
                break;
        }
    }
    _exit(0);
}

static void relay_main(int listener)
{
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        int server = relay->fault == FAULT_REFUSE || relay->is_refusing ? -1 : connect_to(world.dir);
        if (server >= 0 && fork() == 0)
            pump(client, server);
        close(client);
        close(server);
    }
}

static void relay_start(void)
{
    relay = mmap(NULL, sizeof(*relay), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(relay->dir, sizeof(relay->dir), "%s/relay", world.dir);
    cr_assert_eq(mkdir(relay->dir, 0755), 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL.5432", relay->dir);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(listener, 16), 0);
    pid_t child = fork(); /* relay is shared: only this side may write the number */
    if (child == 0) {
        setpgid(0, 0);
        relay_main(listener);
    }
    setpgid(child, child);
    relay->pid = child;
    close(listener);
    store_close(&world.store);
    snprintf(relay->where, sizeof(relay->where), "%.*s/relay", 400, world.where); /* …?host=DIR/relay */
    auto_err err_t *e = NULL;
    world.store = store_open_on(world.base, &STORE_POSTGRES, relay->where, &e);
    cr_assert_not_null(world.store, "%s", err_message(e));
}

static void end(void)
{
    if (relay != NULL)
        relay->fault = FAULT_NONE;
    store_close(&world.store);
    if (relay != NULL && relay->pid > 0)
        kill(-relay->pid, SIGKILL);
    world_end();
}

/* ---- what the tests watch ---- */

typedef struct request {
    int number;
    bool is_done;
    enum err_code code;
} request_t;

static int done_count;

static void on_request(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    request_t *r = arg;
    cr_assert(!r->is_done, "answered once");
    r->is_done = true;
    r->code = err_code(err);
    done_count++;
    if (err != NULL && r->code == ERR_DATABASE_UNAVAILABLE)
        cr_expect_str_eq(err_message(err), STORE_UNAVAILABLE);
}

/* No upsert: done twice it would be a conflict, done falsely it would be there. */
static void insert(request_t *r, int number)
{
    auto_err err_t *e = NULL;
    char text[32];
    *r = (request_t){.number = number};
    snprintf(text, sizeof(text), "k%d", number);
    store_value_t key[] = {store_text(text), store_text("n"), store_text("o"),  store_text(text),
                           store_text("p"),  store_text(""),  store_text(NULL), store_int(1)};
    cr_assert_eq(store_exec(world.store, STORE_API_KEY_INSERT, key, COUNT_OF(key), on_request, r, &e), 0);
}

/* An operator's own connection to the server itself. */
static int64_t ask(const char *sql)
{
    PGconn *conn = PQconnectdb(world.where);
    cr_assert_eq(PQstatus(conn), CONNECTION_OK, "%s", PQerrorMessage(conn));
    PGresult *result = PQexec(conn, sql);
    cr_assert(PQresultStatus(result) == PGRES_TUPLES_OK || PQresultStatus(result) == PGRES_COMMAND_OK, "%s",
              PQerrorMessage(conn));
    int64_t number = PQntuples(result) == 1 ? strtoll(PQgetvalue(result, 0, 0), NULL, 10) : -1;
    PQclear(result);
    PQfinish(conn);
    return number;
}

static int64_t count_of(const char *key)
{
    char sql[100];
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM core.api_keys WHERE id = '%s'", key);
    return ask(sql);
}

static void turn(unsigned ms)
{
    uint64_t until = clock_monotonic_ms() + ms;
    while (clock_monotonic_ms() < until) {
        struct timeval slice = {.tv_usec = 5000};
        event_base_loopexit(world.base, &slice);
        event_base_loop(world.base, EVLOOP_ONCE);
    }
}

static bool turn_until(const bool *flag, unsigned ms)
{
    for (unsigned spent = 0; !*flag && spent < ms; spent += 10)
        turn(10);
    return *flag;
}

static bool is_reachable(void)
{
    auto_err err_t *e = NULL;
    return store_check(world.store, &e) == 0;
}

static void wait_reachable(bool wanted)
{
    for (int i = 0; i < 1500 && is_reachable() != wanted; i++)
        turn(10);
    cr_assert_eq(is_reachable(), wanted);
}

#define TEST(name) Test(store_postgres_faults, name, .timeout = 120, .fini = end)

/* ---- the cases ---- */

TEST(a_database_that_is_down_fails_requests_at_once_and_comes_back)
{
    world_start(&STORE_POSTGRES);
    request_t r;
    cr_assert(is_reachable());
    cr_assert_eq(postgres_do("stop", world.dir), 0);
    wait_reachable(false); /* noticed though nobody asked for anything */
    uint64_t began = clock_monotonic_ms();
    insert(&r, 1);
    cr_assert(turn_until(&r.is_done, 3000));
    cr_assert_eq(r.code, ERR_DATABASE_UNAVAILABLE);
    cr_assert_lt(clock_monotonic_ms() - began, 1000);
    cr_assert_eq(postgres_do("start", world.dir), 0);
    wait_reachable(true); /* by itself */
    insert(&r, 2);
    cr_assert(turn_until(&r.is_done, 5000));
    cr_assert_eq(r.code, ERR_NONE);
    cr_assert_eq(count_of("k1"), 0, "a failed one was not done");
    cr_assert_eq(count_of("k2"), 1);
}

TEST(a_session_that_was_ended_while_idle_is_made_again_unseen)
{
    world_start(&STORE_POSTGRES);
    for (int i = 0; i < 20; i++) {
        request_t r;
        ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'emergent%'");
        insert(&r, i);
        cr_assert(turn_until(&r.is_done, 5000));
        cr_assert_eq(r.code, ERR_NONE, "round %d", i);
    }
}

TEST(a_connection_cut_within_a_transaction_costs_nothing)
{
    world_start(&STORE_POSTGRES);
    relay_start();
    request_t r;
    relay->fault = FAULT_CUT_STATEMENT;
    insert(&r, 1);
    cr_assert(turn_until(&r.is_done, 10000));
    cr_assert_eq(relay->fault, FAULT_NONE, "the fault has hit");
    cr_assert_eq(r.code, ERR_NONE);
    cr_assert_eq(count_of("k1"), 1);
}

/* The server still has the old session, in its transaction, with its locks. */
TEST(a_commit_that_never_arrived_is_done_again)
{
    world_start(&STORE_POSTGRES);
    relay_start();
    request_t r;
    relay->fault = FAULT_LOSE_COMMIT;
    insert(&r, 1);
    cr_assert(turn_until(&r.is_done, 15000));
    cr_assert_eq(relay->fault, FAULT_NONE, "the fault has hit");
    cr_assert_eq(r.code, ERR_NONE);
    cr_assert_eq(count_of("k1"), 1);
}

TEST(a_commit_whose_answer_was_lost_is_not_done_twice)
{
    world_start(&STORE_POSTGRES);
    relay_start();
    request_t r;
    relay->fault = FAULT_LOSE_ANSWER;
    insert(&r, 1); /* a second time would be a conflict */
    cr_assert(turn_until(&r.is_done, 15000));
    cr_assert_eq(relay->fault, FAULT_NONE, "the fault has hit");
    cr_assert_eq(r.code, ERR_NONE);
    cr_assert_eq(count_of("k1"), 1);
}

TEST(while_a_commit_is_unknown_it_waits_and_others_are_refused)
{
    world_start(&STORE_POSTGRES);
    relay_start();
    request_t unknown, other;
    relay->is_refusing = 1;
    relay->fault = FAULT_LOSE_ANSWER;
    insert(&unknown, 1);
    wait_reachable(false);
    insert(&other, 2);
    cr_assert(turn_until(&other.is_done, 5000));
    cr_assert_eq(other.code, ERR_DATABASE_UNAVAILABLE);
    cr_assert(!unknown.is_done, "nobody may say yet what became of it");
    relay->is_refusing = 0;
    cr_assert(turn_until(&unknown.is_done, 15000));
    cr_assert_eq(unknown.code, ERR_NONE);
    cr_assert_eq(count_of("k1"), 1);
    cr_assert_eq(count_of("k2"), 0);
}

TEST(a_server_that_says_nothing_counts_as_lost)
{
    world_start(&STORE_POSTGRES);
    relay_start();
    request_t r;
    relay->fault = FAULT_SWALLOW;
    uint64_t began = clock_monotonic_ms();
    insert(&r, 1);
    cr_assert(turn_until(&r.is_done, 30000));
    cr_assert_eq(r.code, ERR_DATABASE_UNAVAILABLE);
    cr_assert_lt(clock_monotonic_ms() - began, 20000);
    relay->fault = FAULT_NONE;
    wait_reachable(true);
    insert(&r, 2);
    cr_assert(turn_until(&r.is_done, 15000));
    cr_assert_eq(r.code, ERR_NONE);
    cr_assert_eq(count_of("k1"), 0);
}

/* ---- at random ---- */

static void in_background(const char *verb, const char *then, unsigned after_us)
{
    if (fork() != 0)
        return;
    usleep(after_us);
    _exit(postgres_do(verb, world.dir) != 0 || (then != NULL && postgres_do(then, world.dir) != 0));
}

enum { MANY = 200000 };
static request_t requests[MANY];

/* Writes for a while; returns how many requests there are now. */
static int write_for(int from, unsigned ms)
{
    uint64_t until = clock_monotonic_ms() + ms;
    int next = from;
    while (clock_monotonic_ms() < until && next < MANY) {
        for (int i = 0; i < 8 && store_queue_length(world.store) < 200 && next < MANY; i++, next++)
            insert(&requests[next], next);
        turn(1);
    }
    while (done_count < next)
        turn(10);
    return next;
}

static void on_ids(void *arg, const store_result_t *result, const err_t *err)
{
    cr_assert_null(err);
    bool *is_there = arg;
    for (size_t i = 0; i < result->row_count; i++)
        is_there[strtol(store_text_at(result, i, 0) + 1, NULL, 10)] = true;
}

/* Every answer was the truth, whichever it was. Returns how many were told that all is well. */
static int check_truth(int count)
{
    static bool is_there[MANY];
    auto_err err_t *e = NULL;
    int acknowledged = 0;
    wait_reachable(true);
    memset(is_there, 0, sizeof(is_there));
    cr_assert_eq(store_exec_wait(world.store, STORE_API_KEY_ALL, NULL, 0, on_ids, is_there, &e), 0, "%s",
                 err_message(e));
    for (int i = 0; i < count; i++) {
        enum err_code code = requests[i].code;
        cr_assert(code == ERR_NONE || code == ERR_DATABASE_UNAVAILABLE, "request %d: %s", i, err_code_name(code));
        cr_assert_eq(is_there[i], code == ERR_NONE, "request %d was answered %s and is %sthere", i, err_code_name(code),
                     is_there[i] ? "" : "not ");
        acknowledged += code == ERR_NONE;
    }
    return acknowledged;
}

TEST(kill_9_of_the_server_amid_commits_loses_and_invents_nothing)
{
    world_start(&STORE_POSTGRES);
    int count = 0, acknowledged = 0;
    for (unsigned round = 0; round < 5; round++) {
        in_background("crash", "start", 100000 + round * 37000);
        count = write_for(count, 600);
        int now = check_truth(count);
        cr_assert_gt(now, acknowledged);
        acknowledged = now;
        int status;
        while (wait(&status) > 0)
            cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the server did not come back");
    }
}

TEST(sessions_ended_amid_groups_lose_and_invent_nothing)
{
    world_start(&STORE_POSTGRES);
    pid_t killer = fork();
    if (killer == 0)
        for (;;) {
            ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE "
                "'emergent%'");
            usleep(15000);
        }
    int count = write_for(0, 4000);
    kill(killer, SIGKILL);
    waitpid(killer, NULL, 0);
    int acknowledged = check_truth(count);
    cr_assert_gt(acknowledged, count / 2, "most are done in spite of it: %d of %d", acknowledged, count);
}

/* ---- what is said, and what is not ---- */

static void expect_no_password(const char *text)
{
    cr_expect_null(strstr(text, "p@ss w0rd"), "%s", text);
    cr_expect_null(strstr(text, "p%40ss"), "%s", text);
    cr_expect_null(strstr(text, "wr0ng"), "%s", text);
}

TEST(no_error_tells_the_password)
{
    world_start(&STORE_POSTGRES);
    store_close(&world.store);
    static const char *const URLS[] = {
        "postgresql://gateway:wr0ng-%zz@/postgres?host=%s",           /* malformed */
        "postgresql://gateway:wr0ng@/postgres?host=%s",               /* refused */
        "postgresql://gateway:wr0ng@/postgres?host=%s&sslmode=wr0ng", /* an option's value is quoted by libpq */
    };
    for (size_t i = 0; i < COUNT_OF(URLS); i++) {
        auto_err err_t *e = NULL;
        char url[256];
        uint64_t began = clock_monotonic_ms();
        const char *hole = strstr(URLS[i], "%s");
        snprintf(url, sizeof(url), "%.*s%s%s", (int)(hole - URLS[i]), URLS[i], world.dir, hole + 2);
        cr_assert_null(store_open_postgres(world.base, url, &e));
        expect_no_password(err_message(e));
        cr_expect_lt(clock_monotonic_ms() - began, 15000);
    }
    world_open();
}

TEST(a_text_that_postgres_cannot_hold_is_refused_alone)
{
    world_start(&STORE_POSTGRES);
    auto_err err_t *e = NULL;
    request_t good;
    insert(&good, 1);
    store_value_t nul[] = {store_text("name"), {.kind = STORE_TEXT, .bytes = "a\0b", .len = 3}};
    cr_expect_neq(store_exec_wait(world.store, STORE_SETTING_ADD, nul, 2, NULL, NULL, &e), 0);
    cr_expect_eq(err_code(e), ERR_BAD_REQUEST);
    err_free(&e);
    store_value_t broken[] = {store_text("name"), store_text("\xff\xfe")};
    cr_expect_neq(store_exec_wait(world.store, STORE_SETTING_ADD, broken, 2, NULL, NULL, &e), 0);
    cr_expect_eq(err_code(e), ERR_BAD_REQUEST);
    cr_assert(turn_until(&good.is_done, 5000));
    cr_expect_eq(good.code, ERR_NONE);
}

TEST(a_row_that_another_session_locks_does_not_stop_the_store)
{
    world_start(&STORE_POSTGRES);
    request_t r;
    auto_err err_t *e = NULL;
    insert(&r, 1);
    cr_assert(turn_until(&r.is_done, 5000));
    PGconn *conn = PQconnectdb(world.where);
    PQclear(PQexec(conn, "BEGIN"));
    PQclear(PQexec(conn, "SELECT * FROM core.api_keys WHERE id = 'k1' FOR UPDATE"));
    store_value_t revoke[] = {store_text("k1"), store_int(5)};
    cr_expect_neq(store_exec_wait(world.store, STORE_API_KEY_REVOKE, revoke, 2, NULL, NULL, &e), 0);
    cr_expect_eq(err_code(e), ERR_DATABASE);
    insert(&r, 2);
    cr_expect(turn_until(&r.is_done, 5000));
    cr_expect_eq(r.code, ERR_NONE);
    PQfinish(conn);
}

/* Durable ones wait for the server's disk, batches do not, and neither follows a careless default. */
TEST(durable_ones_are_synchronous_whatever_the_servers_default_is)
{
    world_start(&STORE_POSTGRES);
    ask("ALTER ROLE gateway SET synchronous_commit TO off");
    store_close(&world.store);
    auto_err err_t *e = NULL;
    store_db_t *db = world.backend->open(world.where, &e);
    cr_assert_not_null(db, "%s", err_message(e));
    for (int is_durable = 0; is_durable < 2; is_durable++) {
        cr_assert_eq(world.backend->begin(db, is_durable, true, &e), 0, "%s", err_message(e));
        const char *check = is_durable ? "DO $$ BEGIN ASSERT current_setting('synchronous_commit') = 'on'; END $$"
                                       : "DO $$ BEGIN ASSERT current_setting('synchronous_commit') = 'off'; END $$";
        cr_assert_eq(world.backend->exec_text(db, check, &e), 0, "%s", err_message(e));
        cr_assert_eq(world.backend->commit(db, &e), STORE_COMMITTED);
    }
    world.backend->close(db);
    world_open();
}
