// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/agent_client.c
/* bash of the real agent: S-039 … S-043, environment, users, streaming, background, and that nothing of a command
 * survives its end. */
#include "common/clock.h"
#include "common/mem.h"
#include "tests/unit/agent_client.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(agent_bash, .timeout = 60);

#define TREE_DEATH_MS 8000 /* 5 s of grace and some */

static agent_client_t *start(void)
{
    return agent_client_start(&(agent_client_options_t){0});
}

static struct bash_reply run(agent_client_t *c, const struct bash_request *request)
{
    struct bash_reply reply;
    agent_result_reply(agent_client_call(c, VERB_bash, request), &reply);
    return reply;
}

static struct bash_reply sh(agent_client_t *c, const char *command)
{
    return run(c, &(struct bash_request){.command = command});
}

static bool is_text(proto_bytes_t bytes, const char *text)
{
    return bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

Test(agent_bash, returns_stdout_stderr_and_exit_code)
{
    agent_client_t *c = start();
    struct bash_reply r = sh(c, "echo out; echo err >&2; exit 3");
    cr_assert(is_text(r.stdout, "out\n"));
    cr_assert(is_text(r.stderr, "err\n"));
    cr_assert_eq(r.exit_code, 3);
    cr_assert(!r.timed_out && !r.truncated);
    cr_assert_eq(r.stdout_total_bytes, 4);
    cr_assert_eq(r.process_id, 0);
    agent_client_stop(&c);
}

Test(agent_bash, names_the_signal_that_ended_the_shell)
{
    agent_client_t *c = start();
    struct bash_reply r = sh(c, "kill -SEGV $$");
    cr_assert_eq(r.exit_code, 128 + SIGSEGV);
    cr_assert_str_eq(r.signal, "SIGSEGV");
    agent_client_stop(&c);
}

Test(agent_bash, starts_in_the_workspace_or_in_workdir)
{
    agent_client_t *c = start();
    char expected[160];
    snprintf(expected, sizeof expected, "%s\n", c->workspace);
    cr_assert(is_text(sh(c, "pwd").stdout, expected));
    cr_assert(is_text(run(c, &(struct bash_request){.command = "pwd", .workdir = "/usr"}).stdout, "/usr\n"));
    sh(c, "mkdir sub");
    snprintf(expected, sizeof expected, "%s/sub\n", c->workspace);
    cr_assert(is_text(run(c, &(struct bash_request){.command = "pwd", .workdir = "sub"}).stdout, expected));
    agent_client_stop(&c);
}

static const struct refusal_row {
    const char *what;
    struct bash_request request;
    const char *code;
    const char *in_message;
} refusals[] = {
    {"missing workdir", {.command = "true", .workdir = "/no/such/dir"}, "bad_request", "/no/such/dir"},
    {"workdir is a file", {.command = "true", .workdir = "/etc/passwd"}, "bad_request", "/etc/passwd"},
    {"unknown user", {.command = "true", .user = "no-such-user"}, "bad_request", "no-such-user"},
    {"bad uid", {.command = "true", .user = "12x"}, "bad_request", "12x"},
    {"too large uid", {.command = "true", .user = "99999999999"}, "bad_request", "99999999999"},
    {"bad gid", {.command = "true", .user = "0:-1"}, "bad_request", "0:-1"},
};

Test(agent_bash, refuses_what_it_cannot_do_by_name)
{
    agent_client_t *c = start();
    for (size_t i = 0; i < COUNT_OF(refusals); i++) {
        agent_result_t *r = agent_client_call(c, VERB_bash, &refusals[i].request);
        cr_assert(r->is_error, "%s", refusals[i].what);
        cr_assert_str_eq(r->code, refusals[i].code, "%s: %s", refusals[i].what, r->code);
        cr_assert(strstr(r->message, refusals[i].in_message) != NULL, "%s: %s", refusals[i].what, r->message);
    }
    agent_client_stop(&c);
}

Test(agent_bash, has_a_clean_environment)
{
    static const char *const extra[] = {"FROM_SPEC=yes", "LANG=de_DE.UTF-8", "HOME=/wrong", NULL};
    agent_client_t *c = agent_client_start(&(agent_client_options_t){.env = extra});
    auto_buf buf_t map = {0};
    proto_list_add_str(&map, "FROM_CALL");
    proto_list_add_str(&map, "a b\"$c");
    proto_list_add_str(&map, "TERM");
    proto_list_add_str(&map, "vt52");
    struct bash_request request = {
        .command = "echo \"$FROM_SPEC|$LANG|$HOME|$USER|$LOGNAME|$TERM|$FROM_CALL|$AGENT_WORKSPACE|$AGENT_CGROUP\"",
        .env = proto_list_of(2, &map),
    };
    struct bash_reply r = run(c, &request);
    cr_assert(is_text(r.stdout, "yes|de_DE.UTF-8|/root|root|root|vt52|a b\"$c||\n"), "%.*s", (int)r.stdout.len,
              (const char *)r.stdout.data);
    agent_client_stop(&c);
}

Test(agent_bash, refuses_a_variable_without_a_name)
{
    agent_client_t *c = start();
    auto_buf buf_t map = {0};
    proto_list_add_str(&map, "A=B");
    proto_list_add_str(&map, "x");
    agent_result_t *r =
        agent_client_call(c, VERB_bash, &(struct bash_request){.command = "true", .env = proto_list_of(1, &map)});
    cr_assert_str_eq(r->code, "bad_request");
    agent_client_stop(&c);
}

Test(agent_bash, children_get_only_three_descriptors_no_privileges_and_default_signals)
{
    agent_client_t *c = start();
    struct bash_reply r =
        sh(c, "ls /proc/self/fd | wc -l; grep -E 'NoNewPrivs|SigIgn|SigBlk|CapInh' /proc/self/status | tr -d '\\t'; "
              "cat /proc/self/fd/0 | wc -c; ulimit -c >/dev/null; tty");
    const char *text = r.stdout.data;
    /* ls itself has one more open: the directory. */
    cr_assert(strncmp(text, "4\n", 2) == 0, "%.*s", (int)r.stdout.len, text);
    cr_assert(memmem(text, r.stdout.len, "NoNewPrivs:1", 12) != NULL);
    cr_assert(memmem(text, r.stdout.len, "SigIgn:0000000000000000", 23) != NULL, "%.*s", (int)r.stdout.len, text);
    cr_assert(memmem(text, r.stdout.len, "SigBlk:0000000000000000", 23) != NULL, "%.*s", (int)r.stdout.len, text);
    cr_assert(memmem(text, r.stdout.len, "CapInh:0000000000000000", 23) != NULL, "%.*s", (int)r.stdout.len, text);
    cr_assert(memmem(text, r.stdout.len, "not a tty", 9) != NULL);
    agent_client_stop(&c);
}

Test(agent_bash, children_lose_the_capabilities_of_pid_1)
{
    agent_client_t *c = start();
    struct bash_reply r = sh(c, "grep CapBnd /proc/self/status");
    unsigned long long set = strtoull((const char *)r.stdout.data + strlen("CapBnd:\t"), NULL, 16);
    cr_assert_eq(set & (1ULL << 21 | 1ULL << 8 | 1ULL << 27 | 1ULL << 19), 0, "%llx",
                 set);  /* SYS_ADMIN SETPCAP MKNOD PTRACE */
    cr_assert(set & 1); /* CHOWN */
    agent_client_stop(&c);
}

Test(agent_bash, runs_as_another_user)
{
    agent_client_t *c = start();
    cr_assert(is_text(
        run(c, &(struct bash_request){.command = "id -un; id -u; echo $HOME $USER", .user = "nobody", .workdir = "/"})
            .stdout,
        "nobody\n65534\n/nonexistent nobody\n"));
    cr_assert(is_text(
        run(c,
            &(struct bash_request){.command = "id -u; id -g; id -G; echo $HOME", .user = "4242:4343", .workdir = "/"})
            .stdout,
        "4242\n4343\n4343\n/\n"));
    agent_client_stop(&c);
}

Test(agent_bash, gives_stdin_of_any_size_and_then_its_end)
{
    agent_client_t *c = start();
    size_t len = 5 * 1024 * 1024;
    auto_free char *bytes = mem_alloc(len);
    memset(bytes, 'x', len);
    struct bash_reply r = run(c, &(struct bash_request){.command = "wc -c", .stdin = {bytes, len}, .has.stdin = true});
    cr_assert(is_text(r.stdout, "5242880\n"));
    /* One that does not read it is no error. */
    r = run(c, &(struct bash_request){.command = "exec true", .stdin = {bytes, len}, .has.stdin = true});
    cr_assert_eq(r.exit_code, 0);
    agent_client_stop(&c);
}

Test(agent_bash, cuts_at_50_kb_on_a_character_and_tells_the_total)
{
    agent_client_t *c = start();
    /* 2-byte characters behind one byte: 51200 falls into the middle of one. */
    struct bash_reply r =
        sh(c, "printf x; for i in $(seq 3000); do printf '\\303\\244\\303\\244\\303\\244\\303\\244\\303\\244"
              "\\303\\244\\303\\244\\303\\244\\303\\244\\303\\244'; done");
    cr_assert_eq(r.stdout.len, 51199);
    cr_assert(r.truncated);
    cr_assert_eq(r.stdout_total_bytes, 60001);
    r = sh(c, "head -c 60000 /dev/zero | tr '\\0' '\\377' >&2");
    cr_assert_eq(r.stderr.len, 51200);
    cr_assert_eq(((const uint8_t *)r.stderr.data)[51199], 0xff);
    cr_assert(r.truncated);
    cr_assert_eq(r.stderr_total_bytes, 60000);
    r = sh(c, "head -c 51200 /dev/zero");
    cr_assert(!r.truncated && r.stdout.len == 51200);
    agent_client_stop(&c);
}

Test(agent_bash, survives_very_much_output)
{
    agent_client_t *c = start();
    struct bash_reply r = sh(c, "head -c 300000000 /dev/zero");
    cr_assert_eq(r.stdout_total_bytes, 300000000);
    cr_assert_eq(r.stdout.len, 51200);
    agent_client_stop(&c);
}

/* ---- deadlines ---- */

static size_t count_marked(const char *mark)
{
    char path[300], text[4096];
    size_t count = 0;
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        FILE *f = fopen(path, "r");
        size_t n = f != NULL ? fread(text, 1, sizeof text, f) : 0;
        if (f != NULL)
            fclose(f);
        count += n > 0 && memmem(text, n, mark, strlen(mark)) != NULL;
    }
    closedir(dir);
    return count;
}

