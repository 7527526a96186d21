/* SPDX-License-Identifier: Apache-2.0
 *
 * A real gvisord with real sandboxes; this test is its gateway.
 */
// LINK: tests/unit/gvisord_hub.c
#include "common/clock.h"
#include "common/mem.h"
#include "tests/unit/gvisord_hub.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIP_IF_IMPOSSIBLE()                                \
    do {                                                    \
        const char *why = hub_why_not();                    \
        const char *must = getenv("EW_MUST_WORK");          \
        if (why && must && strcmp(must, "1") == 0)          \
            cr_assert(false, "%s", why);                    \
        if (why) {                                          \
            fprintf(stderr, "gvisord: skipped: %s\n", why); \
            cr_skip_test("%s", why);                        \
        }                                                   \
    } while (0)

static void open_gateway(hub_t *h)
{
    hub_open(h, "gateway");
    hub_start_daemon(h, NULL);
}

static void create(hub_t *h, uuid16_t *id, const char *network)
{
    hub_reply_t r;
    hub_create(h, id, network, &r);
    cr_assert_eq(r.code, ERR_NONE, "create: %s", r.message);
    buf_free(&r.body);
}

Test(gvisord, a_sandbox_runs_a_command_and_leaves_nothing, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    char out[256];
    open_gateway(&h);
    create(&h, &id, "none");
    cr_assert_eq(hub_bash(&h, &id, "echo \"$GREETING\"; pwd", out, sizeof out), 0);
    cr_assert_str_eq(out, "hello there\n/workspace\n");
    hub_destroy(&h, &id);
    cr_assert_eq(strstr(hub_leftovers(&h), "mounts"), NULL, "%s", hub_leftovers(&h));
    hub_close(&h);
}

Test(gvisord, create_tells_what_it_made, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    hub_reply_t r;
    struct sandbox_create_reply reply;
    auto_err err_t *e = NULL;
    open_gateway(&h);
    hub_create(&h, &id, "none", &r);
    cr_assert_eq(r.code, ERR_NONE, "%s", r.message);
    cr_assert_eq(proto_decode(MSG_sandbox_create_reply, &reply, r.body.data, r.body.len, &e), 0);
    cr_assert_eq(strncmp(reply.isolation, "runsc/", 6), 0);
    cr_assert_gt(reply.total_ms, 0);
    cr_assert_not_null(reply.phases);
    fprintf(stderr, "create: %u ms, phases %s, seen by the hub %llu us\n", reply.total_ms, reply.phases,
            (unsigned long long)r.duration_us);
    buf_free(&r.body);
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord, a_killed_daemon_finds_its_sandboxes_again, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    char before[128], after[128];
    open_gateway(&h);
    create(&h, &id, "none");
    cr_assert_eq(hub_bash(&h, &id, "echo kept > note; sleep 1000 > /dev/null 2>&1 & echo $!", before, sizeof before),
                 0);
    hub_kill_daemon(&h, SIGKILL);
    hub_start_daemon(&h, NULL);
    cr_assert_eq(hub_bash(&h, &id, "cat note; pgrep -x sleep", after, sizeof after), 0);
    auto_free char *expected = mem_printf("kept\n%s", before);
    cr_assert_str_eq(after, expected);
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord, a_graceful_stop_leaves_sandboxes_running, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    char out[64];
    open_gateway(&h);
    create(&h, &id, "none");
    cr_assert_eq(hub_bash(&h, &id, "echo here > /tmp/note", NULL, 0), 0);
    hub_kill_daemon(&h, SIGTERM);
    hub_start_daemon(&h, NULL);
    cr_assert_eq(hub_bash(&h, &id, "cat /tmp/note", out, sizeof out), 0);
    cr_assert_str_eq(out, "here\n");
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord, what_was_half_made_when_the_daemon_died_is_removed, .timeout = 180)
{
    SKIP_IF_IMPOSSIBLE();
    static const unsigned moments_ms[] = {1, 10, 30, 80, 150};
    for (size_t i = 0; i < COUNT_OF(moments_ms); i++) {
        hub_t h;
        uuid16_t id;
        hub_reply_t r;
        struct sandbox_create_request request = {.image = "base",
                                                 .cpu_milli = 1000,
                                                 .memory_bytes = 256 << 20,
                                                 .disk_bytes = 64 << 20,
                                                 .pids_max = 64,
                                                 .network = "none"};
        open_gateway(&h);
        random_bytes(&id, sizeof id);
        hub_call_start(&h, VERB_sandbox_create, &id, MSG_sandbox_create_request, &request, &r);
        hub_run_for(&h, moments_ms[i]);
        hub_kill_daemon(&h, SIGKILL);
        cr_assert(r.is_done);
        buf_free(&r.body);
        hub_start_daemon(&h, NULL);
        struct sandbox_destroy_request destroy = {0};
        hub_call(&h, VERB_sandbox_destroy, &id, MSG_sandbox_destroy_request, &destroy, &r);
        cr_assert_eq(r.code, ERR_NONE, "after %u ms: %s", moments_ms[i], r.message);
        buf_free(&r.body);
        hub_close(&h);
    }
}

