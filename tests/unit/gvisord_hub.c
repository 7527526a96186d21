/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/gvisord_hub.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <glob.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT_MS 30000
#define TRIAL_WAIT_MS 20000
#define CALL_TIMEOUT_MS 60000
#define IMAGE_DIR_DEFAULT "/var/cache/emergent-workspaces/images"
#define MEMORY_BYTES ((uint64_t)512 << 20)
#define DISK_BYTES ((uint64_t)256 << 20)

static char *program(const char *name)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    for (int i = 0; i < 2 && strrchr(self, '/'); i++)
        *strrchr(self, '/') = '\0';
    return mem_printf("%s/bin/%s", self, name);
}

static const char *image_dir(void)
{
    const char *dir = getenv("EW_IMAGE_DIR");
    return dir && *dir ? dir : IMAGE_DIR_DEFAULT;
}

static bool has_program(const char *name)
{
    static const char *const places[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        auto_free char *path = mem_printf("%s/%s", places[i], name);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

const char *hub_why_not(void)
{
    auto_free char *daemon_path = program("gvisord");
    auto_free char *agent_path = program("ew-agent");
    auto_free char *image = mem_printf("%s/base/image.json", image_dir());
    if (geteuid() != 0)
        return "sandboxes need root";
    if (!has_program("runsc"))
        return "runsc is not installed";
    if (access(daemon_path, X_OK) < 0 || access(agent_path, X_OK) < 0)
        return "gvisord and ew-agent are not built beside this test (make all)";
    if (access(image, F_OK) < 0)
        return "there is no image `base` (deploy/images/build-base.sh, or set EW_IMAGE_DIR)";
    return NULL;
}

/* ---- the hub ---- */

static void on_up(void *arg, fabric_peer_t *peer)
{
    ((hub_t *)arg)->peer = peer;
}

static void on_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    (void)reason;
    hub_t *h = arg;
    call_table_on_down(h->calls, peer);
    h->peer = NULL;
}

static void on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    hub_t *h = arg;
    struct sandbox_event event;
    auto_err err_t *e = NULL;
    if (env->kind != ENVELOPE_KIND_NOTICE) {
        call_table_on_frame(h->calls, peer, env, body, len);
        return;
    }
    h->events++;
    if (proto_decode(MSG_sandbox_event, &event, body, len, &e) < 0)
        return;
    if (strcmp(event.type, "restarted") == 0)
        h->restarted_events++;
    if (strcmp(event.type, "dead") == 0) {
        h->dead_events++;
        snprintf(h->dead_reason, sizeof h->dead_reason, "%s", event.reason ? event.reason : "");
    }
}

static void on_writable(void *arg, fabric_peer_t *peer)
{
    call_table_on_writable(((hub_t *)arg)->calls, peer);
}

static const fabric_events_t EVENTS = {
    .on_up = on_up, .on_down = on_down, .on_frame = on_frame, .on_writable = on_writable};

void hub_open(hub_t *h, const char *role)
{
    *h = (hub_t){.base = event_base_new()};
    auto_err err_t *e = NULL;
    snprintf(h->dir, sizeof h->dir, "/tmp/ew-gvisord-XXXXXX");
    cr_assert_not_null(mkdtemp(h->dir));
    snprintf(h->cgroup_parent, sizeof h->cgroup_parent, "ew-gvtest-%d", getpid());
    snprintf(h->role, sizeof h->role, "%s", role);
    auto_free char *run = mem_printf("%s/run", h->dir);
    cr_assert_eq(dir_make(run, 0700, &e), 0);
    auto_free char *endpoint = mem_printf("ipc://%s/gateway.fabric", run);
    fabric_self_t self = {.role = h->role, .node = "test", .instance = "test"};
    h->calls = call_table_new(h->base);
    h->fabric = fabric_bind(h->base, endpoint, &self, NULL, &EVENTS, h, &e);
    cr_assert_not_null(h->fabric, "%s", err_message(e));
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    *(bool *)arg = true;
}

bool hub_wait(hub_t *h, const bool *flag, unsigned timeout_ms)
{
    bool is_over = false;
    struct event *timer = evtimer_new(h->base, on_time, &is_over);
    struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
    evtimer_add(timer, &tv);
    while (!*flag && !is_over)
        event_base_loop(h->base, EVLOOP_ONCE);
    event_free(timer);
    return *flag;
}

void hub_run_for(hub_t *h, unsigned ms)
{
    bool never = false;
    (void)hub_wait(h, &never, ms);
}

/* The daemon tries a checkpoint beside its work, once for a state directory; what that has on the host is not the
 * test's. */
