// SPDX-License-Identifier: Apache-2.0
/* Stop and resume. The decision stands in memory at once (row.intent), is committed, then the daemon is asked, then the
 * result is committed and told. A daemon that goes away leaves the intent: it is asked again when it is back, which is
 * harmless, for both verbs answer the same again. */
#include "services/gateway/workspaces_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gateway/workspace_time.h"

#define RETRY_MIN_MS 2000
#define RETRY_MAX_MS 60000

struct transition {
    workspace_t *ws;
    enum workspace_intent intent;
    enum workspace_status back; /* where it stays when the daemon refuses */
    call_t *call;
    bool is_due;  /* the intent is on disk */
    err_t *error; /* the result, while it is committed */
    char *death;  /* the sandbox ended meanwhile */
    unsigned delay_ms;
    struct event *again;
};

void transition_free(transition_t *t)
{
    if (t == NULL)
        return;
    event_free(t->again);
    err_free(&t->error);
    free(t->death);
    free(t);
}

static void ask(transition_t *t);

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    ask(arg);
}

static transition_t *begin(workspace_t *ws, enum workspace_intent intent)
{
    transition_t *t = mem_alloc(sizeof(*t));
    t->ws = ws;
    t->intent = intent;
    t->back = intent == INTENT_STOP ? WORKSPACE_READY : ws->row.status;
    t->delay_ms = RETRY_MIN_MS;
    t->again = evtimer_new(ws->all->gw->daemon.base, on_again, t);
    ws->transition = t;
    workspace_set_intent(ws, intent);
    return t;
}

/* ---- the end ---- */

static void settle_resumed(workspace_t *ws, const err_t *err)
{
    workspace_settle(ws, WAITER_RESUME, err);
    workspace_settle(ws, WAITER_ATTACH, err);
    workspace_settle(ws, WAITER_TOOL, err);
}

/* Somebody wanted to use it while it was being stopped for want of use. */
static void resume_for_waiters(workspace_t *ws)
{
    auto_err err_t *e = NULL, *refusal = NULL;
    if (workspace_judge(&ws->row, OPERATION_TOOL, &refusal) == VERDICT_REFUSED)
        workspace_settle(ws, WAITER_TOOL, refusal); /* its user stopped it meanwhile, and was told that it is */
    if (workspace_count_waiters(ws, WAITER_TOOL) + workspace_count_waiters(ws, WAITER_ATTACH) == 0)
        return;
    if (workspace_judge(&ws->row, OPERATION_RESUME, &e) != VERDICT_ALLOWED || workspace_start_resume(ws, &e) != 0)
        settle_resumed(ws, e);
}

static void on_settled(workspace_t *ws)
{
    transition_t *t = ws->transition;
    ws->transition = NULL;
    log_write(t->error == NULL ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, &(log_ctx_t){.sandbox = ws->row.id_text},
              "%s of the workspace: %s", workspace_intent_name(t->intent),
              t->error == NULL ? "done" : err_message(t->error));
    if (t->intent == INTENT_STOP) {
        workspace_settle(ws, WAITER_STOP, t->error);
        if (ws->row.status == WORKSPACE_STOPPED)
            resume_for_waiters(ws);
    }
    if (ws->row.status == WORKSPACE_READY && ws->row.intent == INTENT_NONE && t->death != NULL) {
        auto_free char *reason = mem_printf("the sandbox has ended: %s", t->death);
        workspace_set_reason(ws, reason);
        workspace_commit(ws, WORKSPACE_ERROR, NULL);
    }
    if (t->intent == INTENT_RESUME)
        settle_resumed(ws, t->error);
    else if (ws->row.status != WORKSPACE_STOPPED) /* the stop failed: whoever waits goes on with what is there */
        settle_resumed(ws, ws->row.status == WORKSPACE_READY ? NULL : t->error);
    transition_free(t);
}

static void add_warnings(workspace_t *ws, const proto_list_t *warnings)
{
    proto_iter_t it = proto_iter(warnings);
    const char *warning;
    while (proto_iter_str(&it, &warning))
        workspace_warn(ws, warning);
}

