/* SPDX-License-Identifier: Apache-2.0
 *
 * workspaces_world.h with the snapshots open, and requests about them.
 */
#ifndef EW_TESTS_SNAPSHOTS_WORLD_H
#define EW_TESTS_SNAPSHOTS_WORLD_H

#define WORLD_HAS_SNAPSHOTS
#include "services/gateway/snapshots_internal.h"
#include "tests/unit/workspaces_world.h"

typedef struct asked {
    handler_fn handler;
    unsigned msg_id;
    const char *owner, *id, *body, *key, *wait; /* owner NULL: me */
} asked_t;

static inline fake_request_t *begin(fixture_t *f, asked_t a)
{
    static const route_t ROUTES[] = {{.method = "POST", .path = "/snapshot"},
                                     {.method = "POST", .path = "/from-snapshot"},
                                     {.method = "POST", .path = "/fork"}};
    fake_request_t *request = fake_request_new(&f->gw, a.owner == NULL ? "me" : a.owner);
    auto_err err_t *e = NULL;
    request->r.params[0] = a.id;
    request->r.route = &ROUTES[a.handler == snapshot_take ? 0 : a.handler == workspace_from_snapshot ? 1 : 2];
    request->http.headers[0][0] = "idempotency-key";
    request->http.headers[0][1] = a.key;
    request->http.query[0][0] = "wait";
    request->http.query[0][1] = a.wait;
    request->r.json = json_loads(a.body == NULL ? "{}" : a.body, 0, NULL);
    cr_assert_not_null(request->r.json, "%s", a.body);
    if (proto_from_json(a.msg_id, request->r.json, &request->r.encoded, NULL, &e) != 0)
        api_reply_error(&request->r, e); /* the gate does this */
    else
        a.handler(&request->r);
    return request;
}

static inline fake_request_t *ended(fixture_t *f, fake_request_t *request)
{
    cr_assert(RUN_UNTIL(f, request->status != 0), "no answer");
    return request;
}

#define TAKE(...) ((asked_t){.handler = snapshot_take, .msg_id = MSG_workspace_snapshot, __VA_ARGS__})
#define FROM(...) ((asked_t){.handler = workspace_from_snapshot, .msg_id = MSG_workspace_from_snapshot, __VA_ARGS__})
#define FORK(...) ((asked_t){.handler = workspace_fork, .msg_id = MSG_workspace_fork, __VA_ARGS__})

static inline void refuse(fixture_t *f, asked_t a, int status, const char *text)
{
    fake_request_t *request = ended(f, begin(f, a));
    cr_assert_eq(request->status, status, "%s: %d %s", text, request->status, request->body);
    cr_assert_not_null(strstr(request->body, text), "not \"%s\" but: %s", text, request->body);
    fake_request_free(request);
}

/* A ready workspace, a snapshot of it; the caller frees nothing. */
typedef struct taken {
    char workspace[UUID_TEXT_SIZE];
    char snapshot[UUID_TEXT_SIZE];
} taken_t;

static inline void make_workspace(fixture_t *f, char id[UUID_TEXT_SIZE])
{
    fake_request_t *made = post_and_wait(f, "me", AGENT);
    cr_assert_str_eq(fake_text(made, "status"), "ready", "%s", made->body);
    snprintf(id, UUID_TEXT_SIZE, "%s", fake_text(made, "id"));
    fake_request_free(made);
}

static inline void take_of(fixture_t *f, const char *workspace, const char *body, char id[UUID_TEXT_SIZE])
{
    fake_request_t *made = ended(f, begin(f, TAKE(.id = workspace, .body = body)));
    cr_assert_eq(made->status, 201, "%s", made->body);
    snprintf(id, UUID_TEXT_SIZE, "%s", fake_text(made, "snapshot_id"));
    fake_request_free(made);
}

static inline taken_t make_both(fixture_t *f)
{
    taken_t t;
    make_workspace(f, t.workspace);
    take_of(f, t.workspace, NULL, t.snapshot);
    return t;
}

/* The snapshot's status now; "" when it is not there. */
static inline const char *snapshot_now(fixture_t *f, const char *id)
{
    static char status[16];
    fake_request_t *request = call_on(f, snapshot_get, "me", id);
    snprintf(status, sizeof(status), "%s", request->status == 200 ? fake_text(request, "status") : "");
    fake_request_free(request);
    return status;
}

static inline void restart_gateway(fixture_t *f)
{
    close_gateway(f);
    if (f->gvisor.link != NULL)
        fake_provider_disconnect(&f->gvisor);
    open_gateway(f);
}

static inline void lose_daemon(fixture_t *f)
{
    fake_provider_disconnect(&f->gvisor);
    cr_assert(RUN_UNTIL(f, is_known(f, "gvisor", false)));
}

static inline void start_with_daemon(fixture_t *f)
{
    start(f);
    connect_provider(f, &f->gvisor);
}

#endif
