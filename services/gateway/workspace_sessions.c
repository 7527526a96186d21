// SPDX-License-Identifier: Apache-2.0
/* Which agent session holds a workspace. Decided in memory before anything is awaited, so that of many one wins; the
 * table kb.workspace_assignments is the last judge (at most one open row of a workspace) and the history. The copy in
 * the workspace's row is for those who read it with SQL. */
#include "services/gateway/workspaces_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"
#include "services/gateway/workspace_time.h"

#include <inttypes.h>
#include <stdio.h>

#define LIST_DEFAULT 100
#define LIST_MAX 1000

bool workspace_session_parse(const char *text, char session[UUID_TEXT_SIZE])
{
    uuid16_t id;
    if (!uuid16_parse(&id, text))
        return false;
    uuid16_format(&id, session);
    return true;
}

static void set_holder(workspace_t *ws, const char *session)
{
    if (ws->row.agent_session_id != NULL)
        snprintf(ws->previous_session, sizeof(ws->previous_session), "%s", ws->row.agent_session_id);
    char *copy = session == NULL ? NULL : mem_strdup(session);
    free(ws->row.agent_session_id);
    ws->row.agent_session_id = copy;
}

/* ---- rows ---- */

static int write_open(workspace_t *ws, const char *reason, store_done_fn done, void *arg, err_t **e)
{
    uuid16_t id;
    char id_text[UUID_TEXT_SIZE];
    random_bytes(&id, sizeof(id));
    uuid16_format(&id, id_text);
    /* The history is in this order: no two of a workspace have the same time. */
    int64_t now = (int64_t)clock_realtime_ms();
    ws->attached_ms = now > ws->attached_ms ? now : ws->attached_ms + 1;
    const store_value_t values[] = {store_text(id_text), store_text(ws->row.id_text),
                                    store_text(ws->row.agent_session_id), store_int(ws->attached_ms),
                                    store_text(reason)};
    return store_exec(ws->all->gw->store, STORE_ASSIGNMENT_OPEN, values, COUNT_OF(values), done, arg, e);
}

static int write_close(workspace_t *ws, const char *session, const char *reason, store_done_fn done, void *arg,
                       err_t **e)
{
    const store_value_t values[] = {store_text(ws->row.id_text), store_int((int64_t)clock_realtime_ms()),
                                    store_text(reason), store_text(session)};
    return store_exec(ws->all->gw->store, STORE_ASSIGNMENT_CLOSE, values, COUNT_OF(values), done, arg, e);
}

static int write_holder(workspace_t *ws, err_t **e)
{
    const store_value_t values[] = {store_text(ws->row.id_text), store_text(ws->row.agent_session_id),
                                    store_int((int64_t)clock_realtime_ms())};
    return store_exec(ws->all->gw->store, STORE_WORKSPACE_SESSION, values, COUNT_OF(values), NULL, NULL, e);
}

static void complain(const workspace_t *ws, const err_t *err)
{
    if (err != NULL)
        log_write(LOG_LEVEL_ERROR, &(log_ctx_t){.sandbox = ws->row.id_text}, "history of sessions: %s",
                  err_message(err));
}

void workspace_open_first_assignment(workspace_t *ws)
{
    auto_err err_t *e = NULL;
    if (ws->row.agent_session_id != NULL)
        (void)write_open(ws, "create", NULL, NULL, &e);
    complain(ws, e); /* the next start opens it: workspaces_load_sessions */
}

void workspace_end_assignment(workspace_t *ws, const char *reason)
{
    auto_err err_t *e = NULL;
    if (ws->row.agent_session_id != NULL)
        (void)write_close(ws, ws->row.agent_session_id, reason, NULL, NULL, &e);
    complain(ws, e);
}

/* The row of the workspace first: what a crash leaves between the two is still attached, and nobody was told else. */
static int write_detach(workspace_t *ws, const char *reason, store_done_fn done, void *arg, err_t **e)
{
    auto_free char *session = mem_strdup(ws->row.agent_session_id);
    set_holder(ws, NULL);
    if (write_holder(ws, e) == 0 && write_close(ws, session, reason, done, arg, e) == 0)
        return 0;
    set_holder(ws, session);
    return -1;
}

