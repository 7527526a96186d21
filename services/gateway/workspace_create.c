// SPDX-License-Identifier: Apache-2.0
/* Makes a workspace's sandbox: candidate after candidate until one says ready. Every attempt is written down in
 * metadata.attempts. A daemon that dies under a create is no verdict on the request: it is tried again for a while. */
#include "services/gateway/workspaces_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gateway/workspace_time.h"

#define CREATE_RETRY_MS 2000
#define CREATE_RETRY_TOTAL_MS 30000 /* how long to hope for a daemon that went away */
#define ATTEMPTS_MAX 32

struct creation {
    workspace_t *ws;
    pick_t pick;
    provider_node_t *only_node;
    size_t next;           /* candidate to try */
    provider_node_t *node; /* of the call under way */
    call_t *call;
    uint64_t started_ms, attempt_ms; /* monotonic */
    int64_t attempt_at_ms;
    bool is_picked;
    bool may_hope; /* the last failure was no verdict: the daemon went away, or is still removing what it left */
    buf_t reasons;
    struct event *again; /* next candidate, or all over again */
};

static void try_next(creation_t *c);

provider_node_t *creation_node(const creation_t *c)
{
    return c == NULL || c->call == NULL ? NULL : c->node;
}

void creation_free(creation_t *c)
{
    if (c == NULL)
        return;
    pick_free(&c->pick);
    buf_free(&c->reasons);
    event_free(c->again);
    free(c);
}

static void leave_node(creation_t *c)
{
    if (c->node != NULL)
        c->node->pending--;
    c->call = NULL;
}

void creation_abort(workspace_t *ws)
{
    creation_t *c = ws->creation;
    if (c == NULL)
        return;
    if (c->call != NULL) {
        workspace_place(ws, c->node); /* where the half made thing must be destroyed */
        call_cancel(c->call);
        leave_node(c);
    }
    ws->creation = NULL;
    creation_free(c);
}

/* ---- attempts ---- */

static void note_attempt(creation_t *c, const char *error)
{
    json_t *metadata = c->ws->row.metadata;
    json_t *attempts = json_object_get(metadata, "attempts");
    if (!json_is_array(attempts)) {
        attempts = json_array();
        json_object_set_new(metadata, "attempts", attempts);
    }
    if (json_array_size(attempts) >= ATTEMPTS_MAX)
        json_array_remove(attempts, 0);
    char started[RFC3339_SIZE];
    json_t *attempt = json_pack("{s:s, s:s, s:s, s:I}", "provider", c->node->provider, "node", c->node->node,
                                "started_at", rfc3339_format(c->attempt_at_ms, started), "duration_ms",
                                (json_int_t)(clock_monotonic_ms() - c->attempt_ms));
    if (error != NULL)
        json_object_set_new(attempt, "error", json_stringn(error, utf8_valid_prefix(error, strlen(error))));
    json_array_append_new(attempts, attempt);
}

static void attempt_failed(creation_t *c, const err_t *err)
{
    log_ctx_t ctx = {.sandbox = c->ws->row.id_text};
    log_write(LOG_LEVEL_WARN, &ctx, "provider %s on %s could not make the sandbox: %s", c->node->provider,
              c->node->node, err_message(err));
    note_attempt(c, err_message(err));
    bool has_remains = err_code(err) == ERR_CONFLICT;
    c->may_hope = err_code(err) == ERR_PROVIDER_GONE || has_remains;
    buf_printf(&c->reasons, "%s%s: %s", c->reasons.len > 0 ? "; " : "", c->node->provider, err_message(err));
    /* A create that was given up may still come true over there. */
    const char *why = has_remains ? "it is what an interrupted create left" : "its create took too long";
    if ((has_remains || err_code(err) == ERR_DEADLINE_EXCEEDED) && c->node->peer != NULL)
        workspaces_destroy_stray(c->ws->all, c->node->peer, &c->ws->row.id, why);
    c->node = NULL;
}

static void finish_failed(workspace_t *ws)
{
    workspace_settle(ws, WAITER_CREATE, NULL);
}