static json_t *timings(uint32_t total_ms, const char *phases)
{
    char now[RFC3339_SIZE];
    json_t *object = json_pack("{s:s, s:I}", "at", rfc3339_format((int64_t)clock_realtime_ms(), now), "total_ms",
                               (json_int_t)total_ms);
    json_t *parsed = phases == NULL ? NULL : json_loads(phases, 0, NULL);
    if (json_is_object(parsed))
        json_object_set(object, "phases", parsed);
    json_decref(parsed);
    return object;
}

static void note_processes(workspace_t *ws, bool has_processes)
{
    json_object_set_new(ws->row.metadata, "processes", json_string(has_processes ? "kept" : "ended"));
}

static void on_stopped(transition_t *t, const struct sandbox_stop_reply *reply)
{
    workspace_t *ws = t->ws;
    json_t *stop = timings(reply->total_ms, reply->phases);
    json_object_set_new(stop, "kept_bytes", json_integer((json_int_t)reply->kept_bytes));
    json_object_set_new(ws->row.metadata, "stop", stop);
    note_processes(ws, reply->has_processes);
    add_warnings(ws, &reply->warnings);
    if (ws->row.stop_reason != NULL && strcmp(ws->row.stop_reason, "user") == 0)
        ws->row.last_used_at_ms = (int64_t)clock_realtime_ms();
    workspace_set_reason(ws, NULL);
    workspace_commit(ws, WORKSPACE_STOPPED, on_settled);
}

static void on_resumed(transition_t *t, const struct sandbox_resume_reply *reply)
{
    workspace_t *ws = t->ws;
    json_object_set_new(ws->row.metadata, "resume", timings(reply->total_ms, reply->phases));
    note_processes(ws, reply->has_processes);
    if (reply->programs.count > 0) {
        json_t *programs = json_array();
        proto_iter_t it = proto_iter(&reply->programs);
        const char *program;
        while (proto_iter_str(&it, &program))
            json_array_append_new(programs, json_stringn(program, utf8_valid_prefix(program, strlen(program))));
        json_object_set_new(ws->row.metadata, "programs", programs);
    }
    add_warnings(ws, &reply->warnings);
    workspace_set_stop_reason(ws, NULL);
    workspace_set_reason(ws, NULL);
    ws->row.last_used_at_ms = (int64_t)clock_realtime_ms();
    ws->row.expires_at_ms = workspace_expiry(ws->all, ws, ws->row.last_used_at_ms);
    workspace_commit(ws, WORKSPACE_READY, on_settled);
}

/* The daemon refused: the workspace is what it was, unless the daemon does not have it at all. */
static void refused(transition_t *t, const err_t *err)
{
    workspace_t *ws = t->ws;
    bool is_gone = err_code(err) == ERR_NOT_FOUND;
    err_set(&t->error, is_gone ? ERR_SANDBOX_FAILED : err_code(err), "the workspace could not be %s: %s",
            t->intent == INTENT_STOP ? "stopped" : "resumed", err_message(err));
    if (is_gone || t->intent == INTENT_RESUME)
        workspace_set_reason(ws, err_message(t->error));
    if (t->intent == INTENT_STOP)
        workspace_set_stop_reason(ws, NULL);
    workspace_commit(ws, is_gone ? WORKSPACE_ERROR : t->back, on_settled);
}

/* Whether it happened is not known: who waits is told so, and the daemon is asked again, later or when it is back. */
static void unknown(transition_t *t, const err_t *err)
{
    workspace_t *ws = t->ws;
    auto_err err_t *e = NULL;
    err_set(&e, err_code(err), "%s; the %s goes on as soon as its daemon answers", err_message(err),
            workspace_intent_name(t->intent));
    log_write(LOG_LEVEL_WARN, &(log_ctx_t){.sandbox = ws->row.id_text}, "%s", err_message(e));
    if (t->intent == INTENT_STOP)
        workspace_settle(ws, WAITER_STOP, e);
    settle_resumed(ws, e);
    if (workspace_where(ws) == NULL || workspace_where(ws)->peer == NULL)
        return; /* workspaces_on_peer_up goes on */
    struct timeval delay = {.tv_sec = t->delay_ms / 1000};
    event_add(t->again, &delay);
    t->delay_ms = t->delay_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : t->delay_ms * 2;
}