void workspace_undo_attach(workspace_t *ws)
{
    auto_err err_t *e = NULL;
    if (ws->destruction == NULL && ws->row.agent_session_id != NULL && !ws->is_assigning)
        (void)write_detach(ws, "the workspace could not be resumed", NULL, NULL, &e);
    complain(ws, e);
}

/* ---- start ---- */

static void on_holders(void *arg, const store_result_t *result, const err_t *err)
{
    (void)err;
    workspaces_t *all = arg;
    for (size_t i = 0; i < result->row_count; i++) {
        uuid16_t id;
        workspace_t *ws = uuid16_parse(&id, store_text_at(result, i, 0)) ? workspaces_get(all, &id) : NULL;
        if (ws == NULL)
            continue;
        set_holder(ws, store_text_at(result, i, 1));
        ws->is_listed = true;
    }
}

int workspaces_load_sessions(workspaces_t *all, err_t **e)
{
    const store_value_t lost[] = {store_int((int64_t)clock_realtime_ms()), store_text("workspace destroyed")};
    for (workspace_t *ws = all->newest; ws != NULL; ws = ws->older)
        ws->is_listed = false;
    if (store_exec_wait(all->gw->store, STORE_ASSIGNMENT_END_LOST, lost, COUNT_OF(lost), NULL, NULL, e) != 0 ||
        store_exec_wait(all->gw->store, STORE_ASSIGNMENT_HOLDERS, NULL, 0, on_holders, all, e) != 0)
        return -1;
    for (workspace_t *ws = all->newest; ws != NULL; ws = ws->older)
        if (!ws->is_listed)
            workspace_open_first_assignment(ws);
    return 0;
}

/* ---- attach ---- */

/* What the insert of an assignment carries to its end. */
typedef struct assigning {
    workspaces_t *all;
    uuid16_t id;
    char session[UUID_TEXT_SIZE];
} assigning_t;

static void refuse_in_use(const workspace_t *ws, err_t **e)
{
    err_set(e, ERR_CONFLICT, "workspace is currently in use by session %s; detach first or wait for session to end",
            ws->row.agent_session_id);
}

/* It is the session's: those who wait are answered once the workspace is ready. */
static void assigned(workspace_t *ws)
{
    auto_err err_t *e = NULL;
    workspaces_touch(ws->all->gw, &ws->row);
    for (waiter_t *w = ws->waiters; w != NULL; w = w->next)
        if (w->kind == WAITER_ASSIGN)
            w->kind = WAITER_ATTACH;
    enum workspace_verdict verdict = workspace_judge(&ws->row, OPERATION_ATTACH, &e);
    if (verdict == VERDICT_ALLOWED && ws->row.status == WORKSPACE_READY)
        workspace_settle(ws, WAITER_ATTACH, NULL);
    else if (verdict == VERDICT_REFUSED || (verdict == VERDICT_ALLOWED && workspace_start_resume(ws, &e) != 0))
        workspace_settle(ws, WAITER_ATTACH, e);
    else if (verdict == VERDICT_JOINS)
        workspace_continue(ws);
}

static void not_assigned(workspace_t *ws, const char *holder, const err_t *err)
{
    auto_err err_t *e = NULL;
    set_holder(ws, holder);
    if (holder != NULL)
        refuse_in_use(ws, &e);
    else
        workspace_database_error(err, &e);
    for (waiter_t *w = ws->waiters; w != NULL; w = w->next)
        w->is_first = false; /* nothing to undo */
    workspace_settle(ws, WAITER_ASSIGN, e);
}

static void on_holder(void *arg, const store_result_t *result, const err_t *err)
{
    assigning_t *a = arg;
    workspace_t *ws = workspaces_get(a->all, &a->id);
    const char *holder = err == NULL && result != NULL && result->row_count > 0 ? store_text_at(result, 0, 0) : NULL;
    if (ws != NULL && ws->destruction == NULL) {
        ws->is_assigning = false;
        if (holder != NULL && strcmp(holder, a->session) == 0)
            assigned(ws);
        else
            not_assigned(ws, holder, err);
    }
    free(a);
}

