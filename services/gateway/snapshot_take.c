// SPDX-License-Identifier: Apache-2.0
/* Takes a snapshot: row `creating`, then the daemon, then row `ready`, then the answer. What fails leaves nothing: the
 * row becomes `deleting` with the reason, the answer goes out, and the daemon is told to remove whatever it has. */
#include "services/gateway/idempotency.h"
#include "services/gateway/snapshots_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <openssl/evp.h>
#include <stdio.h>

#define RETRY_MS 1000

/* ---- ids ---- */

static void make_uuid(uuid16_t *id, unsigned version)
{
    id->bytes[6] = (uint8_t)((id->bytes[6] & 0x0f) | (version << 4));
    id->bytes[8] = (uint8_t)((id->bytes[8] & 0x3f) | 0x80);
}

int snapshot_request_id(api_request_t *r, const char *workspace_id, uuid16_t *id, err_t **e)
{
    uint64_t call_id = 0;
    if (idempotency_begin(r, &call_id, e) != 0)
        return -1;
    if (call_id == 0) {
        random_bytes(id, sizeof(*id));
        make_uuid(id, 4);
        return 0;
    }
    idempotency_done(r->gw->idempotency, call_id); /* nothing runs under it: a repetition finds the row */
    uuid16_t of_key;
    idempotency_uuid(r, r->gw->workspaces->suite, &of_key);
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    auto_buf buf_t text = {0};
    buf_append(&text, &of_key, sizeof(of_key)); /* the same key for another workspace is another call */
    buf_append_str(&text, workspace_id);
    if (EVP_Digest(text.data, text.len, digest, &len, EVP_sha256(), NULL) != 1 || len < sizeof(*id))
        return err_set(e, ERR_INTERNAL, "libcrypto could not compute SHA-256");
    memcpy(id, digest, sizeof(*id));
    make_uuid(id, 8); /* RFC 9562, version 8: made from something */
    return 0;
}

/* ---- may it be taken? ---- */

int snapshot_check_source(workspace_t *ws, enum workspace_operation operation, err_t **e)
{
    if (workspace_judge(&ws->row, operation, e) != VERDICT_ALLOWED)
        return -1;
    if (ws->node[0] == '\0')
        return err_set(e, ERR_BAD_REQUEST, "workspace has no provider container; cannot snapshot");
    if (workspaces_peer(ws->all->gw, &ws->row, e) == NULL)
        return -1;
    if (!workspace_where(ws)->capabilities.supports_snapshots)
        return err_set(e, ERR_BAD_REQUEST, "provider %s does not support snapshots", ws->row.provider);
    return store_check(ws->all->gw->store, e);
}

snapshot_t *snapshot_of_workspace(snapshots_t *all, const workspace_t *ws, const uuid16_t *id)
{
    snapshot_t *s = snapshot_new(all);
    const workspace_row_t *row = &ws->row;
    s->id = *id;
    uuid16_format(&s->id, s->id_text);
    snprintf(s->owner, sizeof(s->owner), "%s", row->owner);
    snprintf(s->workspace_id, sizeof(s->workspace_id), "%s", row->id_text);
    s->provider = mem_strdup(row->provider);
    s->node = mem_strdup(ws->node);
    s->name = mem_strdup("");
    s->description = mem_strdup("");
    s->cpu = mem_strdup(row->cpu);
    s->memory = mem_strdup(row->memory);
    s->disk = mem_strdup(row->disk);
    s->image = mem_strdup(row->image);
    s->network = mem_strdup(row->network);
    s->warnings = json_array();
    s->status = SNAPSHOT_CREATING;
    s->created_at_ms = (int64_t)clock_realtime_ms();
    snapshots_add(all, s);
    return s;
}

/* ---- the end ---- */

static void on_failure_committed(snapshot_t *s, const err_t *err)
{
    (void)err;
    auto_err err_t *e = NULL;
    err_set(&e, s->take_code, "%s", s->failure_reason);
    s->is_taking = false;
    snapshot_settle(s, SNAPSHOT_WAITER_TAKE, e);
    snapshot_start_deletion(s);
}

