/* SPDX-License-Identifier: Apache-2.0
 *
 * A gateway's workspaces over a real fabric, a real database and providers that do as told, in the test's own loop. One
 * file of a program includes it: fake_api.h defines the API's functions. With WORLD_HAS_SNAPSHOTS the snapshots are
 * open too.
 */
#ifndef EW_TESTS_WORKSPACES_WORLD_H
#define EW_TESTS_WORKSPACES_WORLD_H

#include "services/gateway/store.h"
#include "tests/unit/fake_api.h"
#include "tests/unit/fake_provider.h"

#include "common/clock.h"
#include "common/file.h"

#define PATIENCE_MS 15000

typedef struct fixture {
    gateway_t gw;
    char dir[64];
    char endpoint[128];
    fake_provider_t gvisor, firecracker;
    bool is_gateway_up;
} fixture_t;

#ifndef WORLD_HAS_AUDIT
static char noted[64]; /* what the suite did last by itself */

void audit_note(gateway_t *gw, const char *operation, const workspace_row_t *ws, const char *summary, const err_t *err)
{
    (void)gw, (void)ws, (void)summary, (void)err;
    snprintf(noted, sizeof(noted), "%s", operation);
}
#endif

/* ---- the gateway's glue, as in main.c ---- */

static inline void on_up(void *arg, fabric_peer_t *peer)
{
    gateway_t *gw = arg;
    workspaces_on_peer_up(gw, peer);
#ifdef WORLD_HAS_SNAPSHOTS
    snapshots_on_peer_up(gw, peer);
#endif
    orchestrator_on_peer_up(gw, peer);
}

static inline void on_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    gateway_t *gw = arg;
    call_table_on_down(gw->calls, peer);
    orchestrator_on_peer_down(gw, peer, reason);
    workspaces_on_peer_down(gw, peer);
}

static inline void on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    gateway_t *gw = arg;
    if (env->kind != ENVELOPE_KIND_NOTICE) {
        call_table_on_frame(gw->calls, peer, env, body, len);
        return;
    }
    struct sandbox_event event;
    auto_err err_t *e = NULL;
    cr_assert_eq(proto_decode(MSG_sandbox_event, &event, body, len, &e), 0);
    workspaces_on_sandbox_event(gw, peer, &env->sandbox, &event);
}

static inline void on_status(void *arg, fabric_peer_t *peer, const uint8_t *body, size_t len)
{
    orchestrator_on_status(arg, peer, body, len);
}

static inline void on_writable(void *arg, fabric_peer_t *peer)
{
    call_table_on_writable(((gateway_t *)arg)->calls, peer);
}

static inline void open_gateway(fixture_t *f)
{
    static const fabric_events_t EVENTS = {on_up, on_down, on_frame, on_writable, on_status};
    static const fabric_self_t SELF = {.role = "gateway", .node = "n1", .instance = "gw"};
    auto_err err_t *e = NULL;
    auto_free char *path = mem_printf("%s/gateway.db", f->dir);
    f->gw.store = store_open_at(f->gw.daemon.base, path, &e);
    cr_assert_not_null(f->gw.store, "%s", err_message(e));
    f->gw.calls = call_table_new(f->gw.daemon.base);
    cr_assert_eq(orchestrator_open(&f->gw, &e), 0);
    cr_assert_eq(workspaces_open(&f->gw, &e), 0, "%s", err_message(e));
#ifdef WORLD_HAS_SNAPSHOTS
    cr_assert_eq(snapshots_open(&f->gw, &e), 0, "%s", err_message(e));
#endif
    f->gw.fabric = fabric_bind(f->gw.daemon.base, f->endpoint, &SELF, NULL, &EVENTS, &f->gw, &e);
    cr_assert_not_null(f->gw.fabric, "%s", err_message(e));
    f->is_gateway_up = true;
}

static inline void close_gateway(fixture_t *f)
{
    fabric_destroy(&f->gw.fabric);
#ifdef WORLD_HAS_SNAPSHOTS
    snapshots_close(&f->gw);
#endif
    workspaces_close(&f->gw);
    orchestrator_close(&f->gw);
    call_table_destroy(&f->gw.calls);
    store_close(&f->gw.store);
    f->is_gateway_up = false;
}