/* $1 is a duration no one else sleeps. Ignores TERM, forks twice into its own session, and once more without its
 * environment. */
#define STUBBORN                                                                            \
    "trap '' TERM; printf partial; (setsid sh -c \"trap '' TERM; sleep %1$d & wait\" &) ; " \
    "(setsid sh -c \"trap '' TERM; sleep %1$d; sleep %1$d\" &); sleep %1$d & wait; sleep %1$d"

static void timeout_kills_all(const char *cgroup)
{
    agent_client_t *c = agent_client_start(&(agent_client_options_t){.cgroup = cgroup});
    char command[600], mark[32];
    int seconds = 70000 + getpid();
    snprintf(command, sizeof command, STUBBORN, seconds);
    snprintf(mark, sizeof mark, "%d", seconds);
    cr_assert_str_eq(c->adopt.kill_tree, cgroup ? "cgroup" : "best_effort");
    uint64_t begin = clock_monotonic_ms();
    struct bash_reply r = run(c, &(struct bash_request){.command = command, .timeout_ms = 500});
    uint64_t took = clock_monotonic_ms() - begin;
    cr_assert(r.timed_out);
    cr_assert_eq(r.exit_code, -1);
    cr_assert(is_text(r.stdout, "partial"));
    cr_assert(is_text(r.stderr, "command timed out after 500ms"));
    cr_assert_eq(r.stderr_total_bytes, 0);
    cr_assert(took >= 5400 && took < TREE_DEATH_MS, "%llu", (unsigned long long)took);
    cr_assert_eq(count_marked(mark), 0);
    agent_client_stop(&c);
}