Test(gvisord, a_sandbox_that_is_killed_is_reported_and_started_again, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    hub_reply_t r;
    open_gateway(&h);
    create(&h, &id, "none");
    struct bash_request request = {.command = "sleep 100"};
    hub_call_start(&h, VERB_bash, &id, MSG_bash_request, &request, &r);
    hub_run_for(&h, 300);
    auto_free char *pattern = mem_printf("/sys/fs/cgroup/*/%s/gvisord-*/*/cgroup.procs", h.cgroup_parent);
    glob_t found;
    cr_assert_eq(glob(pattern, 0, NULL, &found), 0);
    FILE *procs = fopen(found.gl_pathv[0], "r");
    int pid;
    while (fscanf(procs, "%d", &pid) == 1)
        kill(pid, SIGKILL);
    fclose(procs);
    globfree(&found);
    cr_assert(hub_wait(&h, &r.is_done, 5000));
    cr_assert_eq(r.code, ERR_SANDBOX_FAILED, "%s", r.message);
    for (int i = 0; i < 200 && h.restarted_events == 0; i++)
        hub_run_for(&h, 50);
    cr_assert_eq(h.restarted_events, 1);
    buf_free(&r.body);
    hub_destroy(&h, &id);
    hub_close(&h);
}

/* The test speaks as a hostile agent would: into the FIFO that the daemon reads. */
static int agent_voice(const hub_t *h, const uuid16_t *id)
{
    char text[UUID_TEXT_SIZE];
    uuid16_format(id, text);
    auto_free char *path = mem_printf("%s/gvisord/sandboxes/%s/out", h->dir, text);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", path);
    return fd;
}

Test(gvisord, a_sandbox_that_breaks_the_protocol_is_ended, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    uint8_t garbage[64];
    open_gateway(&h);
    create(&h, &id, "none");
    cr_assert_eq(hub_bash(&h, &id, "sleep 1000 > /dev/null 2>&1 &", NULL, 0), 0);
    auto_close int fd = agent_voice(&h, &id);
    memset(garbage, 0xff, sizeof garbage);
    cr_assert_eq(write(fd, garbage, sizeof garbage), (ssize_t)sizeof garbage);
    for (int i = 0; i < 200 && h.restarted_events == 0; i++)
        hub_run_for(&h, 50);
    cr_assert_eq(h.restarted_events, 1);
    cr_assert_eq(hub_bash(&h, &id, "pgrep -x sleep", NULL, 0), 1, "what it ran runs on");
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord, a_flood_of_notices_is_cut, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    struct notice notice = {.type = "oom_kill", .detail = "again"};
    envelope_t env = {.kind = ENVELOPE_KIND_NOTICE};
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    uint8_t frame[STREAM_FRAME_DOWN_MAX];
    open_gateway(&h);
    create(&h, &id, "none");
    cr_assert_eq(proto_encode(MSG_notice, &notice, &body, &e), 0);
    size_t len = stream_frame_encode(&env, body.data, body.len, frame);
    auto_close int fd = agent_voice(&h, &id);
    unsigned before = h.events;
    for (int i = 0; i < 5000; i++)
        cr_assert_eq(write(fd, frame, len), (ssize_t)len);
    cr_assert_eq(hub_bash(&h, &id, "true", NULL, 0), 0);
    cr_assert_gt(h.events, before);
    cr_assert_lt(h.events - before, 200);
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord, short_memory_ends_a_process_and_not_the_sandbox, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    char out[512];
    open_gateway(&h);
    create(&h, &id, "none");
    cr_assert_neq(hub_bash(&h, &id, "python3 -c 'x = [bytearray(1 << 20) for i in range(2000)]'", out, sizeof out), 0);
    cr_assert_eq(h.dead_events, 0, "%s", h.dead_reason);
    /* The sentry gives memory back a moment later; until then the agent may still see too little of it. */
    int code = -1;
    for (uint64_t until = clock_monotonic_ms() + 10000; code != 0 && clock_monotonic_ms() < until;)
        code = hub_bash(&h, &id, "echo alive", out, sizeof out);
    cr_assert_eq(code, 0, "status %d: %s", code, out);
    cr_assert_eq(h.dead_events, 0, "%s", h.dead_reason);
    cr_assert_str_eq(out, "alive\n");
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord, full_network_survives_a_killed_daemon, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id, other;
    hub_reply_t r;
    char before[256], after[256];
    static const char ADDRESS[] =
        "awk '$4 == \"02\" || /host LOCAL/ {print}' /proc/net/fib_trie 2> /dev/null; cat /proc/net/route";
    open_gateway(&h);
    hub_create(&h, &id, "full", &r);
    buf_free(&r.body);
    if (r.code == ERR_VALIDATION) {
        fprintf(stderr, "gvisord: skipped: %s\n", r.message);
        hub_close(&h);
        cr_skip_test("%s", r.message);
    }
    cr_assert_eq(r.code, ERR_NONE, "%s", r.message);
    cr_assert_eq(hub_bash(&h, &id, ADDRESS, before, sizeof before), 0);
    hub_kill_daemon(&h, SIGKILL);
    hub_start_daemon(&h, NULL);
    create(&h, &other, "full"); /* gets another address */
    cr_assert_eq(hub_bash(&h, &id, ADDRESS, after, sizeof after), 0);
    cr_assert_str_eq(before, after);
    cr_assert_eq(hub_bash(&h, &other, ADDRESS, after, sizeof after), 0);
    cr_assert_str_neq(before, after);
    hub_destroy(&h, &id);
    hub_destroy(&h, &other);
    hub_close(&h);
}