static inline void start(fixture_t *f)
{
    memset(f, 0, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/test_workspaces.XXXXXX");
    cr_assert_not_null(mkdtemp(f->dir));
    snprintf(f->endpoint, sizeof(f->endpoint), "ipc://%s/gateway.fabric", f->dir);
    f->gw.daemon.base = event_base_new();
    f->gw.daemon.config = (config_t){
        .state_dir = f->dir,
        .max_concurrent = 10,
        .default_ttl_days = 30,
        .cleanup_interval_min = 60,
        .alert_threshold_pct = 80,
        .default_pids = 1024,
        .default_cpu = (char *)(uintptr_t) "2",
        .default_memory = (char *)(uintptr_t) "4G",
        .default_disk = (char *)(uintptr_t) "10G",
        .default_image = (char *)(uintptr_t) "base",
        .default_network = (char *)(uintptr_t) "none",
        .default_provider = (char *)(uintptr_t) "auto",
    };
    f->gvisor = (fake_provider_t){
        .base = f->gw.daemon.base, .role = "gvisord", .name = "gvisor", .node = "n1", .healthy = true};
    f->firecracker = (fake_provider_t){.base = f->gw.daemon.base,
                                       .role = "fcmgr",
                                       .name = "firecracker",
                                       .node = "n1",
                                       .healthy = true,
                                       .requires_kvm = true};
    open_gateway(f);
}

static inline void finish(fixture_t *f)
{
    if (f->gvisor.link != NULL)
        fake_provider_disconnect(&f->gvisor);
    if (f->firecracker.link != NULL)
        fake_provider_disconnect(&f->firecracker);
    if (f->is_gateway_up)
        close_gateway(f);
    event_base_free(f->gw.daemon.base);
    auto_err err_t *e = NULL;
    cr_assert_eq(dir_remove(f->dir, &e), 0);
}

static inline void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

/* Runs the loop until the condition holds; false when patience ends. */
#define RUN_UNTIL(f, condition)                                                              \
    ({                                                                                       \
        struct event *tick_ = event_new((f)->gw.daemon.base, -1, EV_PERSIST, on_tick, NULL); \
        struct timeval every_ = {.tv_usec = 20000};                                          \
        event_add(tick_, &every_);                                                           \
        uint64_t end_ = clock_monotonic_ms() + PATIENCE_MS;                                  \
        while (!(condition) && clock_monotonic_ms() < end_)                                  \
            event_base_loop((f)->gw.daemon.base, EVLOOP_ONCE);                               \
        event_free(tick_);                                                                   \
        (condition);                                                                         \
    })

static inline bool is_known(fixture_t *f, const char *provider, bool is_up)
{
    fake_request_t *request = fake_request_new(&f->gw, "me");
    workspace_providers(&request->r);
    bool found = false;
    size_t i;
    json_t *one;
    json_array_foreach(request->json, i, one) if (strcmp(json_string_value(json_object_get(one, "name")), provider) ==
                                                  0) found = json_is_true(json_object_get(one, "healthy")) == is_up;
    fake_request_free(request);
    return found;
}

static inline void connect_provider(fixture_t *f, fake_provider_t *p)
{
    size_t lists = p->lists;
    fake_provider_connect(p, f->endpoint);
    cr_assert(RUN_UNTIL(f, is_known(f, p->name, true) && p->lists > lists), "%s does not come up", p->name);
}

static inline fake_request_t *post(fixture_t *f, const char *owner, const char *wait, const char *body)
{
    fake_request_t *request = fake_request_new(&f->gw, owner);
    request->http.query[0][0] = "wait";
    request->http.query[0][1] = wait;
    auto_err err_t *e = NULL;
    request->r.json = json_loads(body, 0, NULL);
    cr_assert_not_null(request->r.json, "%s", body);
    if (proto_from_json(MSG_workspace_create, request->r.json, &request->r.encoded, NULL, &e) != 0)
        api_reply_error(&request->r, e); /* the gate does this */
    else
        workspace_create(&request->r);
    return request;
}

static inline fake_request_t *post_and_wait(fixture_t *f, const char *owner, const char *body)
{
    fake_request_t *request = post(f, owner, "10", body);
    cr_assert(RUN_UNTIL(f, request->status != 0), "no answer to %s", body);
    return request;
}

typedef void (*handler_fn)(api_request_t *r);
static inline fake_request_t *call_on(fixture_t *f, handler_fn handler, const char *owner, const char *id)
{
    fake_request_t *request = fake_request_new(&f->gw, owner);
    request->r.params[0] = id;
    handler(&request->r);
    cr_assert(RUN_UNTIL(f, request->status != 0));
    return request;
}

static inline int status_of(fixture_t *f, handler_fn handler, const char *owner, const char *id)
{
    fake_request_t *request = call_on(f, handler, owner, id);
    int status = request->status;
    fake_request_free(request);
    return status;
}

/* A body as the gate gives it; does not wait. */
static inline fake_request_t *ask(fixture_t *f, handler_fn handler, unsigned message, const char *id, const char *body)
{
    fake_request_t *request = fake_request_new(&f->gw, "me");
    request->r.params[0] = id;
    auto_err err_t *e = NULL;
    request->r.json = json_loads(body, 0, NULL);
    cr_assert_not_null(request->r.json, "%s", body);
    if (message != 0 && proto_from_json(message, request->r.json, &request->r.encoded, NULL, &e) != 0)
        api_reply_error(&request->r, e);
    else
        handler(&request->r);
    return request;
}

/* The answer has this status, and this text in it. */
static inline void expect_answer(fixture_t *f, fake_request_t *request, int status, const char *text)
{
    cr_assert(RUN_UNTIL(f, request->status != 0), "no answer");
    cr_assert_eq(request->status, status, "%d: %s", request->status, request->body == NULL ? "" : request->body);
    cr_assert(text[0] == '\0' || strstr(request->body, text) != NULL, "%s lacks %s", request->body, text);
    fake_request_free(request);
}
#define STOP(f, id) ask(f, workspace_stop, MSG_workspace_stop, id, "{}")
#define RESUME(f, id) ask(f, workspace_resume, 0, id, "{}")

/* The workspace's status now; "" when it is not there. */
static inline const char *now(fixture_t *f, const char *id)
{
    static char status[16];
    fake_request_t *request = call_on(f, workspace_get, "me", id);
    snprintf(status, sizeof(status), "%s", request->status == 200 ? fake_text(request, "status") : "");
    fake_request_free(request);
    return status;
}

#define AGENT "{\"container_type\":\"agent_workspace\"}"

#endif