static bool cgroup_make(char *path, size_t size)
{
    snprintf(path, size, "/sys/fs/cgroup/pids/ew-test-%d", getpid());
    return mkdir(path, 0700) == 0;
}

Test(agent_bash, deadline_kills_double_forks_that_ignore_term_in_a_cgroup)
{
    char path[64];
    if (!cgroup_make(path, sizeof path))
        cr_skip_test("no writable pids cgroup here");
    timeout_kills_all(path);
    cr_assert_eq(rmdir(path), 0, "a tree's cgroup was left");
}

Test(agent_bash, deadline_kills_the_same_by_best_effort)
{
    timeout_kills_all(NULL);
}

Test(agent_bash, deadline_kills_a_process_without_its_environment_in_a_cgroup)
{
    char path[64], command[200], mark[32];
    if (!cgroup_make(path, sizeof path))
        cr_skip_test("no writable pids cgroup here");
    agent_client_t *c = agent_client_start(&(agent_client_options_t){.cgroup = path});
    int seconds = 80000 + getpid();
    snprintf(command, sizeof command, "(env -i setsid setsid sleep %d &) ; sleep 100", seconds);
    snprintf(mark, sizeof mark, "%d", seconds);
    struct bash_reply r = run(c, &(struct bash_request){.command = command, .timeout_ms = 300});
    cr_assert(r.timed_out);
    cr_assert_lt(r.duration_ms, 2000, "TERM was enough");
    cr_assert_eq(count_marked(mark), 0);
    agent_client_stop(&c);
    cr_assert_eq(rmdir(path), 0);
}