static void on_assigned(void *arg, const store_result_t *result, const err_t *err)
{
    assigning_t *a = arg;
    workspace_t *ws = workspaces_get(a->all, &a->id);
    auto_err err_t *e = NULL;
    bool is_done = err == NULL && result->changed > 0;
    if (ws == NULL || ws->destruction != NULL) {
        free(a);
        return;
    }
    complain(ws, err);
    if (!is_done) { /* who has it, then? */
        const store_value_t id = store_text(ws->row.id_text);
        if (store_exec(a->all->gw->store, STORE_ASSIGNMENT_HOLDER, &id, 1, on_holder, a, &e) != 0)
            on_holder(a, NULL, e);
        return;
    }
    free(a);
    ws->is_assigning = false;
    if (write_holder(ws, &e) != 0)
        complain(ws, e);
    assigned(ws);
}

static int start_assigning(workspace_t *ws, const char *session, const char *reason, err_t **e)
{
    auto_free char *before = ws->row.agent_session_id == NULL ? NULL : mem_strdup(ws->row.agent_session_id);
    assigning_t *a = mem_alloc(sizeof(*a));
    a->all = ws->all;
    a->id = ws->row.id;
    snprintf(a->session, sizeof(a->session), "%s", session);
    set_holder(ws, session);
    if ((before == NULL || write_close(ws, before, "another session took the stopped workspace", NULL, NULL, e) == 0) &&
        write_open(ws, reason, on_assigned, a, e) == 0) {
        ws->is_assigning = true;
        log_write(LOG_LEVEL_INFO, &(log_ctx_t){.sandbox = ws->row.id_text},
                  "the workspace is attached to session %s; previous session: %s", session,
                  ws->previous_session[0] == '\0' ? "none" : ws->previous_session);
        return 0;
    }
    set_holder(ws, before);
    free(a);
    return -1;
}

/* A workspace that its user stopped is nobody's in fact, whoever it was given to: the next session takes it over. One
 * that was stopped for want of use comes back for its session. */
static bool may_take_over(const workspace_row_t *row)
{
    return row->status == WORKSPACE_STOPPED && row->intent == INTENT_NONE &&
           (row->stop_reason == NULL || strcmp(row->stop_reason, "user") == 0);
}

static int take_attach(const api_request_t *r, struct workspace_attach *m, char session[UUID_TEXT_SIZE], err_t **e)
{
    if (proto_decode(MSG_workspace_attach, m, r->encoded.data, r->encoded.len, e) != 0)
        return -1;
    if (m->agent_session_id == NULL || m->agent_session_id[0] == '\0')
        return err_set(e, ERR_BAD_REQUEST, "agent_session_id is required");
    if (!workspace_session_parse(m->agent_session_id, session))
        return err_set(e, ERR_BAD_REQUEST, "agent_session_id must be a UUID");
    return 0;
}

static int attach(workspace_t *ws, const char *session, const char *reason, bool *is_first, err_t **e)
{
    const workspace_row_t *row = &ws->row;
    enum workspace_verdict verdict = workspace_judge(row, OPERATION_ATTACH, e);
    *is_first = row->agent_session_id == NULL || strcmp(row->agent_session_id, session) != 0;
    if (verdict == VERDICT_REFUSED)
        return -1;
    if (*is_first && row->agent_session_id != NULL && (ws->is_assigning || !may_take_over(row))) {
        refuse_in_use(ws, e);
        return -1;
    }
    if (row->status == WORKSPACE_STOPPED && row->intent == INTENT_NONE && workspace_may_resume(ws, e) != 0)
        return -1;
    return *is_first ? start_assigning(ws, session, reason, e) : 0;
}

