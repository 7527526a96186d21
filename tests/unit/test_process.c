// SPDX-License-Identifier: Apache-2.0
#include "common/mem.h"
#include "common/process.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(process, .timeout = 20);

typedef struct seen {
    struct event_base *base;
    int done_count;
    int exit_code;
    bool is_timed_out, is_truncated;
    char *output;
    size_t output_len;
    uint32_t duration_ms;
} seen_t;

static void on_done(void *arg, const process_result_t *r)
{
    seen_t *seen = arg;
    seen->done_count++;
    seen->exit_code = r->exit_code;
    seen->is_timed_out = r->is_timed_out;
    seen->is_truncated = r->is_truncated;
    seen->output = mem_strndup(r->output, r->output_len);
    seen->output_len = r->output_len;
    seen->duration_ms = r->duration_ms;
    event_base_loopbreak(seen->base);
}

static process_options_t options_of(const char *const *argv)
{
    return (process_options_t){.argv = argv,
                               .fd_stdin = -1,
                               .fd_stdout = -1,
                               .fd_stderr = -1,
                               .netns_fd = -1,
                               .timeout_ms = 10000,
                               .output_max = 1 << 20};
}

/* Runs it to its end; free output. */
static seen_t run(const process_options_t *o)
{
    auto_err err_t *e = NULL;
    seen_t seen = {.base = event_base_new()};
    process_t *p = process_start(seen.base, o, on_done, &seen, &e);
    cr_assert(p != NULL, "%s", e ? err_message(e) : "");
    event_base_dispatch(seen.base);
    event_base_free(seen.base);
    cr_assert_eq(seen.done_count, 1);
    return seen;
}

static seen_t run_shell(const char *script)
{
    const char *argv[] = {"sh", "-c", script, NULL};
    process_options_t o = options_of(argv);
    return run(&o);
}

Test(process, gives_exit_code_and_output_of_both_streams_in_order)
{
    seen_t seen = run_shell("echo one; echo two >&2; echo three; exit 7");
    cr_assert_eq(seen.exit_code, 7);
    cr_assert_str_eq(seen.output, "one\ntwo\nthree\n");
    cr_assert(!seen.is_timed_out && !seen.is_truncated);
    free(seen.output);
}

Test(process, says_128_plus_n_for_a_signal)
{
    seen_t seen = run_shell("kill -9 $$");
    cr_assert_eq(seen.exit_code, 128 + 9);
    free(seen.output);
}

static err_t *start_error(const process_options_t *o)
{
    err_t *e = NULL;
    struct event_base *base = event_base_new();
    process_t *p = process_start(base, o, on_done, NULL, &e);
    cr_assert_null(p);
    cr_assert_not_null(e);
    event_base_free(base);
    return e;
}

Test(process, names_a_program_that_is_not_there)
{
    const char *argv[] = {"no-such-program-anywhere", NULL};
    process_options_t o = options_of(argv);
    auto_err err_t *e = start_error(&o);
    cr_assert_eq(err_code(e), ERR_NOT_FOUND);
    cr_assert(strstr(err_message(e), "no-such-program-anywhere"));
}

Test(process, tells_which_step_failed_and_leaves_no_child)
{
    const char *argv[] = {"/dev/null", NULL};
    process_options_t o = options_of(argv);
    auto_err err_t *e = start_error(&o);
    cr_assert(strstr(err_message(e), "execute"), "%s", err_message(e));
    const char *argv2[] = {"true", NULL};
    o = options_of(argv2);
    o.workdir = "/no/such/dir";
    auto_err err_t *e2 = start_error(&o);
    cr_assert(strstr(err_message(e2), "working directory"), "%s", err_message(e2));
    o = options_of(argv2);
    o.cgroup_procs[0] = "/no/such/cgroup.procs";
    auto_err err_t *e3 = start_error(&o);
    cr_assert(strstr(err_message(e3), "cgroup"), "%s", err_message(e3));
    cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1);
}

Test(process, keeps_output_up_to_the_limit_and_drains_the_rest)
{
    const char *argv[] = {"sh", "-c", "head -c 3000000 /dev/zero; echo end", NULL};
    process_options_t o = options_of(argv);
    o.output_max = 1000;
    seen_t seen = run(&o);
    cr_assert_eq(seen.exit_code, 0);
    cr_assert_eq(seen.output_len, 1000);
    cr_assert(seen.is_truncated);
    free(seen.output);
}