static void wait_for_checkpoint_trial(hub_t *h)
{
    auto_free char *path = mem_printf("%s/gvisord/probe.json", h->dir);
    for (uint64_t until = clock_monotonic_ms() + TRIAL_WAIT_MS; clock_monotonic_ms() < until;) {
        json_t *probe = json_load_file(path, 0, NULL);
        bool is_over = !probe || json_is_true(json_object_get(probe, "checkpoint_tried")) ||
                       json_is_true(json_object_get(probe, "crun"));
        json_decref(probe);
        if (is_over)
            return;
        hub_run_for(h, 20);
    }
    cr_assert(false, "gvisord did not try a checkpoint; its log is in %s/log", h->dir);
}

void hub_start_daemon(hub_t *h, const char *const *more_env)
{
    auto_free char *path = program("gvisord");
    auto_free char *log = mem_printf("%s/log", h->dir);
    h->daemon = fork();
    cr_assert_geq(h->daemon, 0);
    if (h->daemon == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves no daemon behind */
        setenv("EW_STATE_DIR", h->dir, 1);
        setenv("EW_IMAGE_DIR", image_dir(), 1);
        setenv("EW_CGROUP_PARENT", h->cgroup_parent, 1);
        for (size_t i = 0; more_env && more_env[i]; i++)
            putenv((char *)(uintptr_t)more_env[i]);
        if (!freopen(log, "a", stderr))
            _exit(126);
        execl(path, "gvisord", (char *)NULL);
        _exit(127);
    }
    for (uint64_t until = clock_monotonic_ms() + START_TIMEOUT_MS; clock_monotonic_ms() < until;) {
        hub_run_for(h, 50);
        if (!h->peer)
            continue;
        if (strcmp(h->role, "gateway") != 0)
            return;
        hub_reply_t r = {0};
        struct empty nothing = {0};
        hub_call(h, VERB_provider_status, NULL, MSG_empty, &nothing, &r);
        struct provider_status status;
        auto_err err_t *e = NULL;
        bool is_healthy = r.code == ERR_NONE &&
                          proto_decode(MSG_provider_status, &status, r.body.data, r.body.len, &e) == 0 &&
                          status.healthy;
        buf_free(&r.body);
        if (is_healthy) {
            wait_for_checkpoint_trial(h);
            return;
        }
    }
    cr_assert(false, "gvisord did not become healthy; its log is in %s", log);
}

void hub_kill_daemon(hub_t *h, int signal)
{
    cr_assert_eq(kill(h->daemon, signal), 0);
    int status = 0;
    cr_assert_eq(waitpid(h->daemon, &status, 0), h->daemon);
    cr_assert(signal == SIGKILL || status == 0, "gvisord ended with wait status %d, see %s/log", status, h->dir);
    h->daemon = 0;
    for (uint64_t until = clock_monotonic_ms() + 2 * FABRIC_GONE_MS; h->peer && clock_monotonic_ms() < until;)
        hub_run_for(h, 50);
    cr_assert_null(h->peer, "the hub did not notice the end of the daemon");
}

/* ---- what is left ---- */

static size_t count_glob(const char *pattern)
{
    glob_t found;
    size_t n = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    globfree(&found);
    return n;
}

static size_t count_mounts(const hub_t *h)
{
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    size_t n = 0;
    if (file_read("/proc/self/mountinfo", (size_t)16 << 20, &text, &e) == 0)
        for (const char *at = buf_cstr(&text); (at = strstr(at, h->dir)); at += strlen(h->dir))
            n++;
    return n;
}

static size_t count_processes(const hub_t *h)
{
    glob_t found;
    size_t n = 0;
    if (glob("/proc/[0-9]*/cmdline", 0, NULL, &found) != 0)
        return 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        auto_buf buf_t text = {0};
        auto_err err_t *e = NULL;
        if (file_read(found.gl_pathv[i], (size_t)1 << 20, &text, &e) == 0 &&
            memmem(text.data, text.len, h->dir, strlen(h->dir)))
            n++;
    }
    globfree(&found);
    return n;
}

static void tag_of(const hub_t *h, char out[7])
{
    auto_free char *pattern = mem_printf("/sys/fs/cgroup/*/%s/gvisord-*", h->cgroup_parent);
    glob_t found;
    out[0] = '\0';
    if (glob(pattern, 0, NULL, &found) == 0) {
        const char *dash = strrchr(found.gl_pathv[0], '-');
        snprintf(out, 7, "%s", dash + 1);
    }
    globfree(&found);
}

