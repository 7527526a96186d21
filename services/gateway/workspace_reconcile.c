// SPDX-License-Identifier: Apache-2.0
/* A daemon came up: what it has is compared with what the rows say. The daemon is the authority on what exists, the
 * rows on what should. */
#include "services/gateway/workspaces_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#define LIST_DEADLINE_MS 30000

struct reconcile {
    reconcile_t *next;
    workspaces_t *all;
    provider_node_t *node;
    call_t *call;
    uint64_t started_ms; /* what settled later is not judged by this list */
    bool is_unsettled;   /* a sandbox was between two states */
    struct event *again;
};

static void start_list(reconcile_t *r);

static void forget(reconcile_t *r)
{
    reconcile_t **at = &r->all->reconciles;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    event_free(r->again);
    free(r);
}

void reconcile_free_all(workspaces_t *all)
{
    while (all->reconciles != NULL)
        forget(all->reconciles);
}

static bool has_our_label(workspaces_t *all, const struct sandbox_info *info)
{
    proto_iter_t it = proto_iter_map(&info->labels);
    const char *name, *value;
    while (proto_iter_str(&it, &name) && proto_iter_str(&it, &value))
        if (strcmp(name, WORKSPACE_LABEL_SUITE) == 0)
            return strcmp(value, all->suite) == 0;
    return false;
}

static void fail_row(workspace_t *ws, const char *reason)
{
    log_write(LOG_LEVEL_ERROR, &(log_ctx_t){.sandbox = ws->row.id_text}, "%s", reason);
    workspace_set_reason(ws, reason);
    workspace_commit(ws, WORKSPACE_ERROR, NULL);
}

/* The sandbox is here and its row is `creating`: an interrupted create. The create is idempotent by id, so asking this
 * daemon again gives the reply that was lost. What the daemon could not finish goes first; the create was acknowledged
 * and is tried again as after any failure. */
static void judge_creating(workspace_t *ws, provider_node_t *n, const char *state)
{
    if (strcmp(state, "ready") == 0 || strcmp(state, "creating") == 0) {
        creation_abort(ws); /* at most a timer: no call was under way */
        workspace_start_creation(ws, NULL, n);
    } else {
        workspaces_destroy_stray(ws->all, n->peer, &ws->row.id, "it is what an interrupted create left");
        workspace_start_creation(ws, NULL, NULL); /* nothing if one waits for its next try */
    }
}

static void judge_error(workspace_t *ws, provider_node_t *n, const char *state)
{
    bool is_stopped = strcmp(state, "stopped") == 0;
    if (strcmp(state, "ready") != 0 && !is_stopped)
        return;
    if (ws->row.provider_workspace_id[0] == '\0') {
        workspaces_destroy_stray(ws->all, n->peer, &ws->row.id, "its create was given up");
        return;
    }
    log_write(LOG_LEVEL_INFO, &(log_ctx_t){.sandbox = ws->row.id_text}, "the sandbox is back");
    workspace_set_reason(ws, NULL);
    workspace_set_stop_reason(ws, is_stopped ? "daemon" : NULL);
    workspace_commit(ws, is_stopped ? WORKSPACE_STOPPED : WORKSPACE_READY, NULL);
}

/* It was stopped without us, as when its host shuts down. */
static void take_as_stopped(workspace_t *ws)
{
    log_write(LOG_LEVEL_WARN, &(log_ctx_t){.sandbox = ws->row.id_text}, "the daemon has it stopped");
    workspace_warn(ws, "the workspace was stopped by its provider; the next use resumes it");
    workspace_set_stop_reason(ws, "daemon");
    workspace_commit(ws, WORKSPACE_STOPPED, NULL);
}

/* The daemon says what is. */
static void judge_ready(workspace_t *ws, const struct sandbox_info *info)
{
    if (strcmp(info->state, "dead") == 0 || strcmp(info->state, "destroying") == 0) {
        auto_free char *reason =
            mem_printf("the sandbox has ended: %s", info->reason == NULL ? info->state : info->reason);
        fail_row(ws, reason);
    } else if (strcmp(info->state, "stopped") == 0) {
        take_as_stopped(ws);
    }
}