/* ---- the call ---- */

static void on_error(void *arg, const err_t *err)
{
    transition_t *t = arg;
    t->call = NULL;
    enum err_code code = err_code(err);
    if (code == ERR_PROVIDER_GONE || code == ERR_PROVIDER_UNAVAILABLE || code == ERR_DEADLINE_EXCEEDED)
        unknown(t, err);
    else
        refused(t, err);
}

static void on_reply(void *arg, const uint8_t *body, size_t len)
{
    transition_t *t = arg;
    auto_err err_t *e = NULL;
    struct sandbox_stop_reply stopped;
    struct sandbox_resume_reply resumed;
    t->call = NULL;
    if (t->intent == INTENT_STOP && proto_decode(MSG_sandbox_stop_reply, &stopped, body, len, &e) == 0)
        on_stopped(t, &stopped);
    else if (t->intent == INTENT_RESUME && proto_decode(MSG_sandbox_resume_reply, &resumed, body, len, &e) == 0)
        on_resumed(t, &resumed);
    else
        refused(t, e);
}

static int encode(const transition_t *t, buf_t *body, err_t **e)
{
    json_t *stop = json_object_get(t->ws->row.metadata, "stop");
    struct sandbox_stop_request request = {.without_processes =
                                               json_is_true(json_object_get(stop, "without_processes"))};
    struct empty empty = {0};
    if (t->intent == INTENT_STOP)
        return proto_encode(MSG_sandbox_stop_request, &request, body, e);
    return proto_encode(MSG_empty, &empty, body, e);
}

static void ask(transition_t *t)
{
    static const call_events_t EVENTS = {.on_reply = on_reply, .on_error = on_error};
    workspace_t *ws = t->ws;
    if (!t->is_due || t->call != NULL || ws->commit != NULL)
        return;
    auto_err err_t *e = NULL;
    auto_buf buf_t body = {0};
    fabric_peer_t *peer = workspaces_peer(ws->all->gw, &ws->row, &e);
    call_options_t options = {.sandbox = ws->row.id, .deadline_ms = WORKSPACE_STOP_DEADLINE_MS};
    if (peer != NULL && encode(t, &body, &e) == 0)
        t->call =
            call_start(ws->all->gw->calls, peer, t->intent == INTENT_STOP ? VERB_sandbox_stop : VERB_sandbox_resume,
                       &options, body.data, body.len, &EVENTS, t, &e);
    if (t->call == NULL)
        on_error(t, e);
}

static void on_intent_committed(workspace_t *ws)
{
    ws->transition->is_due = true;
    ask(ws->transition);
}

/* ---- the beginning ---- */

int workspace_start_stop(workspace_t *ws, bool without_processes, const char *reason, err_t **e)
{
    if (workspaces_peer(ws->all->gw, &ws->row, e) == NULL || store_check(ws->all->gw->store, e) != 0)
        return -1;
    begin(ws, INTENT_STOP);
    workspace_set_stop_reason(ws, reason);
    /* On disk with the intent, so that it is asked for in the same way after a crash. A bridged server would find its
     * clients gone and hold their secrets on disk: it is ended. */
    bool is_mcp = strcmp(ws->row.container_type, "mcp_server") == 0;
    json_object_set_new(ws->row.metadata, "stop", json_pack("{s:b}", "without_processes", without_processes || is_mcp));
    workspace_commit_intent(ws, WORKSPACE_STOPPING, INTENT_STOP, on_intent_committed);
    return 0;
}