static void give_up(creation_t *c)
{
    workspace_t *ws = c->ws;
    buf_t reason = {0};
    if (c->pick.is_explicit && c->reasons.len > 0)
        buf_printf(&reason, "the workspace could not be created: %s", buf_cstr(&c->reasons));
    else if (c->reasons.len > 0)
        buf_printf(&reason, "all providers failed: %s%s%s", buf_cstr(&c->reasons), c->pick.reasons.len > 0 ? "; " : "",
                   buf_cstr(&c->pick.reasons));
    else {
        auto_err err_t *e = NULL;
        (void)pick_error(&c->pick, &e);
        buf_append_str(&reason, err_message(e));
    }
    workspace_set_reason(ws, buf_cstr(&reason));
    log_write(LOG_LEVEL_ERROR, &(log_ctx_t){.sandbox = ws->row.id_text}, "%s", buf_cstr(&reason));
    buf_free(&reason);
    ws->creation = NULL;
    creation_free(c);
    workspace_commit(ws, WORKSPACE_ERROR, finish_failed);
}

static void try_later(creation_t *c, unsigned delay_ms)
{
    struct timeval delay = {.tv_sec = delay_ms / 1000, .tv_usec = (delay_ms % 1000) * 1000};
    event_add(c->again, &delay);
}

/* ---- success ---- */

static void finish_ready(workspace_t *ws)
{
    log_write(LOG_LEVEL_INFO, &(log_ctx_t){.sandbox = ws->row.id_text}, "the workspace is ready: provider %s on %s",
              ws->row.provider, ws->node);
    workspace_settle(ws, WAITER_CREATE, NULL);
}

static json_t *list_to_json(const proto_list_t *list)
{
    json_t *array = json_array();
    proto_iter_t it = proto_iter(list);
    const char *text;
    while (proto_iter_str(&it, &text))
        json_array_append_new(array, json_stringn(text, utf8_valid_prefix(text, strlen(text))));
    return array;
}

static void take_reply(workspace_t *ws, const struct sandbox_create_reply *reply)
{
    json_t *metadata = ws->row.metadata;
    free(ws->row.provider_workspace_id);
    ws->row.provider_workspace_id =
        mem_strdup(reply->provider_workspace_id == NULL ? "" : reply->provider_workspace_id);
    json_object_set_new(metadata, "warm", json_boolean(reply->was_warm));
    if (reply->isolation != NULL)
        json_object_set_new(
            metadata, "isolation",
            json_stringn(reply->isolation, utf8_valid_prefix(reply->isolation, strlen(reply->isolation))));
    json_object_set_new(metadata, "programs", list_to_json(&reply->programs));
    json_t *phases = reply->phases == NULL ? NULL : json_loads(reply->phases, 0, NULL);
    if (json_is_object(phases))
        json_object_set(metadata, "phases", phases);
    json_decref(phases);
    proto_iter_t it = proto_iter(&reply->warnings);
    const char *warning;
    while (proto_iter_str(&it, &warning))
        workspace_warn(ws, warning);
}

static void on_created(void *arg, const uint8_t *body, size_t len)
{
    creation_t *c = arg;
    workspace_t *ws = c->ws;
    leave_node(c);
    struct sandbox_create_reply reply;
    auto_err err_t *e = NULL;
    if (proto_decode(MSG_sandbox_create_reply, &reply, body, len, &e) != 0) {
        err_wrap_code(&e, ERR_PROTOCOL, "bad reply of the %s daemon", c->node->provider);
        attempt_failed(c, e);
        try_later(c, 0);
        return;
    }
    note_attempt(c, NULL);
    workspace_place(ws, c->node);
    take_reply(ws, &reply);
    workspace_set_reason(ws, NULL);
    ws->creation = NULL;
    creation_free(c);
    workspace_commit(ws, WORKSPACE_READY, finish_ready);
}

static void on_create_error(void *arg, const err_t *err)
{
    creation_t *c = arg;
    leave_node(c);
    attempt_failed(c, err);
    /* From the loop: the fabric may be in the middle of taking this peer down. */
    try_later(c, 0);
}

/* ---- the call ---- */

static void add_pair(buf_t *b, uint32_t *count, const char *name, const char *value)
{
    proto_list_add_str(b, name);
    proto_list_add_str(b, value);
    (*count)++;
}