Test(agent_bash, a_fork_bomb_ends_at_the_deadline)
{
    char path[64];
    if (!cgroup_make(path, sizeof path))
        cr_skip_test("no writable pids cgroup here");
    agent_client_t *c = agent_client_start(&(agent_client_options_t){.cgroup = path, .pids_max = 200});
    struct bash_request bomb = {.command = "trap '' TERM; b() { b | b & }; b; sleep 100", .timeout_ms = 500};
    struct bash_reply r = run(c, &bomb);
    cr_assert(r.timed_out);
    cr_assert_lt(r.duration_ms, 15000);
    cr_assert(is_text(sh(c, "echo again").stdout, "again\n"));
    agent_client_stop(&c);
    cr_assert_eq(rmdir(path), 0);
}

Test(agent_bash, says_when_there_may_be_no_more_processes)
{
    char path[64];
    if (!cgroup_make(path, sizeof path))
        cr_skip_test("no writable pids cgroup here");
    agent_client_t *c = agent_client_start(&(agent_client_options_t){.cgroup = path, .pids_max = 4});
    struct bash_request sleeper = {.command = "sleep 100 & sleep 100", .run_in_background = true};
    run(c, &sleeper);
    agent_client_idle(c, 300);
    agent_result_t *r = agent_client_call(c, VERB_bash, &sleeper);
    r = agent_client_call(c, VERB_bash, &sleeper);
    cr_assert_str_eq(r->code, "limit_reached", "%s %s", r->code, r->message);
    agent_client_stop(&c);
    cr_assert_eq(rmdir(path), 0);
}

Test(agent_bash, envelope_deadline_and_cancel_kill_too)
{
    agent_client_t *c = start();
    char command[64], mark[32];
    int seconds = 90000 + getpid();
    snprintf(command, sizeof command, "sleep %d", seconds);
    snprintf(mark, sizeof mark, "%d", seconds);
    c->deadline_ms = 300;
    agent_result_t *r = agent_client_call(c, VERB_bash, &(struct bash_request){.command = command});
    cr_assert_str_eq(r->code, "deadline_exceeded");
    c->deadline_ms = 0;
    r = agent_client_send(c, 0, VERB_bash, &(struct bash_request){.command = command});
    agent_client_idle(c, 200);
    cr_assert_eq(count_marked(mark), 1);
    agent_client_simple(c, ENVELOPE_KIND_CANCEL, r->call_id);
    agent_client_wait(c, r);
    cr_assert_str_eq(r->code, "cancelled");
    cr_assert_eq(count_marked(mark), 0);
    agent_client_stop(&c);
}

/* ---- what a command leaves running ---- */

static struct process_output_reply output(agent_client_t *c, const struct process_output_request *request)
{
    struct process_output_reply reply;
    agent_result_reply(agent_client_call(c, VERB_process_output, request), &reply);
    return reply;
}

Test(agent_bash, ends_with_its_shell_and_lists_what_it_left)
{
    agent_client_t *c = start();
    struct bash_reply r = sh(c, "echo first; (sleep 0.5; echo later; sleep 0.3) & exit 4");
    cr_assert_lt(r.duration_ms, 400);
    cr_assert_eq(r.exit_code, 4);
    cr_assert(is_text(r.stdout, "first\n"));
    cr_assert_gt(r.process_id, 0);
    cr_assert_eq(r.warnings.count, 1);
    struct process_output_reply o =
        output(c, &(struct process_output_request){.process_id = r.process_id, .stdout_offset = 6, .wait_ms = 5000});
    cr_assert(is_text(o.stdout, "later\n"));
    cr_assert_eq(o.stdout_next, 12);
    cr_assert(o.running);
    agent_result_reply(
        agent_client_call(c, VERB_process_wait, &(struct process_wait_request){.process_id = r.process_id}), &o);
    cr_assert(!o.running);
    cr_assert_eq(o.exit_code, 4);
    agent_client_stop(&c);
}

