// SPDX-License-Identifier: Apache-2.0
/* ew-init, the program itself: starts again what dies, takes new binaries, reaps orphans, ends what it runs. */
#include "common/buf.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 15000
#define STEP_MS 10

typedef struct world {
    char dir[64];
    char *pids; /* the program adds its pid to this file, a line for each start */
    pid_t init;
} world_t;

static char *init_path(void)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    cr_assert_gt(n, 0);
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    *slash = '\0';
    return mem_printf("%s/../bin/ew-init", self);
}

static void begin(world_t *w)
{
    snprintf(w->dir, sizeof w->dir, "/tmp/ew-init-test-XXXXXX");
    cr_assert_not_null(mkdtemp(w->dir));
    w->pids = mem_printf("%s/pids", w->dir);
}

static void end(world_t *w)
{
    auto_err err_t *e = NULL;
    cr_expect_eq(dir_remove(w->dir, &e), 0);
    free(w->pids);
}

static void run_with(world_t *w, const char *option, const char *seconds, const char *script)
{
    auto_free char *path = init_path();
    const char *argv[] = {path, option, "--stop-seconds", seconds, "--", "/bin/sh", "-c", script, "sh", w->pids, NULL};
    const char *const *from = argv;
    if (!option) { /* the name takes its place */
        argv[1] = path;
        from = argv + 1;
    }
    w->init = fork();
    if (w->init == 0) {
        int null = open("/dev/null", O_WRONLY);
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* a test that fails leaves nothing behind */
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execv(path, (char *const *)(uintptr_t)from);
        _exit(126);
    }
    cr_assert_gt(w->init, 0);
}

static void run(world_t *w, const char *seconds, const char *script)
{
    run_with(w, NULL, seconds, script);
}

/* Pids that the file holds; waits until there are `count`. */
static void wait_pids(const world_t *w, size_t count, pid_t *pids)
{
    for (uint64_t until = clock_monotonic_ms() + WAIT_MS; clock_monotonic_ms() < until; usleep(STEP_MS * 1000)) {
        auto_buf buf_t text = {0};
        auto_err err_t *e = NULL;
        if (file_read(w->pids, 4096, &text, &e) != 0)
            continue;
        size_t found = 0;
        for (const char *at = buf_cstr(&text); found < count && sscanf(at, "%d", &pids[found]) == 1; found++) {
            at = strchr(at, '\n');
            if (at == NULL)
                break;
            at++;
        }
        if (found == count)
            return;
    }
    cr_assert_fail("the program was not started %zu times", count);
}

static int wait_end(const world_t *w)
{
    int status;
    for (uint64_t until = clock_monotonic_ms() + WAIT_MS; clock_monotonic_ms() < until; usleep(STEP_MS * 1000))
        if (waitpid(w->init, &status, WNOHANG) == w->init)
            return status;
    kill(w->init, SIGKILL);
    waitpid(w->init, &status, 0);
    cr_assert_fail("ew-init did not end");
    return -1;
}

static void wait_gone(pid_t pid)
{
    for (uint64_t until = clock_monotonic_ms() + WAIT_MS; clock_monotonic_ms() < until; usleep(STEP_MS * 1000))
        if (kill(pid, 0) < 0 && errno == ESRCH) /* a zombie would still be there */
            return;
    cr_assert_fail("process %d is still there", (int)pid);
}

Test(ew_init, starts_again_what_was_killed)
{
    world_t w;
    pid_t pids[3];
    begin(&w);
    run(&w, "5", "echo $$ >> \"$1\"; exec sleep 60");
    for (size_t i = 0; i < 3; i++) {
        wait_pids(&w, i + 1, pids);
        if (i < 2)
            kill(pids[i], SIGKILL);
    }
    cr_expect_neq(pids[0], pids[2]);
    kill(w.init, SIGTERM);
    int status = wait_end(&w);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    wait_gone(pids[2]);
    end(&w);
}

Test(ew_init, orphans_of_a_killed_daemon_live_on_and_are_reaped)
{
    world_t w;
    pid_t pids[3];
    begin(&w);
    run(&w, "5", "[ -s \"$1\" ] || { sleep 60 & echo $! >> \"$1\"; }; echo $$ >> \"$1\"; exec sleep 61");
    wait_pids(&w, 2, pids);
    kill(pids[1], SIGKILL);
    wait_pids(&w, 3, pids);
    cr_expect_eq(kill(pids[0], 0), 0, "what the daemon left runs on");
    kill(pids[0], SIGKILL);
    wait_gone(pids[0]);
    kill(w.init, SIGINT);
    wait_end(&w);
    end(&w);
}

Test(ew_init, hangup_takes_the_program_anew)
{
    world_t w;
    pid_t pids[2];
    begin(&w);
    run(&w, "5", "echo $$ >> \"$1\"; exec sleep 60");
    wait_pids(&w, 1, pids);
    uint64_t asked = clock_monotonic_ms();
    kill(w.init, SIGHUP);
    wait_pids(&w, 2, pids);
    cr_expect_lt(clock_monotonic_ms() - asked, WAIT_MS / 2);
    wait_gone(pids[0]);
    kill(w.init, SIGTERM);
    wait_end(&w);
    end(&w);
}

Test(ew_init, a_program_that_ignores_term_is_killed_in_the_end)
{
    world_t w;
    pid_t pids[1];
    begin(&w);
    run(&w, "1", "trap '' TERM; echo $$ >> \"$1\"; while :; do sleep 60; done");
    wait_pids(&w, 1, pids);
    kill(w.init, SIGTERM);
    int status = wait_end(&w);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    wait_gone(pids[0]);
    end(&w);
}

Test(ew_init, with_drain_the_daemon_is_told_to_stop_everything_first)
{
    world_t w;
    pid_t pids[2];
    begin(&w);
    run_with(&w, "--drain", "10",
             "trap 'echo 1 >> \"$1\"; exit 0' USR2; echo $$ >> \"$1\"; while :; do sleep 0.1; done");
    wait_pids(&w, 1, pids);
    kill(w.init, SIGTERM);
    int status = wait_end(&w);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    wait_pids(&w, 2, pids);
    cr_expect_eq(pids[1], 1, "it got SIGUSR2 and not SIGTERM");
    end(&w);
}

Test(ew_init, a_first_start_that_fails_ends_with_its_status)
{
    world_t w;
    begin(&w);
    run(&w, "1", "exit 3");
    int status = wait_end(&w);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    end(&w);
}

Test(ew_init, bad_options_are_told)
{
    static const char *const BAD[][4] = {{"--stop-seconds", "x", "true", NULL}, {"--", NULL}, {"--what", NULL}};
    for (size_t i = 0; i < COUNT_OF(BAD); i++) {
        auto_free char *path = init_path();
        pid_t pid = fork();
        if (pid == 0) {
            const char *argv[6] = {path};
            for (size_t a = 0; a < 4; a++)
                argv[a + 1] = BAD[i][a];
            dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
            execv(path, (char *const *)(uintptr_t)argv);
            _exit(126);
        }
        int status;
        waitpid(pid, &status, 0);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 2, "row %zu", i);
    }
}
