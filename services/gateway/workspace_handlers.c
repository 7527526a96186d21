// SPDX-License-Identifier: Apache-2.0
/* POST, GET and DELETE of workspaces; requests that wait for a change are waiters of their workspace. */
#include "services/gateway/idempotency.h"
#include "services/gateway/workspaces_internal.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <inttypes.h>

void workspace_reply(api_request_t *r, const workspace_t *ws, int status)
{
    auto_buf buf_t encoded = {0};
    auto_err err_t *e = NULL;
    api_note_workspace(r, &ws->row);
    if (workspace_encode(ws, &encoded, &e) != 0)
        api_reply_error(r, e);
    else
        api_reply_message(r, status, MSG_workspace, encoded.data, encoded.len, 0);
}

/* ---- waiters ---- */

/* How each kind is answered when all is well. */
static const int WAITER_STATUS[] = {
    [WAITER_CREATE] = 201, [WAITER_DELETE] = 204, [WAITER_STOP] = 200, [WAITER_RESUME] = 200,
    [WAITER_ASSIGN] = 200, [WAITER_ATTACH] = 200, [WAITER_TOOL] = 0,
};

static void waiter_free(waiter_t *w)
{
    if (w->r != NULL)
        w->r->state = NULL;
    if (w->timer != NULL)
        event_free(w->timer);
    free(w);
}

static void waiter_detach(waiter_t *w)
{
    if (w->ws == NULL)
        return;
    waiter_t **at = &w->ws->waiters;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    w->ws->all->waking_bytes -= w->bytes;
    w->ws = NULL;
}

static void on_waiter_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    waiter_t *w = r->state;
    if (w == NULL)
        return;
    waiter_detach(w);
    waiter_free(w);
}

waiter_t *workspace_wait(workspace_t *ws, api_request_t *r, enum waiter_kind kind)
{
    waiter_t *w = mem_alloc(sizeof(*w));
    *w = (waiter_t){.ws = ws, .r = r, .kind = kind, .next = ws->waiters};
    ws->waiters = w;
    r->state = w;
    r->on_close = on_waiter_close;
    return w;
}

static void answer(waiter_t *w, const workspace_t *ws, const err_t *err)
{
    api_request_t *r = w->r;
    route_fn then = w->then;
    int status = WAITER_STATUS[w->kind];
    waiter_detach(w);
    waiter_free(w);
    api_note_workspace(r, &ws->row);
    r->on_close = NULL;
    if (err != NULL)
        api_reply_error(r, err);
    else if (then != NULL)
        then(r);
    else if (status == 204)
        api_reply_empty(r, status);
    else
        workspace_reply(r, ws, status);
}

size_t workspace_count_waiters(const workspace_t *ws, enum waiter_kind kind)
{
    size_t count = 0;
    for (const waiter_t *w = ws->waiters; w != NULL; w = w->next)
        count += w->kind == kind;
    return count;
}

void workspace_settle(workspace_t *ws, enum waiter_kind kind, const err_t *err)
{
    for (waiter_t *w = ws->waiters, *next; w != NULL; w = next) {
        next = w->next;
        if (w->kind != kind)
            continue;
        if (err != NULL && w->is_first)
            workspace_undo_attach(ws);
        answer(w, ws, err);
    }
}

void workspace_drop_waiters(workspace_t *ws)
{
    while (ws->waiters != NULL) {
        waiter_t *w = ws->waiters;
        waiter_detach(w);
        waiter_free(w);
    }
}

/* ---- POST ---- */

static void on_wait_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    waiter_t *w = arg;
    answer(w, w->ws, NULL);
}

static int check_wait(const api_request_t *r, uint64_t *seconds, err_t **e)
{
    const char *text = http_query(r->http, "wait");
    *seconds = 0;
    if (text != NULL && (!text_to_u64(text, seconds) || *seconds > WORKSPACE_WAIT_MAX_S))
        return err_set(e, ERR_BAD_REQUEST, "wait must be a whole number of seconds from 0 to %d", WORKSPACE_WAIT_MAX_S);
    return 0;
}

/* What the row's insert carries to its end. */
typedef struct pending_create {
    workspace_t *ws;
    pick_t pick;
    uint64_t wait_s;
} pending_create_t;

static bool may_be_warm(const pending_create_t *p)
{
    return p->ws->use_warm && p->pick.count > 0 && p->pick.candidates[0]->status.pools.count > 0;
}

static void on_inserted(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    pending_create_t *p = arg;
    workspace_t *ws = p->ws;
    if (err != NULL) {
        log_error("insert the row of a workspace: %s", err_message(err));
        auto_err err_t *e = NULL;
        store_client_error(err, &e);
        workspace_settle(ws, WAITER_CREATE, e);
        workspaces_remove(ws->all, ws);
    } else {
        ws->is_committed = true;
        /* From now on it is acknowledged, whether or not the client still listens. */
        uint64_t wait_ms = p->wait_s > 0 ? p->wait_s * 1000 : may_be_warm(p) ? WORKSPACE_WARM_GRACE_MS : 0;
        if (wait_ms == 0)
            workspace_settle(ws, WAITER_CREATE, NULL);
        for (waiter_t *w = ws->waiters; w != NULL; w = w->next) {
            struct timeval delay = {.tv_sec = (time_t)(wait_ms / 1000),
                                    .tv_usec = (suseconds_t)(wait_ms % 1000) * 1000};
            w->timer = evtimer_new(ws->all->gw->daemon.base, on_wait_over, w);
            event_add(w->timer, &delay);
        }
        workspace_start_creation(ws, &p->pick, NULL);
    }
    pick_free(&p->pick);
    free(p);
}