static void fail(snapshot_t *s, const err_t *err)
{
    auto_free char *reason = mem_printf("failed to create snapshot: %s", err_message(err));
    log_write(LOG_LEVEL_ERROR, &(log_ctx_t){.sandbox = s->workspace_id}, "snapshot %s: %s", s->id_text, reason);
    s->take_code = err_code(err);
    snapshot_set_reason(s, reason);
    snapshot_commit(s, SNAPSHOT_DELETING, on_failure_committed);
}

static void on_ready(snapshot_t *s, const err_t *err)
{
    (void)err;
    log_write(LOG_LEVEL_INFO, &(log_ctx_t){.sandbox = s->workspace_id}, "snapshot %s is ready", s->id_text);
    s->is_taking = false;
    snapshot_settle(s, SNAPSHOT_WAITER_TAKE, NULL);
    if (!s->is_hidden)
        snapshots_sweep(s->all); /* it may be one too many of its owner */
}

static int64_t clamp(uint64_t value, int64_t max)
{
    return value > (uint64_t)max ? max : (int64_t)value;
}

void snapshot_take_info(snapshot_t *s, const struct snapshot_info *info)
{
    s->has_processes = info->has_processes;
    s->size_bytes = clamp(info->size_bytes, INT64_MAX);
    s->stall_ms = info->stall_ms;
    snapshot_set_reason(s, NULL);
    proto_iter_t it = proto_iter(&info->warnings);
    const char *text;
    json_array_clear(s->warnings);
    while (proto_iter_str(&it, &text) && json_array_size(s->warnings) < SNAPSHOT_WARNINGS_MAX) {
        size_t len = utf8_valid_prefix(text, strlen(text));
        json_array_append_new(s->warnings, json_stringn(text, utf8_cut(text, len, WORKSPACE_REASON_MAX)));
    }
}

/* The workspace names its last snapshot; in the same order in the store as the snapshot's own row. */
static void note_in_workspace(const snapshot_t *s)
{
    uuid16_t id;
    auto_err err_t *e = NULL;
    workspace_t *ws = uuid16_parse(&id, s->workspace_id) ? workspaces_get(s->all->gw->workspaces, &id) : NULL;
    if (ws == NULL || s->is_hidden)
        return; /* it was destroyed meanwhile: its snapshot stands on its own */
    free(ws->row.snapshot_id);
    ws->row.snapshot_id = mem_strdup(s->id_text);
    store_value_t values[] = {store_text(ws->row.id_text), store_text(s->id_text)};
    if (store_exec(s->all->gw->store, STORE_WORKSPACE_SET_SNAPSHOT, values, 2, NULL, NULL, &e) != 0)
        log_warn("note snapshot %s in its workspace: %s", s->id_text, err_message(e));
}

/* ---- the call ---- */

static void try_later(snapshot_t *s);
static void send_take(snapshot_t *s);

static int judge(const snapshot_t *s, const struct snapshot_info *info, err_t **e)
{
    uuid16_t id;
    if (!uuid16_parse(&id, info->snapshot_id) || memcmp(&id, &s->id, sizeof(id)) != 0)
        return err_set(e, ERR_PROTOCOL, "the %s daemon answered with another snapshot", s->provider);
    if (strcmp(info->state, "ready") != 0 && strcmp(info->state, "creating") != 0)
        return err_set(e, ERR_PROTOCOL, "the %s daemon answered that the snapshot is %s", s->provider, info->state);
    return 0;
}