void workspace_attach(api_request_t *r)
{
    struct workspace_attach m;
    char session[UUID_TEXT_SIZE];
    bool is_first;
    auto_err err_t *e = NULL;
    workspace_t *ws = workspace_of_request(r);
    if (ws == NULL)
        return;
    if (take_attach(r, &m, session, &e) != 0 || attach(ws, session, m.reason, &is_first, &e) != 0) {
        api_reply_error(r, e);
        return;
    }
    workspace_wait(ws, r, WAITER_ASSIGN)->is_first = is_first;
    if (!ws->is_assigning)
        assigned(ws);
}

/* ---- detach ---- */

static void reply_database_error(api_request_t *r, const err_t *err)
{
    auto_err err_t *e = NULL;
    workspace_database_error(err, &e);
    api_reply_error(r, e);
}

typedef struct detaching {
    api_request_t *r; /* NULL: the client is gone */
    workspaces_t *all;
    uuid16_t id;
    char session[UUID_TEXT_SIZE];
} detaching_t;

static void on_detach_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    detaching_t *d = r->state;
    if (d != NULL)
        d->r = NULL;
}

static void on_detached(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    detaching_t *d = arg;
    api_request_t *r = d->r;
    workspace_t *ws = workspaces_get(d->all, &d->id);
    if (ws != NULL && err != NULL) {
        complain(ws, err);
        if (ws->row.agent_session_id == NULL) /* it is still theirs */
            set_holder(ws, d->session);
    }
    if (r != NULL) {
        r->state = NULL;
        if (err != NULL)
            reply_database_error(r, err);
        else if (ws == NULL)
            api_fail(r, ERR_NOT_FOUND, "the workspace was destroyed meanwhile");
        else
            workspace_reply(r, ws, 200);
    }
    free(d);
}

static int may_detach(const workspace_t *ws, const struct workspace_detach *m, err_t **e)
{
    char session[UUID_TEXT_SIZE];
    const char *holder = ws->row.agent_session_id;
    bool is_named = m->agent_session_id != NULL && m->agent_session_id[0] != '\0';
    if (is_named && !workspace_session_parse(m->agent_session_id, session))
        return err_set(e, ERR_BAD_REQUEST, "agent_session_id must be a UUID");
    if (workspace_judge(&ws->row, OPERATION_DETACH, e) == VERDICT_REFUSED)
        return -1;
    if (is_named && holder != NULL && strcmp(session, holder) != 0)
        return err_set(e, ERR_CONFLICT,
                       "workspace is currently in use by session %s, not by session %s; nothing was detached", holder,
                       session);
    if (ws->is_assigning)
        return err_set(e, ERR_CONFLICT, "workspace is just being attached to session %s; retry in a moment", holder);
    return 0;
}

void workspace_detach(api_request_t *r)
{
    struct workspace_detach m;
    auto_err err_t *e = NULL;
    workspace_t *ws = workspace_of_request(r);
    if (ws == NULL)
        return;
    if (proto_decode(MSG_workspace_detach, &m, r->encoded.data, r->encoded.len, &e) != 0 ||
        may_detach(ws, &m, &e) != 0) {
        api_reply_error(r, e);
        return;
    }
    if (ws->row.agent_session_id == NULL) {
        workspace_reply(r, ws, 200);
        return;
    }
    detaching_t *d = mem_alloc(sizeof(*d));
    *d = (detaching_t){.r = r, .all = ws->all, .id = ws->row.id};
    snprintf(d->session, sizeof(d->session), "%s", ws->row.agent_session_id);
    if (write_detach(ws, m.reason, on_detached, d, &e) != 0) {
        free(d);
        api_reply_error(r, e);
        return;
    }
    r->state = d;
    r->on_close = on_detach_close;
}

/* ---- the history ---- */

typedef struct history {
    api_request_t *r; /* NULL: the client is gone */
    size_t limit;
} history_t;

static void on_history_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    history_t *h = r->state;
    if (h != NULL)
        h->r = NULL;
}