/* A resume that nobody waits for any more, or that was given up, came true: the row says that it is to be stopped. */
static void judge_stopped(workspace_t *ws, const char *state)
{
    auto_err err_t *e = NULL;
    auto_free char *reason = ws->row.stop_reason == NULL ? mem_strdup("user") : mem_strdup(ws->row.stop_reason);
    if (strcmp(state, "ready") != 0)
        return;
    log_write(LOG_LEVEL_WARN, &(log_ctx_t){.sandbox = ws->row.id_text},
              "the sandbox runs though the workspace is stopped: it is stopped again");
    (void)workspace_start_stop(ws, false, reason, &e);
}

static void judge_known(workspace_t *ws, reconcile_t *r, const struct sandbox_info *info)
{
    provider_node_t *n = r->node;
    provider_node_t *creating_at = creation_node(ws->creation);
    bool is_here = workspace_where(ws) == n || (creating_at == NULL ? ws->node[0] == '\0' : creating_at == n);
    if (!is_here) {
        workspaces_destroy_stray(ws->all, n->peer, &ws->row.id, "its workspace lives elsewhere");
        return;
    }
    ws->is_listed = true;
    if (creating_at != NULL || ws->commit != NULL || !ws->is_committed || ws->settled_ms > r->started_ms)
        return; /* in motion: the list is older than what happens now */
    if (ws->row.intent == INTENT_STOP || ws->row.intent == INTENT_RESUME)
        return; /* the daemon was asked when it came up, and its answer decides */
    if (strcmp(info->state, "stopping") == 0 || strcmp(info->state, "resuming") == 0) {
        r->is_unsettled = true; /* asked again when it is over */
        return;
    }
    switch (ws->row.status) {
    case WORKSPACE_CREATING:
        judge_creating(ws, n, info->state);
        break;
    case WORKSPACE_READY:
        judge_ready(ws, info);
        break;
    case WORKSPACE_STOPPING: /* to be destroyed; what is to be stopped was dealt with above */
        workspace_place(ws, n);
        workspace_start_destruction(ws);
        break;
    case WORKSPACE_ERROR:
        judge_error(ws, n, info->state);
        break;
    case WORKSPACE_STOPPED:
        judge_stopped(ws, info->state);
        break;
    }
}

/* ---- strays: a row that this gateway does not know of is a row all the same, so the database is asked first ---- */

typedef struct stray {
    workspaces_t *all;
    provider_node_t *node;
    uuid16_t id;
} stray_t;

static void on_stray_row(void *arg, const store_result_t *result, const err_t *err)
{
    stray_t *stray = arg;
    char id[UUID_TEXT_SIZE];
    uuid16_format(&stray->id, id);
    bool is_known = workspaces_get(stray->all, &stray->id) != NULL;
    if (err != NULL || result == NULL) /* it is found again by the next reconcile */
        log_write(LOG_LEVEL_WARN, &(log_ctx_t){.sandbox = id}, "look for the row of a sandbox: %s", err_message(err));
    else if (result->row_count > 0)
        log_write(
            LOG_LEVEL_WARN, &(log_ctx_t){.sandbox = id},
            "the database has a workspace that this gateway does not know of; its sandbox is left alone. Only one "
            "gateway may serve a database");
    else if (!is_known && stray->node->peer != NULL)
        workspaces_destroy_stray(stray->all, stray->node->peer, &stray->id, "no workspace has it");
    free(stray);
}

static void judge_stray(reconcile_t *r, const uuid16_t *id)
{
    stray_t *stray = mem_alloc(sizeof(*stray));
    char text[UUID_TEXT_SIZE];
    auto_err err_t *e = NULL;
    *stray = (stray_t){.all = r->all, .node = r->node, .id = *id};
    uuid16_format(id, text);
    const store_value_t value = store_text(text);
    if (store_exec(r->all->gw->store, STORE_WORKSPACE_KNOWN, &value, 1, on_stray_row, stray, &e) != 0)
        on_stray_row(stray, NULL, e);
}

static void judge_sandbox(reconcile_t *r, const struct sandbox_info *info)
{
    uuid16_t id;
    if (!uuid16_parse(&id, info->id))
        return;
    workspace_t *ws = workspaces_get(r->all, &id);
    if (ws != NULL)
        judge_known(ws, r, info);
    else if (has_our_label(r->all, info))
        judge_stray(r, &id);
}