Test(gvisord, the_disk_limit_is_an_end_of_space_inside, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    char out[512];
    open_gateway(&h);
    create(&h, &id, "none");
    cr_assert_neq(hub_bash(&h, &id, "dd if=/dev/zero of=big bs=1M count=400 2>&1", out, sizeof out), 0);
    cr_assert_not_null(strstr(out, "No space left"), "%s", out);
    cr_assert_eq(hub_bash(&h, &id, "rm big && echo fine > small && cat small", out, sizeof out), 0);
    cr_assert_str_eq(out, "fine\n");
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord, the_sandbox_is_hardened, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    static const struct {
        const char *command;
        const char *output;
    } facts[] = {
        {"python3 -c 'import ctypes; print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))' # PR_GET_NO_NEW_PRIVS", "1\n"},
        {"mount -t tmpfs none /mnt 2> /dev/null && echo mounted || echo refused", "refused\n"},
        {"cat /etc/hostname | wc -c", "37\n"},
        {"ls /dev/kmsg /dev/mem /dev/kvm /dev/loop0 2> /dev/null | wc -l", "0\n"},
        {"test -w /.emergent/agent -a -s /.emergent/agent && echo there", "there\n"},
        {"awk -F: 'NR > 2 {print $1}' /proc/net/dev | tr -d ' '; cat /etc/resolv.conf", "lo\n"},
        {"grep -c ' / ' /proc/mounts", "1\n"},
        {"grep -c ' /tmp ' /proc/mounts # on the disk, not in memory", "0\n"},
        {"stat -c %a /workspace /tmp", "777\n1777\n"},
        {"id -u; stat -c %u /", "0\n0\n"},
        {"dd if=/dev/zero of=/dev/shm/x bs=1M count=300 2> /dev/null; echo $?; rm /dev/shm/x", "1\n"},
        {"(echo x > /proc/sys/kernel/core_pattern) 2> /dev/null && echo written || echo refused", "refused\n"},
    };
    hub_t h;
    uuid16_t id;
    char out[512];
    open_gateway(&h);
    create(&h, &id, "none");
    for (size_t i = 0; i < COUNT_OF(facts); i++) {
        (void)hub_bash(&h, &id, facts[i].command, out, sizeof out);
        cr_expect_str_eq(out, facts[i].output, "%s: \"%s\"", facts[i].command, out);
    }
    /* CAP_SYS_ADMIN (21), CAP_NET_ADMIN (12), CAP_SYS_PTRACE (19), CAP_SYS_MODULE (16) are not in the bounding set. */
    cr_assert_eq(hub_bash(&h, &id, "awk '/CapBnd/{print $2}' /proc/self/status", out, sizeof out), 0);
    unsigned long long bounding = strtoull(out, NULL, 16);
    cr_expect_eq(bounding & (1ull << 21 | 1ull << 12 | 1ull << 19 | 1ull << 16), 0, "%s", out);
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord, full_network_refuses_the_host, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    hub_reply_t r;
    char out[256], command[256];
    open_gateway(&h);
    hub_create(&h, &id, "full", &r);
    buf_free(&r.body);
    if (r.code == ERR_VALIDATION) {
        fprintf(stderr, "gvisord: skipped: %s\n", r.message);
        hub_close(&h);
        cr_skip_test("%s", r.message);
    }
    cr_assert_eq(r.code, ERR_NONE, "%s", r.message);
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t len = sizeof any;
    auto_close int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&any, sizeof any), 0);
    cr_assert_eq(listen(listener, 8), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&any, &len), 0);
    cr_assert_eq(hub_bash(&h, &id, "awk '$2 == \"00000000\" {print $3}' /proc/net/route", out, sizeof out), 0);
    uint32_t gateway = (uint32_t)strtoul(out, NULL, 16);
    struct in_addr address = {.s_addr = gateway};
    snprintf(command, sizeof command,
             "timeout 2 bash -c 'exec 3<>/dev/tcp/%s/%d' 2>/dev/null && echo reached || echo refused",
             inet_ntoa(address), ntohs(any.sin_port));
    cr_assert_eq(hub_bash(&h, &id, command, out, sizeof out), 0);
    cr_assert_str_eq(out, "refused\n");
    /* It is the rule that refuses: without it the same command gets through. */
    char *table = NULL;
    glob_t found;
    cr_assert_eq(glob("/sys/class/net/ew*.*", 0, NULL, &found), 0);
    auto_free char *group = mem_printf("/sys/fs/cgroup/*/%s/gvisord-*", h.cgroup_parent);
    glob_t groups;
    cr_assert_eq(glob(group, 0, NULL, &groups), 0);
    table = mem_printf("nft delete table inet ew_%s", strrchr(groups.gl_pathv[0], '-') + 1);
    globfree(&found);
    globfree(&groups);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/usr/sbin/nft", "nft", "delete", "table", "inet", strrchr(table, ' ') + 1, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    free(table);
    cr_assert_eq(status, 0);
    cr_assert_eq(hub_bash(&h, &id, command, out, sizeof out), 0);
    cr_assert_str_eq(out, "reached\n");
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord, create_and_destroy_may_be_repeated, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    hub_reply_t a, b, c;
    struct sandbox_create_request request = {.image = "base",
                                             .cpu_milli = 1000,
                                             .memory_bytes = 256 << 20,
                                             .disk_bytes = 64 << 20,
                                             .pids_max = 64,
                                             .network = "none"};
    open_gateway(&h);
    random_bytes(&id, sizeof id);
    hub_call_start(&h, VERB_sandbox_create, &id, MSG_sandbox_create_request, &request, &a);
    hub_call_start(&h, VERB_sandbox_create, &id, MSG_sandbox_create_request, &request, &b);
    cr_assert(hub_wait(&h, &a.is_done, 20000) && hub_wait(&h, &b.is_done, 20000));
    hub_call(&h, VERB_sandbox_create, &id, MSG_sandbox_create_request, &request, &c);
    cr_assert_eq(a.code, ERR_NONE, "%s", a.message);
    cr_assert_eq(b.code, ERR_NONE);
    cr_assert_eq(c.code, ERR_NONE);
    buf_free(&a.body);
    buf_free(&b.body);
    buf_free(&c.body);
    hub_destroy(&h, &id);
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord, a_running_command_gets_term_before_destroy, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    hub_reply_t r;
    open_gateway(&h);
    create(&h, &id, "none");
    struct bash_request request = {.command = "trap 'exit 7' TERM; while :; do sleep 0.1; done"};
    hub_call_start(&h, VERB_bash, &id, MSG_bash_request, &request, &r);
    hub_run_for(&h, 500);
    uint64_t start = clock_monotonic_ms();
    hub_destroy(&h, &id);
    cr_assert_lt(clock_monotonic_ms() - start, 12000);
    cr_assert(r.is_done);
    buf_free(&r.body);
    hub_close(&h);
}

