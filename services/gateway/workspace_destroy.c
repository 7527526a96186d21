// SPDX-License-Identifier: Apache-2.0
/* Destroys: the intent is committed first (shown as status stopping), then the sandbox goes, then the row. Whatever
 * fails is tried again, after a restart too: nothing is forgotten. */
#include "services/gateway/workspaces_internal.h"

#include "common/log.h"
#include "common/mem.h"

#define RETRY_MIN_MS 2000
#define RETRY_MAX_MS 60000

struct destruction {
    workspace_t *ws;
    bool is_due; /* the intent is on disk */
    bool is_forced;
    bool is_called;
    unsigned delay_ms;
    struct event *again;
};

void destruction_free(destruction_t *d)
{
    if (d == NULL)
        return;
    event_free(d->again);
    free(d);
}

static void on_row_gone(workspace_t *ws)
{
    log_write(LOG_LEVEL_INFO, &(log_ctx_t){.sandbox = ws->row.id_text}, "the workspace is destroyed");
    audit_note(ws->all->gw, "destroyed", &ws->row, NULL, NULL);
    workspaces_emit_deleted(ws);
    workspace_settle(ws, WAITER_DELETE, NULL);
    workspaces_remove(ws->all, ws);
}

static void on_destroyed(void *arg, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    destruction_t *d = arg;
    workspace_end_assignment(d->ws, "workspace destroyed");
    workspace_delete_row(d->ws, on_row_gone); /* is_called stays: it is over there */
}

/* The daemon going away is no failure: it is asked again when it is back (workspaces_on_peer_up). */
static void on_destroy_error(void *arg, const err_t *err)
{
    destruction_t *d = arg;
    workspace_t *ws = d->ws;
    d->is_called = false;
    log_write(LOG_LEVEL_WARN, &(log_ctx_t){.sandbox = ws->row.id_text}, "destroy on %s: %s; tried again in %u ms",
              ws->node, err_message(err), d->delay_ms);
    audit_note(ws->all->gw, "destroy_retry", &ws->row, NULL, err);
    workspace_set_reason(ws, err_message(err));
    workspace_settle(ws, WAITER_DELETE, err);
    struct timeval delay = {.tv_sec = d->delay_ms / 1000};
    event_add(d->again, &delay);
    d->delay_ms = d->delay_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : d->delay_ms * 2;
}

static call_t *send_destroy(workspaces_t *all, fabric_peer_t *peer, const uuid16_t *sandbox,
                            const call_events_t *events, void *arg, err_t **e)
{
    auto_buf buf_t body = {0};
    struct sandbox_destroy_request request = {.grace_ms = WORKSPACE_DESTROY_GRACE_MS};
    if (proto_encode(MSG_sandbox_destroy_request, &request, &body, e) != 0)
        return NULL;
    call_options_t options = {.sandbox = *sandbox, .deadline_ms = WORKSPACE_DESTROY_DEADLINE_MS};
    return call_start(all->gw->calls, peer, VERB_sandbox_destroy, &options, body.data, body.len, events, arg, e);
}

void workspace_destroy_on(workspace_t *ws)
{
    static const call_events_t EVENTS = {.on_reply = on_destroyed, .on_error = on_destroy_error};
    destruction_t *d = ws->destruction;
    if (d == NULL || !d->is_due || d->is_called)
        return;
    provider_node_t *n = workspace_where(ws);
    if (n == NULL) { /* no daemon ever had it */
        d->is_called = true;
        workspace_end_assignment(ws, "workspace destroyed");
        workspace_delete_row(ws, on_row_gone);
        return;
    }
    auto_err err_t *e = NULL;
    if (n->peer == NULL && d->is_forced) { /* should the daemon come back, it is told to destroy what no row wants */
        log_write(LOG_LEVEL_WARN, &(log_ctx_t){.sandbox = ws->row.id_text},
                  "forgotten by force: provider %s on %s is not connected", ws->row.provider, ws->node);
        d->is_called = true;
        workspace_end_assignment(ws, "workspace destroyed");
        workspace_delete_row(ws, on_row_gone);
        return;
    }
    if (n->peer == NULL) {
        err_set(
            &e, ERR_PROVIDER_UNAVAILABLE,
            "provider \"%s\" on node %s is not connected; the workspace is destroyed as soon as its daemon is back. "
            "If that never comes back: ?force=true forgets the workspace",
            ws->row.provider, ws->node);
        workspace_settle(ws, WAITER_DELETE, e);
        return;
    }
    d->is_called = true;
    if (send_destroy(ws->all, n->peer, &ws->row.id, &EVENTS, d, &e) == NULL)
        on_destroy_error(d, e);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    workspace_destroy_on(((destruction_t *)arg)->ws);
}