Test(agent_bash, an_endless_writer_in_the_background_does_not_hold_the_shell)
{
    agent_client_t *c = start();
    struct bash_reply r = sh(c, "yes & exit 0");
    cr_assert_lt(r.duration_ms, 3000);
    cr_assert_gt(r.process_id, 0);
    struct empty done;
    agent_result_reply(
        agent_client_call(c, VERB_process_signal,
                          &(struct process_signal_request){.process_id = r.process_id, .signal = "KILL", .tree = true}),
        &done);
    struct process_output_reply o;
    agent_result_reply(
        agent_client_call(c, VERB_process_wait, &(struct process_wait_request){.process_id = r.process_id}), &o);
    cr_assert(!o.running);
    agent_client_stop(&c);
}

Test(agent_bash, runs_in_the_background)
{
    agent_client_t *c = start();
    struct bash_reply r =
        run(c, &(struct bash_request){.command = "echo a; sleep 0.3; echo b; exit 7", .run_in_background = true});
    cr_assert_gt(r.process_id, 0);
    struct process_output_reply o;
    agent_result_reply(
        agent_client_call(c, VERB_process_wait, &(struct process_wait_request){.process_id = r.process_id}), &o);
    cr_assert(!o.running && o.exit_code == 7);
    o = output(c, &(struct process_output_request){.process_id = r.process_id});
    cr_assert(is_text(o.stdout, "a\nb\n"));
    cr_assert_gt(c->notice_count, 0);
    agent_client_stop(&c);
}

Test(agent_bash, a_background_deadline_is_only_what_was_asked_for)
{
    agent_client_t *c = start();
    struct bash_reply r =
        run(c, &(struct bash_request){.command = "sleep 100", .run_in_background = true, .timeout_ms = 200});
    struct process_output_reply o;
    agent_result_reply(
        agent_client_call(c, VERB_process_wait, &(struct process_wait_request){.process_id = r.process_id}), &o);
    cr_assert(o.timed_out && o.exit_code == -1);
    agent_client_stop(&c);
}

/* ---- streaming ---- */

Test(agent_bash, streams_both_channels_and_ends_with_the_same_reply)
{
    agent_client_t *c = start();
    agent_result_t *r = agent_client_call(
        c, VERB_bash,
        &(struct bash_request){.command = "for i in 1 2 3; do echo o$i; echo e$i >&2; sleep 0.05; done",
                               .stream = true});
    struct bash_reply reply;
    agent_result_reply(r, &reply);
    cr_assert_str_eq(buf_cstr(&r->chunks[CHANNEL_STDOUT]), "o1\no2\no3\n");
    cr_assert_str_eq(buf_cstr(&r->chunks[CHANNEL_STDERR]), "e1\ne2\ne3\n");
    cr_assert(r->has_ended[CHANNEL_STDOUT] && r->has_ended[CHANNEL_STDERR] && !r->has_gap);
    cr_assert(is_text(reply.stdout, "o1\no2\no3\n"));
    agent_client_stop(&c);
}

Test(agent_bash, streams_much_without_loss)
{
    agent_client_t *c = start();
    agent_result_t *r = agent_client_call(
        c, VERB_bash, &(struct bash_request){.command = "seq 1000000; head -c 20000000 /dev/zero", .stream = true});
    cr_assert(r->is_done && !r->is_error && !r->has_gap);
    cr_assert_eq(r->chunks[CHANNEL_STDOUT].len, 6888896 + 20000000);
    cr_assert_eq(memcmp(r->chunks[CHANNEL_STDOUT].data + 6888896 - 15, "999999\n1000000\n", 15), 0);
    agent_client_stop(&c);
}

Test(agent_bash, a_slow_client_slows_its_command_and_nobody_else)
{
    agent_client_t *c = start();
    c->has_auto_credit = false;
    agent_result_t *slow = agent_client_send(
        c, 0, VERB_bash, &(struct bash_request){.command = "head -c 3000000 /dev/zero", .stream = true});
    agent_client_idle(c, 300);
    cr_assert_eq(slow->chunks[CHANNEL_STDOUT].len, CALL_WINDOW);
    cr_assert(!slow->is_done);
    cr_assert(is_text(sh(c, "echo quick").stdout, "quick\n"));
    c->has_auto_credit = true;
    agent_client_credit(c, slow->call_id, CALL_WINDOW);
    agent_client_wait(c, slow);
    cr_assert_eq(slow->chunks[CHANNEL_STDOUT].len, 3000000);
    cr_assert(!slow->has_gap);
    agent_client_stop(&c);
}