static void judge_missing(workspace_t *ws, const reconcile_t *r)
{
    if (ws->commit != NULL || ws->creation != NULL || !ws->is_committed || ws->settled_ms > r->started_ms ||
        ws->row.intent == INTENT_STOP || ws->row.intent == INTENT_RESUME)
        return;
    if (ws->row.status == WORKSPACE_READY || ws->row.status == WORKSPACE_STOPPED) {
        auto_free char *reason = mem_printf("the sandbox is gone: the %s daemon on node %s does not have it",
                                            r->node->provider, r->node->node);
        fail_row(ws, reason);
    } else if (ws->row.status == WORKSPACE_STOPPING) {
        workspace_start_destruction(ws);
    } else if (ws->row.status == WORKSPACE_CREATING) {
        workspace_start_creation(ws, NULL, NULL);
    }
}

static void list_later(reconcile_t *r)
{
    struct timeval delay = {.tv_sec = WORKSPACE_RETRY_MS / 1000};
    event_add(r->again, &delay);
}

static void on_list(void *arg, const uint8_t *body, size_t len)
{
    reconcile_t *r = arg;
    struct sandbox_list_reply list;
    auto_err err_t *e = NULL;
    if (proto_decode(MSG_sandbox_list_reply, &list, body, len, &e) != 0) {
        log_error("list of sandboxes on %s: %s", r->node->node, err_message(e));
        forget(r);
        return;
    }
    workspaces_t *all = r->all;
    for (workspace_t *ws = all->newest; ws != NULL; ws = ws->older)
        ws->is_listed = false;
    proto_iter_t it = proto_iter(&list.sandboxes);
    proto_nested_t nested;
    struct sandbox_info info;
    while (proto_iter_msg(&it, &nested)) {
        auto_err err_t *bad = NULL;
        if (proto_decode(MSG_sandbox_info, &info, nested.bytes, nested.len, &bad) == 0)
            judge_sandbox(r, &info);
        else
            log_error("a sandbox in the list of %s: %s", r->node->node, err_message(bad));
    }
    for (workspace_t *ws = all->newest, *older; ws != NULL; ws = older) {
        older = ws->older;
        if (!ws->is_listed && workspace_where(ws) == r->node)
            judge_missing(ws, r);
    }
    r->call = NULL;
    if (r->is_unsettled)
        list_later(r);
    else
        forget(r);
}

static void on_list_error(void *arg, const err_t *err)
{
    reconcile_t *r = arg;
    r->call = NULL;
    if (err_code(err) == ERR_PROVIDER_GONE) { /* its next coming up reconciles */
        forget(r);
        return;
    }
    log_warn("list the sandboxes of %s on %s: %s", r->node->provider, r->node->node, err_message(err));
    list_later(r);
}

static void start_list(reconcile_t *r)
{
    static const call_events_t EVENTS = {.on_reply = on_list, .on_error = on_list_error};
    if (r->node->peer == NULL) {
        forget(r);
        return;
    }
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    struct empty empty = {0};
    call_options_t options = {.deadline_ms = LIST_DEADLINE_MS};
    r->started_ms = clock_monotonic_ms();
    r->is_unsettled = false;
    if (proto_encode(MSG_empty, &empty, &body, &e) == 0)
        r->call = call_start(r->all->gw->calls, r->node->peer, VERB_sandbox_list, &options, body.data, body.len,
                             &EVENTS, r, &e);
    if (r->call == NULL)
        on_list_error(r, e);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    start_list(arg);
}

/* ---- from the fabric ---- */

/* What is intended goes on at once: for that no list is needed. */
static void continue_intents(workspaces_t *all, const provider_node_t *n)
{
    for (workspace_t *ws = all->newest, *older; ws != NULL; ws = older) {
        older = ws->older;
        if (!ws->is_committed || workspace_where(ws) != n)
            continue;
        if (ws->row.intent == INTENT_DESTROY)
            workspace_start_destruction(ws);
        else if (ws->row.intent != INTENT_NONE)
            workspace_continue(ws);
    }
}

