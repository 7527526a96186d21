/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/kit_world.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>

#define MIB ((uint64_t)1 << 20)

/* ---- the hub ---- */

static void on_up(void *arg, fabric_peer_t *peer)
{
    ((kit_world_t *)arg)->peer = peer;
}

static void on_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    (void)reason;
    kit_world_t *w = arg;
    call_table_on_down(w->calls, peer);
    w->peer = NULL;
}

static void on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    kit_world_t *w = arg;
    struct sandbox_event event;
    auto_err err_t *e = NULL;
    if (env->kind != ENVELOPE_KIND_NOTICE) {
        call_table_on_frame(w->calls, peer, env, body, len);
        return;
    }
    cr_assert_eq(proto_decode(MSG_sandbox_event, &event, body, len, &e), 0);
    w->ready_events += strcmp(event.type, "ready") == 0;
    w->restarted_events += strcmp(event.type, "restarted") == 0;
    w->dead_events += strcmp(event.type, "dead") == 0;
    if (event.reason)
        snprintf(w->reason, sizeof w->reason, "%s", event.reason);
}

static void on_writable(void *arg, fabric_peer_t *peer)
{
    call_table_on_writable(((kit_world_t *)arg)->calls, peer);
}

static const fabric_events_t EVENTS = {
    .on_up = on_up, .on_down = on_down, .on_frame = on_frame, .on_writable = on_writable};

static void on_time(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    *(bool *)arg = true;
}

static bool run_until(kit_world_t *w, const bool *flag, unsigned ms)
{
    bool is_over = false;
    struct event *timer = evtimer_new(w->base, on_time, &is_over);
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    evtimer_add(timer, &tv);
    while (!*flag && !is_over)
        event_base_loop(w->base, EVLOOP_ONCE);
    event_free(timer);
    return *flag;
}

void kit_world_run(kit_world_t *w, unsigned ms)
{
    bool never = false;
    (void)run_until(w, &never, ms);
}

void kit_world_until(kit_world_t *w, const bool *flag)
{
    cr_assert(run_until(w, flag, KIT_WORLD_WAIT_MS), "nothing came");
}

void kit_world_until_count(kit_world_t *w, const unsigned *counter, unsigned value)
{
    for (uint64_t until = clock_monotonic_ms() + KIT_WORLD_WAIT_MS; *counter < value && clock_monotonic_ms() < until;)
        kit_world_run(w, 3);
    cr_assert_geq(*counter, value, "nothing came");
}

void kit_world_until_state(kit_world_t *w, const uuid16_t *id, const char *state)
{
    for (uint64_t until = clock_monotonic_ms() + KIT_WORLD_WAIT_MS;
         strcmp(kit_world_state(w, id), state) != 0 && clock_monotonic_ms() < until;)
        kit_world_run(w, 3);
    cr_assert_str_eq(kit_world_state(w, id), state);
}

/* ---- the kit ---- */

void kit_world_start(kit_world_t *w)
{
    auto_err err_t *e = NULL;
    static unsigned number;
    snprintf(w->daemon.instance, sizeof w->daemon.instance, "kit-%u", ++number);
    w->provider = provider_new(&w->daemon, w->ops, &w->fake, &e);
    cr_assert_not_null(w->provider, "%s", err_message(e));
    for (uint64_t until = clock_monotonic_ms() + KIT_WORLD_WAIT_MS; !w->peer && clock_monotonic_ms() < until;)
        kit_world_run(w, 5);
    cr_assert_not_null(w->peer, "the kit did not link");
}