int workspace_may_resume(workspace_t *ws, err_t **e)
{
    if (ws->node[0] == '\0' || ws->row.provider_workspace_id[0] == '\0')
        return err_set(
            e, ERR_CONFLICT,
            "workspace is in %s state; cannot resume: it never had a sandbox; delete it and create another one",
            workspace_status_name(ws->row.status));
    if (workspaces_peer(ws->all->gw, &ws->row, e) == NULL || store_check(ws->all->gw->store, e) != 0)
        return -1;
    return workspaces_check_room(ws->all, ws, e);
}

int workspace_start_resume(workspace_t *ws, err_t **e)
{
    if (workspace_may_resume(ws, e) != 0)
        return -1;
    begin(ws, INTENT_RESUME);
    workspace_commit_intent(ws, ws->row.status, INTENT_RESUME, on_intent_committed);
    return 0;
}

void workspace_continue(workspace_t *ws)
{
    transition_t *t = ws->transition;
    if (t == NULL) { /* of an earlier life of this gateway */
        t = begin(ws, ws->row.intent);
        t->is_due = true;
    }
    ask(t);
}

void transition_note_death(workspace_t *ws, const char *reason)
{
    free(ws->transition->death);
    ws->transition->death = mem_strdup(reason);
}

void transition_abort(workspace_t *ws)
{
    transition_t *t = ws->transition;
    if (t == NULL)
        return;
    ws->transition = NULL;
    if (t->call != NULL)
        call_cancel(t->call);
    transition_free(t);
}

/* ---- REST ---- */

void workspace_stop(api_request_t *r)
{
    struct workspace_stop m;
    auto_err err_t *e = NULL;
    workspace_t *ws = workspace_of_request(r);
    if (ws == NULL)
        return;
    enum workspace_verdict verdict = workspace_judge(&ws->row, OPERATION_STOP, &e);
    if (verdict == VERDICT_DONE) {
        workspace_reply(r, ws, 200);
        return;
    }
    if (verdict == VERDICT_REFUSED || proto_decode(MSG_workspace_stop, &m, r->encoded.data, r->encoded.len, &e) != 0 ||
        (verdict == VERDICT_ALLOWED && workspace_start_stop(ws, m.without_processes, "user", &e) != 0)) {
        api_reply_error(r, e);
        return;
    }
    workspace_wait(ws, r, WAITER_STOP);
    if (verdict == VERDICT_JOINS) {
        workspace_set_stop_reason(ws, "user"); /* what was an idle stop is one that is wanted now */
        workspace_continue(ws);
    }
}

void workspace_resume(api_request_t *r)
{
    auto_err err_t *e = NULL;
    workspace_t *ws = workspace_of_request(r);
    if (ws == NULL)
        return;
    enum workspace_verdict verdict = workspace_judge(&ws->row, OPERATION_RESUME, &e);
    if (verdict == VERDICT_DONE) {
        workspace_reply(r, ws, 200);
        return;
    }
    if (verdict == VERDICT_REFUSED || (verdict == VERDICT_ALLOWED && workspace_start_resume(ws, &e) != 0)) {
        api_reply_error(r, e);
        return;
    }
    workspace_wait(ws, r, WAITER_RESUME);
    if (verdict == VERDICT_JOINS)
        workspace_continue(ws);
}

void workspaces_wake(workspace_row_t *row, api_request_t *r, route_fn then)
{
    workspace_t *ws = workspace_of(row);
    size_t bytes = 2 * r->encoded.len; /* as JSON and encoded */
    if (workspace_count_waiters(ws, WAITER_TOOL) >= WORKSPACE_WAKING_MAX ||
        ws->all->waking_bytes + bytes > WORKSPACE_WAKING_BYTES) {
        api_fail(r, ERR_OVERLOADED, "too many calls wait for this workspace to be resumed; retry in a moment");
        return;
    }
    auto_err err_t *e = NULL;
    if (row->intent == INTENT_NONE && workspace_start_resume(ws, &e) != 0) {
        api_reply_error(r, e);
        return;
    }
    waiter_t *w = workspace_wait(ws, r, WAITER_TOOL);
    w->then = then;
    w->bytes = bytes;
    ws->all->waking_bytes += bytes;
    workspace_continue(ws);
}