static void on_taken(void *arg, const uint8_t *body, size_t len)
{
    snapshot_t *s = arg;
    struct snapshot_info info;
    auto_err err_t *e = NULL;
    s->is_called = false;
    if (proto_decode(MSG_snapshot_info, &info, body, len, &e) != 0) {
        err_wrap_code(&e, ERR_PROTOCOL, "bad reply of the %s daemon", s->provider);
        fail(s, e);
    } else if (judge(s, &info, &e) != 0) {
        fail(s, e);
    } else if (strcmp(info.state, "creating") == 0) { /* a call before this one still works at it */
        if (clock_monotonic_ms() - s->take_started_ms < SNAPSHOT_TAKE_DEADLINE_MS) {
            try_later(s);
            return;
        }
        err_set(&e, ERR_DEADLINE_EXCEEDED, "the %s daemon is not done after %d s", s->provider,
                SNAPSHOT_TAKE_DEADLINE_MS / 1000);
        fail(s, e);
    } else {
        snapshot_take_info(s, &info);
        note_in_workspace(s);
        snapshot_commit(s, SNAPSHOT_READY, on_ready);
    }
}

/* A daemon that goes away is no verdict: the call is idempotent by the snapshot's id and made again for a while. */
static void on_take_error(void *arg, const err_t *err)
{
    snapshot_t *s = arg;
    s->is_called = false;
    if (err_code(err) == ERR_PROVIDER_GONE && clock_monotonic_ms() - s->take_started_ms < SNAPSHOT_TAKE_HOPE_MS)
        try_later(s);
    else
        fail(s, err);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    snapshot_t *s = arg;
    if (s->is_taking && !s->is_called)
        send_take(s);
}

/* From the loop, always: the fabric may be in the middle of taking the peer down. */
static void try_later(snapshot_t *s)
{
    struct timeval delay = {.tv_sec = RETRY_MS / 1000};
    event_add(s->again, &delay);
}

static int encode_take(const snapshot_t *s, buf_t *out, err_t **e)
{
    auto_buf buf_t labels = {0};
    const char *pairs[] = {WORKSPACE_LABEL_SUITE, s->all->gw->workspaces->suite, "owner", s->owner};
    for (size_t i = 0; i < COUNT_OF(pairs); i++)
        proto_list_add_str(&labels, pairs[i]);
    struct snapshot_create_request request = {
        .snapshot_id = s->id_text,
        .without_processes = !s->has_processes,
        .labels = proto_list_of(COUNT_OF(pairs) / 2, &labels),
    };
    return proto_encode(MSG_snapshot_create_request, &request, out, e);
}

static void send_take(snapshot_t *s)
{
    static const call_events_t EVENTS = {.on_reply = on_taken, .on_error = on_take_error};
    provider_node_t *n = snapshot_where(s);
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    call_options_t options = {.deadline_ms = SNAPSHOT_TAKE_DEADLINE_MS};
    if (n == NULL || n->peer == NULL)
        err_set(&e, ERR_PROVIDER_GONE, "the %s daemon on node %s is not connected", s->provider, s->node);
    else if (uuid16_parse(&options.sandbox, s->workspace_id) && encode_take(s, &body, &e) == 0)
        s->is_called = call_start(s->all->gw->calls, n->peer, VERB_snapshot_create, &options, body.data, body.len,
                                  &EVENTS, s, &e) != NULL;
    if (!s->is_called)
        on_take_error(s, e);
}

/* A row that could not be written is nothing that ever was. */
static void on_inserted(snapshot_t *s, const err_t *err)
{
    if (err == NULL) {
        send_take(s);
        return;
    }
    log_error("insert the row of a snapshot: %s", err_message(err));
    auto_err err_t *e = NULL;
    store_client_error(err, &e);
    snapshot_settle(s, SNAPSHOT_WAITER_TAKE, e); /* is_taking stays: nobody else may end it */
    snapshots_remove(s);
}

void snapshot_start_take(snapshot_t *s)
{
    if (s->is_taking || s->is_deleting)
        return;
    s->is_taking = true;
    s->take_started_ms = clock_monotonic_ms();
    if (s->again == NULL)
        s->again = evtimer_new(s->all->gw->daemon.base, on_again, s);
    if (s->is_committed)
        try_later(s);
    else
        snapshot_insert(s, on_inserted);
}

void snapshot_take_again(snapshot_t *s)
{
    static const struct timeval NOW = {0};
    if (s->is_taking && !s->is_called && s->is_committed && s->write == NULL)
        event_add(s->again, &NOW);
}