void workspaces_on_peer_up(gateway_t *gw, fabric_peer_t *peer)
{
    orchestrator_on_peer_up(gw, peer); /* idempotent: whichever of the two the caller tells first */
    provider_node_t *n = orchestrator_node_of_peer(gw->orchestrator, peer);
    if (n == NULL)
        return;
    continue_intents(gw->workspaces, n);
    for (reconcile_t *r = gw->workspaces->reconciles; r != NULL; r = r->next)
        if (r->node == n)
            return; /* under way; its failure tries again */
    reconcile_t *r = mem_alloc(sizeof(*r));
    r->all = gw->workspaces;
    r->node = n;
    r->again = evtimer_new(gw->daemon.base, on_again, r);
    r->next = gw->workspaces->reconciles;
    gw->workspaces->reconciles = r;
    start_list(r);
}

/* Calls in flight fail by themselves (call_table_on_down) and say what to do; rows stay as they are until the daemon is
 * back. */
void workspaces_on_peer_down(gateway_t *gw, fabric_peer_t *peer)
{
    provider_node_t *n = orchestrator_node_of_hello(gw->orchestrator, fabric_peer_hello(peer), false);
    for (workspace_t *ws = gw->workspaces->newest; n != NULL && ws != NULL; ws = ws->older)
        if (workspace_where(ws) == n)
            workspaces_emit_notice(ws, "provider_gone", "the provider daemon is not connected now");
}

static void save_note(workspace_t *ws)
{
    auto_err err_t *e = NULL;
    if (workspace_save_note(ws, NULL, NULL, &e) != 0)
        log_write(LOG_LEVEL_ERROR, &(log_ctx_t){.sandbox = ws->row.id_text}, "note on the workspace: %s",
                  err_message(e));
}

static void on_dead(workspace_t *ws, const char *reason)
{
    auto_free char *text = mem_printf("the sandbox has ended: %s", reason);
    if (ws->transition != NULL)
        transition_note_death(ws, reason); /* its result decides */
    else if (ws->row.status == WORKSPACE_READY)
        fail_row(ws, text);
}

/* Its daemon started it anew from its files: the workspace lives, its processes do not. */
static void on_restarted(workspace_t *ws, const char *reason)
{
    auto_free char *text = mem_printf("the sandbox died (%s) and was started anew from its files",
                                      reason[0] == '\0' ? "no reason was given" : reason);
    log_write(LOG_LEVEL_WARN, &(log_ctx_t){.sandbox = ws->row.id_text}, "%s", text);
    audit_note(ws->all->gw, "restart", &ws->row, text, NULL);
    json_int_t restarts = json_integer_value(json_object_get(ws->row.metadata, "restarts"));
    json_object_set_new(ws->row.metadata, "restarts", json_integer(restarts + 1));
    workspace_warn(ws, text);
    if (ws->row.status == WORKSPACE_ERROR && ws->row.intent == INTENT_NONE && ws->commit == NULL) {
        workspace_set_reason(ws, NULL);
        workspace_commit(ws, WORKSPACE_READY, NULL);
    } else {
        save_note(ws);
    }
}

void workspaces_on_sandbox_event(gateway_t *gw, fabric_peer_t *peer, const uuid16_t *sandbox,
                                 const struct sandbox_event *event)
{
    workspace_t *ws = workspaces_get(gw->workspaces, sandbox);
    if (ws == NULL || workspace_where(ws) == NULL || workspace_where(ws)->peer != peer)
        return; /* not ours, or told by a daemon that does not have it */
    const char *reason = event->reason == NULL ? "" : event->reason;
    if (strcmp(event->type, "dead") == 0 && ws->destruction == NULL)
        on_dead(ws, reason);
    else if (strcmp(event->type, "stopped") == 0) {
        if (ws->row.status == WORKSPACE_READY && ws->row.intent == INTENT_NONE && ws->commit == NULL)
            take_as_stopped(ws); /* else its list tells when the daemon is back */
    } else if (strcmp(event->type, "restarted") == 0)
        on_restarted(ws, reason);
    else if (strcmp(event->type, "oom") == 0) {
        workspace_warn(ws, reason[0] == '\0' ? "a process was ended because memory ran out" : reason);
        save_note(ws);
    }
    workspaces_emit_notice(ws, event->type, reason);
}