Test(gvisord, bad_requests_are_refused_by_name, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    static const struct {
        struct sandbox_create_request request;
        enum err_code code;
    } rows[] = {
        {{.image = "nope",
          .cpu_milli = 1000,
          .memory_bytes = 256 << 20,
          .disk_bytes = 64 << 20,
          .pids_max = 64,
          .network = "none"},
         ERR_NOT_FOUND},
        {{.image = "../base",
          .cpu_milli = 1000,
          .memory_bytes = 256 << 20,
          .disk_bytes = 64 << 20,
          .pids_max = 64,
          .network = "none"},
         ERR_BAD_REQUEST},
        {{.image = "base",
          .cpu_milli = 1000,
          .memory_bytes = 1,
          .disk_bytes = 64 << 20,
          .pids_max = 64,
          .network = "none"},
         ERR_VALIDATION},
        {{.image = "base",
          .cpu_milli = 1000,
          .memory_bytes = 256 << 20,
          .disk_bytes = 4096,
          .pids_max = 64,
          .network = "none"},
         ERR_VALIDATION},
    };
    hub_t h;
    open_gateway(&h);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uuid16_t id;
        hub_reply_t r;
        random_bytes(&id, sizeof id);
        hub_call(&h, VERB_sandbox_create, &id, MSG_sandbox_create_request, &rows[i].request, &r);
        cr_expect_eq(r.code, rows[i].code, "row %zu: %s %s", i, err_code_name(r.code), r.message);
        buf_free(&r.body);
    }
    uuid16_t id;
    hub_reply_t r;
    struct bash_request request = {.command = "true"};
    random_bytes(&id, sizeof id);
    hub_call(&h, VERB_bash, &id, MSG_bash_request, &request, &r);
    cr_assert_eq(r.code, ERR_NOT_FOUND);
    hub_run_for(&h, 500); /* the refused ones are undone */
    hub_close(&h);
}