Test(process, term_at_the_deadline_ends_the_group)
{
    const char *argv[] = {"sh", "-c", "sleep 60 & sleep 60", NULL};
    process_options_t o = options_of(argv);
    o.timeout_ms = 100;
    seen_t seen = run(&o);
    cr_assert(seen.is_timed_out);
    cr_assert_eq(seen.exit_code, 128 + SIGTERM);
    cr_assert_lt(seen.duration_ms, 1500);
    free(seen.output);
}

Test(process, kill_follows_two_seconds_after_an_ignored_term)
{
    const char *argv[] = {"sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", NULL};
    process_options_t o = options_of(argv);
    o.timeout_ms = 100;
    seen_t seen = run(&o);
    cr_assert(seen.is_timed_out);
    cr_assert_eq(seen.exit_code, 128 + SIGKILL);
    cr_assert(seen.duration_ms >= 2000 && seen.duration_ms < 4000);
    free(seen.output);
}

Test(process, does_not_wait_for_what_runs_on_in_the_background)
{
    seen_t seen = run_shell("sleep 5 & echo started");
    cr_assert_str_eq(seen.output, "started\n");
    cr_assert_lt(seen.duration_ms, 2000);
    free(seen.output);
}

Test(process, child_has_clean_signals_own_group_and_only_three_descriptors)
{
    signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int leak = open("/dev/null", O_RDONLY); /* no CLOEXEC */
    cr_assert_geq(leak, 0);
    seen_t seen = run_shell("grep -E 'SigBlk|SigIgn' /proc/self/status; ls /proc/self/fd | wc -l; "
                            "set -- $(cat /proc/$$/stat); [ $5 = $$ ] && echo own group");
    cr_assert_str_eq(seen.output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n4\nown group\n");
    close(leak);
    free(seen.output);
}

Test(process, gives_stdin_and_takes_the_streams_apart)
{
    int in[2], out[2];
    char text[64] = {0};
    cr_assert_eq(pipe2(in, O_CLOEXEC) + pipe2(out, O_CLOEXEC), 0);
    cr_assert_eq(write(in[1], "hello", 5), 5);
    close(in[1]);
    const char *argv[] = {"sh", "-c", "cat; echo problem >&2", NULL};
    process_options_t o = options_of(argv);
    o.fd_stdin = in[0];
    o.fd_stdout = out[1];
    seen_t seen = run(&o);
    cr_assert_str_eq(seen.output, "problem\n");
    cr_assert_eq(read(out[0], text, sizeof text - 1), 5);
    cr_assert_str_eq(text, "hello");
    free(seen.output);
}

Test(process, works_when_the_daemons_own_streams_are_closed)
{
    int out[2];
    char text[64] = {0};
    cr_assert_eq(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int result = fcntl(out[1], F_DUPFD_CLOEXEC, 50);
        close(0);
        close(1);
        close(2);
        seen_t seen = run_shell("echo fine");
        if (write(result, seen.output, seen.output_len) < 0)
            _exit(1);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    cr_assert_eq(read(out[0], text, sizeof text - 1), 5);
    cr_assert_str_eq(text, "fine\n");
}

Test(process, takes_environment_and_working_directory)
{
    const char *argv[] = {"sh", "-c", "echo $A; pwd", NULL};
    const char *env[] = {"A=b", "PATH=/usr/bin:/bin", NULL};
    process_options_t o = options_of(argv);
    o.env = env;
    o.workdir = "/usr";
    seen_t seen = run(&o);
    cr_assert_str_eq(seen.output, "b\n/usr\n");
    free(seen.output);
}

Test(process, cancel_kills_and_reaps_without_calling_done)
{
    auto_err err_t *e = NULL;
    seen_t seen = {.base = event_base_new()};
    const char *argv[] = {"sleep", "60", NULL};
    process_options_t o = options_of(argv);
    process_t *p = process_start(seen.base, &o, on_done, &seen, &e);
    cr_assert_not_null(p);
    pid_t pid = process_pid(p);
    process_cancel(&p);
    cr_assert_null(p);
    event_base_dispatch(seen.base); /* ends when nothing is left to watch */
    cr_assert_eq(seen.done_count, 0);
    cr_assert_eq(kill(pid, 0), -1);
    event_base_free(seen.base);
}

Test(process, tells_a_subreaper_which_children_to_leave_alone)
{
    auto_err err_t *e = NULL;
    seen_t seen = {.base = event_base_new()};
    const char *argv[] = {"sh", "-c", "exit 7", NULL}, *long_argv[] = {"sleep", "60", NULL};
    process_options_t o = options_of(argv), long_o = options_of(long_argv);
    process_t *p = process_start(seen.base, &o, on_done, &seen, &e);
    process_t *cancelled = process_start(seen.base, &long_o, on_done, &seen, &e);
    cr_assert(p != NULL && cancelled != NULL);
    pid_t pids[2] = {process_pid(p), process_pid(cancelled)};
    cr_expect(process_reaps(pids[0]) && process_reaps(pids[1]));
    cr_expect_not(process_reaps(getpid()));
    process_cancel(&cancelled);
    cr_expect(process_reaps(pids[1]), "it is cancelled, not reaped");
    event_base_dispatch(seen.base); /* until the first is done */
    event_base_dispatch(seen.base);
    cr_expect_eq(seen.exit_code, 7);
    cr_expect_not(process_reaps(pids[0]));
    cr_expect_not(process_reaps(pids[1]));
    free(seen.output);
    event_base_free(seen.base);
}

Test(process, enters_a_network_namespace_and_masks_net_core_there_only)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    int old = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (unshare(CLONE_NEWNET) < 0)
        cr_skip_test("no network namespaces here");
    int fresh = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(setns(old, CLONE_NEWNET), 0);
    const char *argv[] = {"sh", "-c", "grep -c : /proc/net/dev; ls /proc/sys/net/core | wc -l", NULL};
    process_options_t o = options_of(argv);
    o.netns_fd = fresh;
    o.mask_proc_sys_net_core = true;
    seen_t seen = run(&o);
    cr_assert_eq(seen.exit_code, 0, "%s", seen.output);
    cr_assert(strstr(seen.output, "\n0\n"), "%s", seen.output);
    cr_assert_eq(access("/proc/sys/net/core/somaxconn", F_OK), 0);
    close(old);
    close(fresh);
    free(seen.output);
}

Test(process, joins_cgroups_before_it_runs)
{
    char text[32] = {0};
    char path[] = "/tmp/process-cgroup-XXXXXX";
    int fd = mkstemp(path); /* any file: what counts is that "0" is written to it */
    const char *argv[] = {"true", NULL};
    process_options_t o = options_of(argv);
    o.cgroup_procs[0] = path;
    seen_t seen = run(&o);
    cr_assert_eq(pread(fd, text, sizeof text, 0), 1);
    cr_assert_str_eq(text, "0");
    close(fd);
    unlink(path);
    free(seen.output);
}

typedef struct gone_seen {
    struct event_base *base;
    int count, status;
} gone_seen_t;

static void on_gone(void *arg, int wait_status)
{
    gone_seen_t *seen = arg;
    seen->count++;
    seen->status = wait_status;
    event_base_loopbreak(seen->base);
}

Test(process, watches_a_child_and_reaps_it)
{
    auto_err err_t *e = NULL;
    gone_seen_t seen = {.base = event_base_new()};
    pid_t pid = fork();
    if (pid == 0)
        _exit(3);
    pid_watch_t *w = pid_watch_new(seen.base, pid, on_gone, &seen, &e);
    cr_assert_not_null(w);
    event_base_dispatch(seen.base);
    cr_assert_eq(seen.count, 1);
    cr_assert(WIFEXITED(seen.status) && WEXITSTATUS(seen.status) == 3);
    pid_watch_destroy(&w);
    event_base_free(seen.base);
}

Test(process, watches_one_that_is_no_child)
{
    auto_err err_t *e = NULL;
    gone_seen_t seen = {.base = event_base_new()};
    int fds[2];
    pid_t pid = 0;
    cr_assert_eq(pipe(fds), 0);
    if (fork() == 0) { /* its child is re-parented away from us */
        pid_t grandchild = fork();
        if (grandchild == 0) {
            usleep(200000);
            _exit(0);
        }
        _exit(write(fds[1], &grandchild, sizeof grandchild) < 0);
    }
    cr_assert_eq(read(fds[0], &pid, sizeof pid), sizeof pid);
    wait(NULL);
    pid_watch_t *w = pid_watch_new(seen.base, pid, on_gone, &seen, &e);
    cr_assert_not_null(w);
    event_base_dispatch(seen.base);
    cr_assert_eq(seen.count, 1);
    cr_assert_eq(seen.status, -1);
    pid_watch_destroy(&w);
    event_base_free(seen.base);
}

Test(process, cannot_watch_one_that_is_gone)
{
    auto_err err_t *e = NULL;
    struct event_base *base = event_base_new();
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    cr_assert_null(pid_watch_new(base, pid, on_gone, NULL, &e));
    cr_assert_eq(err_code(e), ERR_NOT_FOUND);
    event_base_free(base);
}