const char *hub_leftovers(const hub_t *h)
{
    static char text[256];
    char tag[7];
    tag_of(h, tag);
    auto_free char *groups = mem_printf("/sys/fs/cgroup/*/%s/gvisord-*/*-*-*", h->cgroup_parent);
    auto_free char *namespaces = mem_printf("/run/netns/ew-%s-*", tag);
    auto_free char *interfaces = mem_printf("/sys/class/net/ew%s.*", tag);
    auto_free char *runtime = mem_printf("%s/gvisord/runtime/*", h->dir);
    auto_free char *boxes = mem_printf("%s/gvisord/sandboxes/*", h->dir);
    size_t counts[] = {count_mounts(h),
                       count_processes(h),
                       count_glob(groups),
                       tag[0] ? count_glob(namespaces) : 0,
                       tag[0] ? count_glob(interfaces) : 0,
                       count_glob(runtime),
                       count_glob(boxes)};
    static const char *const names[] = {"mounts",        "processes",          "cgroups", "netns", "interfaces",
                                        "runtime files", "sandbox directories"};
    text[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(counts); i++)
        if (counts[i]) {
            size_t len = strlen(text);
            snprintf(text + len, sizeof text - len, "%zu %s ", counts[i], names[i]);
        }
    return text;
}

void hub_close(hub_t *h)
{
    if (h->daemon)
        hub_kill_daemon(h, SIGTERM);
    cr_assert_str_eq(hub_leftovers(h), "", "left on the host: %s", hub_leftovers(h));
    call_table_destroy(&h->calls);
    fabric_destroy(&h->fabric);
    event_base_free(h->base);
    auto_err err_t *e = NULL;
    cr_assert_eq(dir_remove(h->dir, &e), 0, "%s", err_message(e));
}

/* ---- calls ---- */

static void on_reply(void *arg, const uint8_t *body, size_t len)
{
    hub_reply_t *r = arg;
    buf_append(&r->body, body, len);
    r->is_done = true;
}

static void on_error(void *arg, const err_t *err)
{
    hub_reply_t *r = arg;
    r->code = err_code(err);
    snprintf(r->message, sizeof r->message, "%s", err_message(err));
    r->is_done = true;
}

static const call_events_t CALL_EVENTS = {.on_reply = on_reply, .on_error = on_error};

call_t *hub_call_start(hub_t *h, enum verb verb, const uuid16_t *sandbox, unsigned msg_id, const void *msg,
                       hub_reply_t *r)
{
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    call_options_t options = {0};
    if (sandbox)
        options.sandbox = *sandbox;
    *r = (hub_reply_t){0};
    cr_assert_eq(proto_encode(msg_id, msg, &body, &e), 0, "%s", err_message(e));
    cr_assert_not_null(h->peer, "the daemon is not linked");
    call_t *c = call_start(h->calls, h->peer, verb, &options, body.data, body.len, &CALL_EVENTS, r, &e);
    cr_assert_not_null(c, "%s", err_message(e));
    return c;
}

void hub_call(hub_t *h, enum verb verb, const uuid16_t *sandbox, unsigned msg_id, const void *msg, hub_reply_t *r)
{
    uint64_t start = clock_monotonic_us();
    hub_call_start(h, verb, sandbox, msg_id, msg, r);
    cr_assert(hub_wait(h, &r->is_done, CALL_TIMEOUT_MS), "no answer to verb %d", verb);
    r->duration_us = clock_monotonic_us() - start;
}

void hub_create(hub_t *h, uuid16_t *id, const char *network, hub_reply_t *r)
{
    struct sandbox_create_request request = {.image = "base",
                                             .cpu_milli = 2000,
                                             .memory_bytes = MEMORY_BYTES,
                                             .disk_bytes = DISK_BYTES,
                                             .pids_max = 256,
                                             .network = network};
    auto_buf buf_t env = {0};
    proto_list_add_str(&env, "GREETING");
    proto_list_add_str(&env, "hello there");
    request.env = proto_list_of(1, &env);
    random_bytes(id, sizeof *id);
    hub_call(h, VERB_sandbox_create, id, MSG_sandbox_create_request, &request, r);
}

void hub_destroy(hub_t *h, const uuid16_t *id)
{
    struct sandbox_destroy_request request = {0};
    hub_reply_t r;
    hub_call(h, VERB_sandbox_destroy, id, MSG_sandbox_destroy_request, &request, &r);
    cr_assert_eq(r.code, ERR_NONE, "%s", r.message);
    buf_free(&r.body);
}

int hub_bash(hub_t *h, const uuid16_t *id, const char *command, char *out, size_t size)
{
    struct bash_request request = {.command = command};
    struct bash_reply reply;
    hub_reply_t r;
    auto_err err_t *e = NULL;
    hub_call(h, VERB_bash, id, MSG_bash_request, &request, &r);
    cr_assert_eq(r.code, ERR_NONE, "%s: %s", command, r.message);
    cr_assert_eq(proto_decode(MSG_bash_reply, &reply, r.body.data, r.body.len, &e), 0, "%s", err_message(e));
    if (out)
        snprintf(out, size, "%.*s%.*s", (int)reply.stdout.len, (const char *)reply.stdout.data, (int)reply.stderr.len,
                 (const char *)reply.stderr.data);
    int code = (int)reply.exit_code;
    buf_free(&r.body);
    return code;
}