Test(gvisord, a_stop_or_kill_while_it_probes_leaves_nothing, .timeout = 180)
{
    SKIP_IF_IMPOSSIBLE();
    static const struct {
        unsigned moment_ms;
        int signal;
    } rows[] = {{1, SIGTERM}, {150, SIGTERM}, {400, SIGTERM}, {30, SIGKILL}, {200, SIGKILL}, {450, SIGKILL}};
    hub_t h;
    hub_open(&h, "gateway");
    hub_start_daemon(&h, NULL); /* from here on a start is ready at once and verifies beside its work */
    hub_kill_daemon(&h, SIGTERM);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        hub_start_daemon(&h, NULL);
        hub_run_for(&h, rows[i].moment_ms);
        hub_kill_daemon(&h, rows[i].signal);
        if (rows[i].signal == SIGKILL) { /* the next one finds what it left */
            hub_start_daemon(&h, NULL);
            hub_kill_daemon(&h, SIGTERM);
        }
        cr_assert_str_eq(hub_leftovers(&h), "", "signal %d after %u ms: %s", rows[i].signal, rows[i].moment_ms,
                         hub_leftovers(&h));
    }
    hub_close(&h);
}

Test(gvisord, only_a_gateway_makes_sandboxes, .timeout = 60)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    hub_reply_t r;
    hub_open(&h, "mcphost");
    hub_start_daemon(&h, NULL);
    hub_create(&h, &id, "none", &r);
    cr_assert_eq(r.code, ERR_FORBIDDEN);
    hub_run_for(&h, 2500); /* its probe sandbox ends */
    hub_close(&h);
}

Test(gvisord, a_missing_runsc_is_named, .timeout = 60)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    hub_reply_t r;
    static const char *const env[] = {"RUNSC_BIN=/nowhere/runsc", NULL};
    struct empty nothing = {0};
    struct provider_status status;
    auto_err err_t *e = NULL;
    hub_open(&h, "gateway");
    snprintf(h.role, sizeof h.role, "other"); /* the helper is not to wait for health */
    hub_start_daemon(&h, env);
    hub_call(&h, VERB_provider_status, NULL, MSG_empty, &nothing, &r);
    cr_assert_eq(proto_decode(MSG_provider_status, &status, r.body.data, r.body.len, &e), 0, "%s", err_message(e));
    cr_assert_not(status.healthy);
    cr_assert_not_null(strstr(status.message, "runsc was not found (RUNSC_BIN=/nowhere/runsc)"), "%s", status.message);
    buf_free(&r.body);
    hub_create(&h, &id, "none", &r);
    cr_assert_eq(r.code, ERR_PROVIDER_UNAVAILABLE, "%s", r.message);
    hub_close(&h);
}