static int encode_request(const workspace_t *ws, buf_t *out, err_t **e)
{
    const workspace_row_t *row = &ws->row;
    auto_buf buf_t env = {0};
    auto_buf buf_t labels = {0};
    uint32_t env_count = 0, label_count = 0;
    const char *name;
    json_t *value;
    json_object_foreach(row->env, name, value) add_pair(&env, &env_count, name, json_string_value(value));
    add_pair(&labels, &label_count, WORKSPACE_LABEL_SUITE, ws->all->suite);
    add_pair(&labels, &label_count, "owner", row->owner);
    add_pair(&labels, &label_count, "container_type", row->container_type);
    struct sandbox_create_request request = {
        .image = row->image,
        .network = row->network,
        .pids_max = (uint32_t)ws->all->gw->daemon.config.default_pids,
        .env = proto_list_of(env_count, &env),
        .labels = proto_list_of(label_count, &labels),
        .use_warm = ws->use_warm,
        .snapshot_id = row->snapshot_id, /* nobody has taken one of it yet: it is made from this */
    };
    (void)text_to_milli(row->cpu, &request.cpu_milli); /* checked when the row was made */
    (void)text_to_size(row->memory, &request.memory_bytes);
    (void)text_to_size(row->disk, &request.disk_bytes);
    int result = proto_encode(MSG_sandbox_create_request, &request, out, e);
    buf_wipe(&env);
    return result;
}

static int call_node(creation_t *c, provider_node_t *n, err_t **e)
{
    static const call_events_t EVENTS = {.on_reply = on_created, .on_error = on_create_error};
    buf_t request = {0};
    if (n->peer == NULL)
        return err_set(e, ERR_PROVIDER_GONE, "its daemon on node %s is not connected", n->node);
    int result = encode_request(c->ws, &request, e);
    if (result == 0) {
        call_options_t options = {.sandbox = c->ws->row.id, .deadline_ms = WORKSPACE_CREATE_DEADLINE_MS};
        c->call = call_start(c->ws->all->gw->calls, n->peer, VERB_sandbox_create, &options, request.data, request.len,
                             &EVENTS, c, e);
        result = c->call == NULL ? -1 : 0;
    }
    buf_wipe(&request);
    return result;
}

static void pick_again(creation_t *c)
{
    pick_request_t request;
    workspace_pick_request(c->ws, &request);
    pick_free(&c->pick);
    orchestrator_pick(c->ws->all->gw->orchestrator, &request, &c->pick);
    if (c->ws->row.snapshot_id != NULL)
        c->only_node = workspace_where(c->ws); /* only there is the snapshot */
    if (c->only_node != NULL) {                /* it has the sandbox, whatever it thinks of new ones */
        c->pick.candidates[0] = c->only_node;
        c->pick.count = 1;
        c->only_node = NULL;
    }
    c->next = 0;
    c->is_picked = true;
    buf_reset(&c->reasons);
}

static void try_next(creation_t *c)
{
    if (!c->is_picked)
        pick_again(c);
    while (c->next < c->pick.count) {
        c->node = c->pick.candidates[c->next++];
        c->attempt_ms = clock_monotonic_ms();
        c->attempt_at_ms = (int64_t)clock_realtime_ms();
        auto_err err_t *e = NULL;
        if (call_node(c, c->node, &e) == 0) {
            c->node->pending++;
            return;
        }
        attempt_failed(c, e);
    }
    bool may_hope = c->may_hope || (c->pick.count == 0 && !c->pick.is_callers_fault);
    if (may_hope && clock_monotonic_ms() - c->started_ms < CREATE_RETRY_TOTAL_MS) {
        c->is_picked = false;
        try_later(c, CREATE_RETRY_MS);
        return;
    }
    give_up(c);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    try_next(arg);
}

void workspace_start_creation(workspace_t *ws, pick_t *pick, provider_node_t *only_node)
{
    if (ws->creation != NULL)
        return;
    creation_t *c = mem_alloc(sizeof(*c));
    c->ws = ws;
    c->started_ms = clock_monotonic_ms();
    c->again = evtimer_new(ws->all->gw->daemon.base, on_again, c);
    c->only_node = only_node;
    if (pick != NULL) {
        c->pick = *pick;
        memset(pick, 0, sizeof(*pick));
        c->is_picked = true;
    }
    ws->creation = c;
    try_next(c);
}