void kit_world_open(kit_world_t *w, const provider_ops_t *ops)
{
    auto_err err_t *e = NULL;
    *w = (kit_world_t){.base = event_base_new(), .dir = "/tmp/ew-kit-XXXXXX", .ops = ops};
    cr_assert_not_null(mkdtemp(w->dir));
    log_open("kit", getenv("KIT_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    setenv("EW_STATE_DIR", w->dir, 1);
    cr_assert_eq(config_load(&w->daemon.config, CONFIG_GVISORD, &e), 0, "%s", err_message(e));
    w->daemon.name = "fake";
    w->daemon.base = w->base;
    w->daemon.state_dir = mem_printf("%s/fake", w->dir);
    cr_assert_eq(dir_make(w->daemon.config.run_dir, 0700, &e), 0, "%s", err_message(e));
    auto_free char *endpoint = daemon_gateway_endpoints(&w->daemon);
    fabric_self_t self = {.role = "gateway", .node = "test", .instance = "hub"};
    w->calls = call_table_new(w->base);
    w->fabric = fabric_bind(w->base, endpoint, &self, NULL, &EVENTS, w, &e);
    cr_assert_not_null(w->fabric, "%s", err_message(e));
    kit_world_start(w);
}

void kit_world_crash(kit_world_t *w)
{
    provider_destroy(&w->provider);
    for (uint64_t until = clock_monotonic_ms() + KIT_WORLD_WAIT_MS; w->peer && clock_monotonic_ms() < until;)
        kit_world_run(w, 5);
    cr_assert_null(w->peer);
}

static unsigned entries(const kit_world_t *w, const char *name)
{
    auto_free char *path = mem_printf("%s/fake/%s", w->dir, name);
    DIR *d = opendir(path);
    unsigned count = 0;
    for (struct dirent *de; d && (de = readdir(d));)
        count += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0;
    if (d)
        closedir(d);
    return count;
}

void kit_world_close(kit_world_t *w)
{
    auto_err err_t *e = NULL;
    for (size_t i = 0; i < FAKE_OP_COUNT; i++)
        w->fake.modes[i] = FAKE_RUN;
    for (sandbox_t *s; (s = provider_sandbox_next(w->provider, NULL));) {
        uuid16_t id = s->id;
        kit_world_destroy(w, &id);
    }
    cr_expect_not(w->fake.is_clumsy, "two functions of the vtable ran at once for one sandbox");
    cr_expect_eq(w->fake.running, 0);
    cr_expect_eq(entries(w, "sandboxes"), 0);
    for (int i = 0; i < 200 && entries(w, "snapshots") > 0; i++)
        kit_world_run(w, 10);
    cr_expect_eq(entries(w, "snapshots"), 0);
    kit_world_crash(w);
    call_table_destroy(&w->calls);
    fabric_destroy(&w->fabric);
    event_base_free(w->base);
    config_free(&w->daemon.config);
    free(w->daemon.state_dir);
    cr_assert_eq(dir_remove(w->dir, &e), 0, "%s", err_message(e));
}

/* ---- calls ---- */

static void on_reply(void *arg, const uint8_t *body, size_t len)
{
    kit_reply_t *r = arg;
    buf_append(&r->body, body, len);
    r->is_done = true;
}

static void on_error(void *arg, const err_t *err)
{
    kit_reply_t *r = arg;
    r->code = err_code(err);
    snprintf(r->message, sizeof r->message, "%s", err_message(err));
    r->is_done = true;
}

static const call_events_t CALL_EVENTS = {.on_reply = on_reply, .on_error = on_error};

void kit_world_start_call(kit_world_t *w, enum verb verb, const uuid16_t *id, uint64_t call_id, unsigned msg_id,
                          const void *msg, kit_reply_t *r)
{
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    call_options_t options = {.call_id = call_id, .is_kept = call_id != 0};
    if (id)
        options.sandbox = *id;
    *r = (kit_reply_t){0};
    cr_assert_eq(proto_encode(msg_id, msg, &body, &e), 0, "%s", err_message(e));
    cr_assert_not_null(w->peer, "the kit is not linked");
    r->call = call_start(w->calls, w->peer, verb, &options, body.data, body.len, &CALL_EVENTS, r, &e);
    cr_assert_not_null(r->call, "%s", err_message(e));
}

void kit_world_call(kit_world_t *w, enum verb verb, const uuid16_t *id, unsigned msg_id, const void *msg,
                    kit_reply_t *r)
{
    kit_world_start_call(w, verb, id, 0, msg_id, msg, r);
    kit_world_until(w, &r->is_done);
}

void kit_world_decode(const kit_reply_t *r, unsigned msg_id, void *msg)
{
    auto_err err_t *e = NULL;
    cr_assert_eq(r->code, ERR_NONE, "%s", r->message);
    cr_assert_eq(proto_decode(msg_id, msg, r->body.data, r->body.len, &e), 0, "%s", err_message(e));
}

void kit_world_refused(kit_world_t *w, enum verb verb, const uuid16_t *id, unsigned msg_id, const void *msg,
                       enum err_code code)
{
    kit_reply_t r;
    kit_world_call(w, verb, id, msg_id, msg, &r);
    cr_assert_eq(r.code, code, "%s instead of %s: %s", err_code_name(r.code), err_code_name(code), r.message);
    buf_free(&r.body);
}

static void succeed(kit_world_t *w, enum verb verb, const uuid16_t *id, unsigned msg_id, const void *msg)
{
    kit_world_refused(w, verb, id, msg_id, msg, ERR_NONE);
}

void kit_world_create_request(struct sandbox_create_request *request)
{
    *request = (struct sandbox_create_request){.image = "base",
                                               .cpu_milli = 1000,
                                               .memory_bytes = 256 * MIB,
                                               .disk_bytes = 64 * MIB,
                                               .pids_max = 64,
                                               .network = "none"};
}

void kit_world_create(kit_world_t *w, uuid16_t *id)
{
    struct sandbox_create_request request;
    kit_world_create_request(&request);
    random_bytes(id, sizeof *id);
    succeed(w, VERB_sandbox_create, id, MSG_sandbox_create_request, &request);
}

void kit_world_stop(kit_world_t *w, const uuid16_t *id, bool without_processes)
{
    struct sandbox_stop_request request = {.without_processes = without_processes};
    succeed(w, VERB_sandbox_stop, id, MSG_sandbox_stop_request, &request);
}

void kit_world_resume(kit_world_t *w, const uuid16_t *id)
{
    struct empty nothing = {0};
    succeed(w, VERB_sandbox_resume, id, MSG_empty, &nothing);
}

void kit_world_destroy(kit_world_t *w, const uuid16_t *id)
{
    struct sandbox_destroy_request request = {.grace_ms = 0, .has.grace_ms = true};
    succeed(w, VERB_sandbox_destroy, id, MSG_sandbox_destroy_request, &request);
}

const char *kit_world_bash(kit_world_t *w, const uuid16_t *id, const char *command)
{
    static char out[1024];
    struct bash_request request = {.command = command};
    struct bash_reply reply;
    kit_reply_t r;
    kit_world_call(w, VERB_bash, id, MSG_bash_request, &request, &r);
    kit_world_decode(&r, MSG_bash_reply, &reply);
    snprintf(out, sizeof out, "%.*s", (int)reply.stdout.len, (const char *)reply.stdout.data);
    buf_free(&r.body);
    return out;
}

const char *kit_world_state(kit_world_t *w, const uuid16_t *id)
{
    static char state[32];
    struct empty nothing = {0};
    struct sandbox_list_reply list;
    kit_reply_t r;
    char text[UUID_TEXT_SIZE];
    uuid16_format(id, text);
    state[0] = '\0';
    kit_world_call(w, VERB_sandbox_list, NULL, MSG_empty, &nothing, &r);
    kit_world_decode(&r, MSG_sandbox_list_reply, &list);
    proto_iter_t it = proto_iter(&list.sandboxes);
    for (proto_nested_t one; proto_iter_msg(&it, &one);) {
        struct sandbox_info info;
        auto_err err_t *e = NULL;
        cr_assert_eq(proto_decode(MSG_sandbox_info, &info, one.bytes, one.len, &e), 0);
        if (strcmp(info.id, text) == 0)
            snprintf(state, sizeof state, "%s", info.state);
    }
    buf_free(&r.body);
    return state;
}

sandbox_t *kit_world_sandbox(kit_world_t *w, const uuid16_t *id)
{
    for (sandbox_t *s = NULL; (s = provider_sandbox_next(w->provider, s));)
        if (memcmp(&s->id, id, sizeof *id) == 0)
            return s;
    return NULL;
}

void kit_world_kill_agent(kit_world_t *w, const uuid16_t *id)
{
    const sandbox_t *s = kit_world_sandbox(w, id);
    cr_assert_not_null(s);
    kill((pid_t)json_integer_value(json_object_get(s->private_, "pid")), SIGKILL);
}