static int insert(pending_create_t *p, err_t **e)
{
    store_value_t values[WORKSPACE_COLUMN_COUNT];
    workspace_row_storage_t storage;
    int result = workspace_row_values(p->ws, WORKSPACE_CREATING, values, &storage, e);
    if (result == 0)
        result = store_exec(p->ws->all->gw->store, STORE_WORKSPACE_INSERT, values, WORKSPACE_COLUMN_COUNT, on_inserted,
                            p, e);
    workspace_row_free(&storage);
    return result;
}

/* The workspace that an earlier request with the same Idempotency-Key made, as that request would be answered now. */
static void repeat_create(api_request_t *r, workspace_t *ws, uint64_t wait_s)
{
    bool is_waiting = wait_s > 0 && ws->row.status == WORKSPACE_CREATING && ws->destruction == NULL;
    if (ws->is_committed && !is_waiting) {
        workspace_reply(r, ws, 201);
        return;
    }
    waiter_t *w = workspace_wait(ws, r, WAITER_CREATE);
    if (ws->is_committed) { /* else its insert deals with all who wait */
        struct timeval delay = {.tv_sec = (time_t)wait_s};
        w->timer = evtimer_new(ws->all->gw->daemon.base, on_wait_over, w);
        event_add(w->timer, &delay);
    }
}

/* With an Idempotency-Key the id follows from owner and key, so that the row itself remembers the key for as long as
 * the workspace lives. *known: the one that is there already. */
static int take_key(api_request_t *r, workspace_t *ws, workspace_t **known, err_t **e)
{
    uint64_t call_id = 0;
    *known = NULL;
    if (idempotency_begin(r, &call_id, e) != 0)
        return -1;
    if (call_id == 0)
        return 0;
    idempotency_done(r->gw->idempotency, call_id); /* nothing runs under it: a repetition finds the row */
    idempotency_uuid(r, ws->all->suite, &ws->row.id);
    uuid16_format(&ws->row.id, ws->row.id_text);
    *known = workspaces_get(ws->all, &ws->row.id);
    return 0;
}

void workspace_create(api_request_t *r)
{
    workspaces_t *all = r->gw->workspaces;
    auto_err err_t *e = NULL;
    pick_request_t request;
    workspace_t *known = NULL;
    pending_create_t *p = mem_alloc(sizeof(*p));
    p->ws = check_wait(r, &p->wait_s, &e) == 0 ? workspace_from_request(all, r, &request, &e) : NULL;
    if (p->ws != NULL && (take_key(r, p->ws, &known, &e) != 0 || known != NULL)) {
        workspace_free(p->ws);
        p->ws = NULL;
    }
    if (known != NULL) {
        repeat_create(r, known, p->wait_s);
        free(p);
        return;
    }
    if (p->ws != NULL && workspaces_check_room(all, p->ws, &e) == 0) {
        orchestrator_pick(r->gw->orchestrator, &request, &p->pick);
        if (p->pick.count > 0 || pick_error(&p->pick, &e) == 0) {
            workspace_t *ws = p->ws;
            workspaces_add(all, ws); /* counts from here, so that the limit holds for creates under way */
            workspace_wait(ws, r, WAITER_CREATE);
            if (insert(p, &e) == 0) {
                workspace_open_first_assignment(ws);
                return;
            }
            workspace_drop_waiters(ws);
            workspaces_remove(all, ws);
            p->ws = NULL;
        }
    }
    if (p->ws != NULL)
        workspace_free(p->ws);
    pick_free(&p->pick);
    free(p);
    api_reply_error(r, e);
}

/* ---- GET one, DELETE, providers ---- */

workspace_t *workspace_of_request(api_request_t *r)
{
    auto_err err_t *e = NULL;
    workspace_row_t *row = workspaces_find(r->gw, r->params[0], &r->caller, &e);
    if (row == NULL)
        api_reply_error(r, e);
    return row == NULL ? NULL : workspace_of(row);
}

void workspace_get(api_request_t *r)
{
    workspace_t *ws = workspace_of_request(r);
    if (ws != NULL)
        workspace_reply(r, ws, 200);
}

void workspace_delete(api_request_t *r)
{
    auto_err err_t *e = NULL;
    workspace_t *ws = workspace_of_request(r);
    if (ws == NULL)
        return;
    /* Better not begun than promised for later. */
    if (store_check(r->gw->store, &e) != 0) {
        api_reply_error(r, e);
        return;
    }
    const char *force = http_query(r->http, "force");
    bool is_forced = force != NULL && strcmp(force, "true") == 0;
    if (force != NULL && !is_forced && strcmp(force, "false") != 0) {
        api_fail(r, ERR_BAD_REQUEST, "force must be true or false");
        return;
    }
    workspace_wait(ws, r, WAITER_DELETE);
    if (is_forced)
        workspace_force_destruction(ws);
    else
        workspace_start_destruction(ws);
}

void workspace_providers(api_request_t *r)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t json = {0};
    json_writer_t w;
    json_writer_init(&w, &json);
    if (orchestrator_write_providers(r->gw->orchestrator, &w, &e) != 0)
        api_reply_error(r, e);
    else
        api_reply_json(r, 200, &json);
}