static void on_intent_committed(workspace_t *ws)
{
    ws->destruction->is_due = true;
    workspace_destroy_on(ws);
}

/* Whoever waits for the workspace to be something else waits in vain. */
static void refuse_waiters(workspace_t *ws)
{
    static const enum waiter_kind KINDS[] = {WAITER_STOP, WAITER_RESUME, WAITER_ASSIGN, WAITER_ATTACH, WAITER_TOOL};
    auto_err err_t *created = NULL, *e = NULL;
    err_set(&created, ERR_CONFLICT, "the workspace was destroyed while it was being created");
    workspace_settle(ws, WAITER_CREATE, created);
    err_set(&e, ERR_CONFLICT, "workspace is in stopping state: it was destroyed meanwhile");
    for (size_t i = 0; i < COUNT_OF(KINDS); i++)
        workspace_settle(ws, KINDS[i], e);
}

static void start(workspace_t *ws, bool is_forced)
{
    if (ws->destruction != NULL) {
        ws->destruction->is_forced |= is_forced;
        workspace_destroy_on(ws); /* asked again: do not wait for the timer */
        return;
    }
    creation_abort(ws);
    transition_abort(ws);
    destruction_t *d = mem_alloc(sizeof(*d));
    d->ws = ws;
    d->is_forced = is_forced;
    d->delay_ms = RETRY_MIN_MS;
    d->again = evtimer_new(ws->all->gw->daemon.base, on_again, d);
    ws->destruction = d;
    refuse_waiters(ws);
    if (ws->row.intent == INTENT_DESTROY) { /* it is on disk from an earlier life */
        d->is_due = true;
        workspace_destroy_on(ws);
        return;
    }
    workspace_set_intent(ws, INTENT_DESTROY);
    workspace_commit_intent(ws, WORKSPACE_STOPPING, INTENT_DESTROY, on_intent_committed);
}

void workspace_start_destruction(workspace_t *ws)
{
    start(ws, false);
}

void workspace_force_destruction(workspace_t *ws)
{
    start(ws, true);
}

/* ---- strays ---- */

static void on_stray_gone(void *arg, const uint8_t *body, size_t len)
{
    (void)arg;
    (void)body;
    (void)len;
}

static void on_stray_error(void *arg, const err_t *err)
{
    (void)arg;
    /* It is found again by the next reconcile. */
    log_warn("destroy a sandbox that no workspace wants: %s", err_message(err));
}

void workspaces_destroy_stray(workspaces_t *all, fabric_peer_t *peer, const uuid16_t *sandbox, const char *why)
{
    static const call_events_t EVENTS = {.on_reply = on_stray_gone, .on_error = on_stray_error};
    char id[UUID_TEXT_SIZE];
    uuid16_format(sandbox, id);
    log_write(LOG_LEVEL_WARN, &(log_ctx_t){.sandbox = id}, "destroying the sandbox on %s: %s",
              fabric_peer_hello(peer)->node, why);
    auto_free char *summary = mem_printf("sandbox=\"%s\" reason=\"%s\"", id, why);
    audit_note(all->gw, "sweep", NULL, summary, NULL);
    auto_err err_t *e = NULL;
    if (send_destroy(all, peer, sandbox, &EVENTS, NULL, &e) == NULL)
        on_stray_error(NULL, e);
}
