// SPDX-License-Identifier: Apache-2.0
#include "common/daemon.h"

#include "common/config_rows.h"
#include "common/file.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];
static daemon_t d;
static err_t *e;
static int exit_code;

static void start(void)
{
    for (size_t i = 0; config_row_at(i) != NULL; i++)
        unsetenv(config_row_at(i)->name);
    snprintf(dir, sizeof dir, "/tmp/ew-daemon-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    setenv("EW_STATE_DIR", dir, 1);
    setenv("LOG_LEVEL", "error", 1);
    e = NULL;
    exit_code = -1;
}

static void stop(void)
{
    err_free(&e);
    dir_remove(dir, &e);
}

TestSuite(daemon, .init = start, .fini = stop, .timeout = 20);

static int init(const char *argument)
{
    char *argv[] = {(char *)(uintptr_t) "gvisord", (char *)(uintptr_t)argument, NULL};
    return daemon_init(&d, "gvisord", CONFIG_GVISORD, argument ? 2 : 1, argv, &exit_code, &e);
}

static bool exists(const char *name)
{
    auto_free char *path = mem_printf("%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void send_term(evutil_socket_t fd, short events, void *arg)
{
    (void)fd, (void)events, (void)arg;
    cr_expect(exists("run/gvisord.pid"));
    kill(getpid(), SIGTERM);
}

Test(daemon, runs_until_sigterm_and_cleans_up)
{
    struct stat st;
    struct timeval soon = {.tv_usec = 1000};
    cr_assert_eq(init(NULL), 0, "%s", err_message(e));
    cr_assert_eq(strlen(d.instance), 32);
    cr_assert_eq(stat(d.state_dir, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0700);
    event_base_once(d.base, -1, EV_TIMEOUT, send_term, NULL, &soon);
    daemon_run(&d);
    cr_assert_not(exists("run/gvisord.pid"));
    daemon_free(&d);
    daemon_free(&d);
}

Test(daemon, stopping_before_the_loop_runs_works)
{
    cr_assert_eq(init(NULL), 0);
    daemon_stop(&d);
    daemon_run(&d);
    daemon_free(&d);
}

Test(daemon, a_second_one_on_the_same_state_is_refused)
{
    daemon_t second;
    char *argv[] = {(char *)(uintptr_t) "gvisord", NULL};
    cr_assert_eq(init(NULL), 0);
    cr_assert_eq(daemon_init(&second, "gvisord", CONFIG_GVISORD, 1, argv, &exit_code, &e), -1);
    cr_assert_eq(err_code(e), ERR_CONFLICT);
    auto_free char *pid = mem_printf("pid %d", (int)getpid());
    cr_assert_not_null(strstr(err_message(e), pid), "%s", err_message(e));
    err_free(&e);
    daemon_free(&d);
    cr_assert_eq(init(NULL), 0, "the lock went with the first: %s", err_message(e));
    daemon_free(&d);
}

Test(daemon, an_open_run_directory_is_refused)
{
    auto_free char *run = mem_printf("%s/run", dir);
    cr_assert_eq(mkdir(run, 0700), 0);
    cr_assert_eq(chmod(run, 0755), 0);
    cr_assert_eq(init(NULL), -1);
    cr_assert_not_null(strstr(err_message(e), "EW_RUN_DIR"));
    cr_assert_not_null(strstr(err_message(e), "0700"));
}

Test(daemon, a_bad_configuration_is_told)
{
    setenv("LOG_LEVEL", "loud", 1);
    cr_assert_eq(init(NULL), -1);
    cr_assert_not_null(strstr(err_message(e), "LOG_LEVEL"));
}

Test(daemon, options_end_with_their_exit_code)
{
    static const struct {
        const char *option;
        int exit_code;
    } rows[] = {{"--check", 0},   {"--print-config", 0}, {"--config-reference", 0},
                {"--version", 0}, {"--help", 0},         {"--what", 2}};
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        cr_expect_eq(init(rows[i].option), 1);
        cr_expect_eq(exit_code, rows[i].exit_code, "%s", rows[i].option);
    }
    setenv("LOG_LEVEL", "loud", 1);
    cr_expect_eq(init("--check"), 1);
    cr_expect_eq(exit_code, 2);
    cr_expect_not(exists("gvisord"), "nothing was made");
}

Test(daemon, the_cpu_set_is_taken_or_refused)
{
    static const char *const bad[] = {"x", "0-", "-1", "1-0", "0,", ",0", "0,,0", "99999", "0-9999999999999999999999",
                                      " 0"};
    cpu_set_t set;
    setenv("EW_CPU_SET", "0", 1);
    cr_assert_eq(init(NULL), 0, "%s", err_message(e));
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    cr_assert(CPU_COUNT(&set) == 1 && CPU_ISSET(0, &set));
    daemon_free(&d);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        setenv("EW_CPU_SET", bad[i], 1);
        cr_expect_eq(init(NULL), -1, "%s", bad[i]);
        cr_expect_not_null(strstr(err_message(e), "EW_CPU_SET"));
        err_free(&e);
    }
}

Test(daemon, endpoints_default_to_the_socket_in_the_run_directory)
{
    cr_assert_eq(init(NULL), 0);
    auto_free char *expected = mem_printf("ipc://%s/run/gateway.fabric", dir);
    auto_free char *endpoints = daemon_gateway_endpoints(&d);
    cr_assert_str_eq(endpoints, expected);
    daemon_free(&d);
    setenv("EW_GATEWAY_ENDPOINTS", "tcp://a:1,tcp://b:1", 1);
    cr_assert_eq(init(NULL), 0);
    auto_free char *given = daemon_gateway_endpoints(&d);
    cr_assert_str_eq(given, "tcp://a:1,tcp://b:1");
    daemon_free(&d);
}
