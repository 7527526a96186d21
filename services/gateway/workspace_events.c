// SPDX-License-Identifier: Apache-2.0
/* What happens to a workspace, told to whoever subscribed: GET …/:id/events, the console, tests. */
#include "services/gateway/workspaces_internal.h"

#include "common/clock.h"
#include "common/mem.h"
#include "services/gateway/workspace_time.h"

struct subscription {
    subscription_t *next;
    uint64_t number;
    uuid16_t workspace;
    workspace_event_fn fn; /* NULL: unsubscribed within a callback, removed after it */
    void *arg;
};

uint64_t workspaces_subscribe(gateway_t *gw, const uuid16_t *id, workspace_event_fn fn, void *arg)
{
    subscription_t *s = mem_alloc(sizeof(*s));
    *s = (subscription_t){
        .next = gw->workspaces->subscriptions,
        .number = ++gw->workspaces->last_subscription,
        .workspace = *id,
        .fn = fn,
        .arg = arg,
    };
    gw->workspaces->subscriptions = s;
    return s->number;
}

static void remove_dead(workspaces_t *all)
{
    for (subscription_t **at = &all->subscriptions; *at != NULL;) {
        subscription_t *s = *at;
        if (s->fn != NULL) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        free(s);
    }
}

void workspaces_unsubscribe(gateway_t *gw, uint64_t number)
{
    if (gw->workspaces == NULL)
        return;
    for (subscription_t *s = gw->workspaces->subscriptions; s != NULL; s = s->next)
        if (s->number == number)
            s->fn = NULL;
    if (gw->workspaces->emitting == 0)
        remove_dead(gw->workspaces);
}

void subscriptions_free(workspaces_t *all)
{
    for (subscription_t *s = all->subscriptions; s != NULL; s = s->next)
        s->fn = NULL;
    remove_dead(all);
}

static void emit(workspace_t *ws, const char *event, buf_t *json)
{
    workspaces_t *all = ws->all;
    const char *text = buf_cstr(json);
    /* New subscriptions go in front of the list: a callback's own are not called for this event. */
    all->emitting++;
    for (subscription_t *s = all->subscriptions; s != NULL; s = s->next)
        if (s->fn != NULL && memcmp(&s->workspace, &ws->row.id, sizeof(ws->row.id)) == 0)
            s->fn(s->arg, event, text, json->len);
    if (--all->emitting == 0)
        remove_dead(all);
}

static void open_event(json_writer_t *w, buf_t *json, const workspace_t *ws)
{
    char now[RFC3339_SIZE];
    json_writer_init(w, json);
    json_write_open_object(w);
    json_write_key(w, "workspace_id");
    json_write_str(w, ws->row.id_text);
    json_write_key(w, "at");
    json_write_str(w, rfc3339_format((int64_t)clock_realtime_ms(), now));
}

static void write_pair(json_writer_t *w, const char *key, const char *value)
{
    json_write_key(w, key);
    json_write_strn(w, value, strlen(value));
}

static void write_status_event(const workspace_t *ws, buf_t *json)
{
    json_writer_t w;
    open_event(&w, json, ws);
    write_pair(&w, "status", workspace_status_name(ws->row.status));
    if (ws->row.provider[0] != '\0')
        write_pair(&w, "provider", ws->row.provider);
    if (ws->row.failure_reason != NULL)
        write_pair(&w, "failure_reason", ws->row.failure_reason);
    json_write_close_object(&w);
}

void workspaces_emit_status(workspace_t *ws)
{
    auto_buf buf_t json = {0};
    write_status_event(ws, &json);
    emit(ws, "status", &json);
}

void workspaces_emit_notice(workspace_t *ws, const char *type, const char *reason)
{
    auto_buf buf_t json = {0};
    json_writer_t w;
    open_event(&w, &json, ws);
    write_pair(&w, "type", type);
    write_pair(&w, "reason", reason);
    json_write_close_object(&w);
    emit(ws, "notice", &json);
}

void workspaces_emit_deleted(workspace_t *ws)
{
    auto_buf buf_t json = {0};
    json_writer_t w;
    open_event(&w, &json, ws);
    json_write_close_object(&w);
    emit(ws, "deleted", &json);
}

/* ---- GET …/:id/events ---- */

typedef struct listener {
    api_request_t *r;
    uint64_t subscription;
} listener_t;

static void on_listener_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    listener_t *l = r->state;
    r->state = NULL;
    if (l == NULL)
        return;
    workspaces_unsubscribe(r->gw, l->subscription);
    free(l);
}

static void on_event(void *arg, const char *event, const char *json, size_t len)
{
    listener_t *l = arg;
    api_request_t *r = l->r;
    (void)api_sse_event(r, event, NULL, json, len); /* a client that takes nothing is lost by the layer below */
    if (strcmp(event, "deleted") != 0)
        return;
    on_listener_close(r, false); /* before the end: the request may be gone after it */
    api_sse_end(r);
}

void workspace_events(api_request_t *r)
{
    auto_err err_t *e = NULL;
    workspace_row_t *row = workspaces_find(r->gw, r->params[0], &r->caller, &e);
    if (row == NULL) {
        api_reply_error(r, e);
        return;
    }
    listener_t *l = mem_alloc(sizeof(*l));
    l->r = r;
    r->state = l;
    r->on_close = on_listener_close;
    auto_buf buf_t json = {0};
    write_status_event(workspace_of(row), &json);
    l->subscription = workspaces_subscribe(r->gw, &row->id, on_event, l);
    api_sse_start(r);
    (void)api_sse_event(r, "status", NULL, buf_cstr(&json), json.len); /* what it is now, then what changes */
}