static int write_assignment(const store_result_t *rows, size_t i, json_writer_t *w, err_t **e)
{
    char attached[RFC3339_SIZE], detached[RFC3339_SIZE];
    auto_buf buf_t encoded = {0};
    struct assignment m = {
        .agent_session_id = store_text_at(rows, i, 1),
        .attached_at = rfc3339_format(store_int_at(rows, i, 2), attached),
        .detached_at =
            store_at(rows, i, 3)->kind == STORE_NULL ? NULL : rfc3339_format(store_int_at(rows, i, 3), detached),
        .reason = store_text_at(rows, i, 4),
        .detach_reason = store_text_at(rows, i, 5),
    };
    if (proto_encode(MSG_assignment, &m, &encoded, e) != 0)
        return -1;
    return proto_to_json(MSG_assignment, encoded.data, encoded.len, 0, w, e);
}

static int write_history(history_t *h, const store_result_t *rows, buf_t *json, err_t **e)
{
    json_writer_t w;
    json_writer_init(&w, json);
    json_write_open_array(&w);
    size_t shown = rows->row_count > h->limit ? h->limit : rows->row_count;
    for (size_t i = 0; i < shown; i++)
        if (write_assignment(rows, i, &w, e) != 0)
            return -1;
    json_write_close_array(&w);
    if (shown < rows->row_count) {
        auto_free char *cursor =
            mem_printf("%" PRId64 ".%s", store_int_at(rows, shown - 1, 2), store_text_at(rows, shown - 1, 0));
        http_add_header(h->r->http, "X-Next-Cursor", cursor);
    }
    return 0;
}

static void on_history(void *arg, const store_result_t *result, const err_t *err)
{
    history_t *h = arg;
    api_request_t *r = h->r;
    auto_err err_t *e = NULL;
    auto_buf buf_t json = {0};
    if (r != NULL) {
        r->state = NULL;
        if (err != NULL)
            reply_database_error(r, err);
        else if (write_history(h, result, &json, &e) != 0)
            api_reply_error(r, e);
        else
            api_reply_json(r, 200, &json);
    }
    free(h);
}

static bool parse_cursor(const char *text, int64_t *ms, char id[UUID_TEXT_SIZE])
{
    char number[24];
    uuid16_t uuid;
    const char *dot = strchr(text, '.');
    if (dot == NULL || (size_t)(dot - text) >= sizeof(number) || !uuid16_parse(&uuid, dot + 1))
        return false;
    memcpy(number, text, (size_t)(dot - text));
    number[dot - text] = '\0';
    uuid16_format(&uuid, id);
    return text_to_i64(number, ms) && *ms >= 0;
}

void workspace_assignments(api_request_t *r)
{
    auto_err err_t *e = NULL;
    workspace_t *ws = workspace_of_request(r);
    if (ws == NULL)
        return;
    const char *limit = http_query(r->http, "limit"), *cursor = http_query(r->http, "cursor");
    uint64_t count = LIST_DEFAULT;
    int64_t before_ms = INT64_MAX;
    char before_id[UUID_TEXT_SIZE] = "";
    if (limit != NULL && (!text_to_u64(limit, &count) || count == 0 || count > LIST_MAX)) {
        api_fail(r, ERR_BAD_REQUEST, "limit must be a whole number from 1 to %d", LIST_MAX);
        return;
    }
    if (cursor != NULL && !parse_cursor(cursor, &before_ms, before_id)) {
        api_fail(r, ERR_BAD_REQUEST, "cursor must be taken from X-Next-Cursor of an earlier reply");
        return;
    }
    history_t *h = mem_alloc(sizeof(*h));
    *h = (history_t){.r = r, .limit = count};
    const store_value_t values[] = {store_text(ws->row.id_text), store_int(before_ms), store_text(before_id),
                                    store_int((int64_t)count + 1)};
    if (store_exec(r->gw->store, STORE_ASSIGNMENT_LIST, values, COUNT_OF(values), on_history, h, &e) != 0) {
        free(h);
        api_reply_error(r, e);
        return;
    }
    r->state = h;
    r->on_close = on_history_close;
}
