// SPDX-License-Identifier: Apache-2.0
/* The cache of all workspaces and what reads it: find, touch, count. */
#include "services/gateway/workspaces_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <inttypes.h>
#include <stdio.h>

#define TOUCH_FLUSH_MS 1000
#define RESUME_AFTER_MS 3000 /* daemons have come back by then and told what they have */
#define IDLE_LOOK_MAX_MS 15000
#define BUCKETS_MIN 256

bool workspaces_is_active(const workspace_t *ws, enum workspace_status status)
{
    bool is_running = status != WORKSPACE_STOPPED && status != WORKSPACE_ERROR;
    return (is_running || ws->row.intent == INTENT_RESUME) && strcmp(ws->row.container_type, "agent_workspace") == 0;
}

/* ---- the hash table: ids are random, their first bytes are the hash ---- */

static workspace_t **bucket_of(const workspaces_t *all, const uuid16_t *id)
{
    uint64_t hash;
    memcpy(&hash, id->bytes, sizeof(hash));
    return &all->buckets[hash & (all->bucket_count - 1)];
}

static void grow(workspaces_t *all)
{
    workspace_t **old = all->buckets;
    size_t old_count = all->bucket_count;
    all->bucket_count = old_count == 0 ? BUCKETS_MIN : old_count * 2;
    all->buckets = mem_alloc_array(all->bucket_count, sizeof(workspace_t *));
    for (size_t i = 0; i < old_count; i++)
        for (workspace_t *ws = old[i]; ws != NULL;) {
            workspace_t *next = ws->hash_next;
            workspace_t **bucket = bucket_of(all, &ws->row.id);
            ws->hash_next = *bucket;
            *bucket = ws;
            ws = next;
        }
    free(old);
}

workspace_t *workspaces_get(workspaces_t *all, const uuid16_t *id)
{
    workspace_t *ws = all->bucket_count == 0 ? NULL : *bucket_of(all, id);
    while (ws != NULL && memcmp(&ws->row.id, id, sizeof(*id)) != 0)
        ws = ws->hash_next;
    return ws;
}

static bool is_newer(const workspace_t *a, const workspace_t *b)
{
    if (a->row.created_at_ms != b->row.created_at_ms)
        return a->row.created_at_ms > b->row.created_at_ms;
    return strcmp(a->row.id_text, b->row.id_text) > 0;
}

/* Newest first; nearly always at the front. */
static void list_insert(workspaces_t *all, workspace_t *ws)
{
    workspace_t *newer = NULL, *older = all->newest;
    while (older != NULL && is_newer(older, ws)) {
        newer = older;
        older = older->older;
    }
    ws->newer = newer;
    ws->older = older;
    if (older != NULL)
        older->newer = ws;
    if (newer != NULL)
        newer->older = ws;
    else
        all->newest = ws;
}

static void count(workspace_t *ws, int step)
{
    workspaces_t *all = ws->all;
    all->by_status[ws->row.status] += (size_t)step;
    if (workspaces_is_active(ws, ws->row.status)) {
        all->active += (size_t)step;
        quota_count(ws, step > 0);
    }
}

/* Said once when the share is passed, and again only after it was left. */
static void alert(workspaces_t *all)
{
    const config_t *config = &all->gw->daemon.config;
    bool is_high = all->active * 100 >= (size_t)(config->max_concurrent * config->alert_threshold_pct);
    if (is_high && !all->is_alerted)
        log_warn("%zu of at most %" PRId64 " concurrent workspaces are in use", all->active, config->max_concurrent);
    all->is_alerted = is_high;
}

void workspaces_add(workspaces_t *all, workspace_t *ws)
{
    if (all->count >= all->bucket_count)
        grow(all);
    workspace_t **bucket = bucket_of(all, &ws->row.id);
    ws->hash_next = *bucket;
    *bucket = ws;
    all->count++;
    list_insert(all, ws);
    quota_join(ws);
    count(ws, 1);
    alert(all);
}

void workspaces_remove(workspaces_t *all, workspace_t *ws)
{
    workspace_t **at = bucket_of(all, &ws->row.id);
    while (*at != ws)
        at = &(*at)->hash_next;
    *at = ws->hash_next;
    all->count--;
    if (ws->older != NULL)
        ws->older->newer = ws->newer;
    if (ws->newer != NULL)
        ws->newer->older = ws->older;
    else
        all->newest = ws->older;
    for (workspace_t **touched = &all->touched; *touched != NULL; touched = &(*touched)->touched_next)
        if (*touched == ws) {
            *touched = ws->touched_next;
            break;
        }
    count(ws, -1);
    quota_leave(ws);
    alert(all);
    workspace_free(ws);
}

/* ---- one workspace ---- */

workspace_t *workspace_new(workspaces_t *all)
{
    workspace_t *ws = mem_alloc(sizeof(*ws));
    ws->all = all;
    return ws;
}

void workspace_free(workspace_t *ws)
{
    workspace_drop_waiters(ws);
    creation_free(ws->creation);
    destruction_free(ws->destruction);
    transition_free(ws->transition);
    commit_free(ws->commit);
    workspace_row_t *row = &ws->row;
    char *texts[] = {row->agent_session_id,
                     row->container_type,
                     row->provider,
                     row->provider_workspace_id,
                     row->repository_url,
                     row->branch,
                     row->deployment_mode,
                     row->lifecycle,
                     row->image,
                     row->network,
                     row->failure_reason,
                     row->snapshot_id,
                     row->stop_reason,
                     row->cpu,
                     row->memory,
                     row->disk,
                     ws->node,
                     ws->requested_provider};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        free(texts[i]);
    json_decref(row->metadata);
    json_decref(row->warnings);
    json_decref(row->mcp_config);
    json_decref(row->env);
    free(ws);
}

void workspace_set_status(workspace_t *ws, enum workspace_status status)
{
    bool is_change = ws->row.status != status;
    count(ws, -1);
    ws->row.status = status;
    count(ws, 1);
    ws->settled_ms = clock_monotonic_ms();
    alert(ws->all);
    if (is_change && status == WORKSPACE_ERROR) {
        auto_err err_t *e = NULL;
        err_set(&e, ERR_SANDBOX_FAILED, "%s", ws->row.failure_reason == NULL ? "" : ws->row.failure_reason);
        audit_note(ws->all->gw, "failed", &ws->row, NULL, e);
    }
    if (is_change)
        workspaces_emit_status(ws);
}

void workspace_set_intent(workspace_t *ws, enum workspace_intent intent)
{
    count(ws, -1);
    ws->row.intent = intent;
    count(ws, 1);
    alert(ws->all);
}

void workspace_set_stop_reason(workspace_t *ws, const char *reason)
{
    free(ws->row.stop_reason);
    ws->row.stop_reason = reason == NULL ? NULL : mem_strdup(reason);
}

provider_node_t *workspace_where(workspace_t *ws)
{
    if (ws->where == NULL && ws->node[0] != '\0')
        ws->where = orchestrator_node(ws->all->gw->orchestrator, ws->row.provider, ws->node, true);
    return ws->where;
}

void workspace_place(workspace_t *ws, provider_node_t *n)
{
    free(ws->node);
    free(ws->row.provider);
    ws->node = mem_strdup(n->node);
    ws->row.provider = mem_strdup(n->provider);
    ws->where = n;
}

void workspace_warn(workspace_t *ws, const char *text)
{
    json_t *warnings = ws->row.warnings;
    size_t i;
    json_t *known;
    json_array_foreach(warnings, i, known) if (strcmp(json_string_value(known), text) == 0) return;
    if (json_array_size(warnings) < WORKSPACE_WARNINGS_MAX)
        json_array_append_new(warnings, json_stringn(text, utf8_valid_prefix(text, strlen(text))));
}

void workspace_set_reason(workspace_t *ws, const char *reason)
{
    free(ws->row.failure_reason);
    ws->row.failure_reason =
        reason == NULL ? NULL : mem_strndup(reason, utf8_cut(reason, strlen(reason), WORKSPACE_REASON_MAX));
}

int64_t workspace_expiry(const workspaces_t *all, const workspace_t *ws, int64_t now_ms)
{
    if (strcmp(ws->row.lifecycle, "persistent") == 0)
        return 0;
    int64_t seconds = ws->row.ttl_seconds > 0 ? ws->row.ttl_seconds : all->gw->daemon.config.default_ttl_days * 86400;
    return now_ms + seconds * 1000;
}

/* ---- for the other parts of the gateway ---- */

workspace_row_t *workspaces_find(gateway_t *gw, const char *id_text, const caller_t *caller, err_t **e)
{
    uuid16_t id;
    if (!uuid16_parse(&id, id_text)) {
        err_set(e, ERR_BAD_REQUEST, "invalid workspace id format");
        return NULL;
    }
    workspace_t *ws = workspaces_get(gw->workspaces, &id);
    if (ws == NULL || !ws->is_committed || strcmp(ws->row.owner, caller->owner) != 0) {
        err_set(e, ERR_NOT_FOUND, "workspace '%s' not found", id_text);
        return NULL;
    }
    return &ws->row;
}

fabric_peer_t *workspaces_peer(gateway_t *gw, const workspace_row_t *row, err_t **e)
{
    (void)gw;
    workspace_t *ws = workspace_of((workspace_row_t *)(uintptr_t)row);
    provider_node_t *n = workspace_where(ws);
    if (n != NULL && n->peer != NULL)
        return n->peer;
    err_set(e, ERR_PROVIDER_UNAVAILABLE, "provider \"%s\" on node %s is not connected; retry when its daemon is back",
            row->provider, ws->node);
    return NULL;
}

/* The workspaces of a batch of last uses that is with the store. */
struct flush {
    size_t count;
    uuid16_t ids[];
};

static void flush_later(workspaces_t *all)
{
    static const struct timeval LATER = {.tv_sec = TOUCH_FLUSH_MS / 1000};
    event_add(all->flush_timer, &LATER);
}

static void list_touched(workspace_t *ws)
{
    workspaces_t *all = ws->all;
    if (ws->is_touched)
        return;
    if (all->touched == NULL)
        flush_later(all);
    ws->is_touched = true;
    ws->touched_next = all->touched;
    all->touched = ws;
}

/* One that is lost would let its workspace expire too early after a restart: they are written again. */
static void on_flushed(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    workspaces_t *all = arg;
    flush_t *flush = STEAL_PTR(all->flush);
    if (err != NULL)
        log_error("write the last uses of %zu workspaces, tried again: %s", flush->count, err_message(err));
    for (size_t i = 0; i < flush->count && err != NULL; i++) {
        workspace_t *ws = workspaces_get(all, &flush->ids[i]);
        if (ws != NULL)
            list_touched(ws);
    }
    free(flush);
}

static int send_touched(workspaces_t *all, size_t rows, err_t **e)
{
    store_value_t *values = mem_alloc_array(rows * 3, sizeof(*values));
    store_value_t *at = values;
    flush_t *flush = mem_alloc(sizeof(*flush) + rows * sizeof(flush->ids[0]));
    for (workspace_t *ws = all->touched; ws != NULL; ws = ws->touched_next) {
        flush->ids[flush->count++] = ws->row.id;
        *at++ = store_text(ws->row.id_text);
        *at++ = store_int(ws->row.last_used_at_ms);
        *at++ = ws->row.expires_at_ms == 0 ? store_text(NULL) : store_int(ws->row.expires_at_ms);
    }
    int result = store_check(all->gw->store, e);
    if (result == 0)
        result = store_exec_batch(all->gw->store, STORE_WORKSPACE_TOUCH, values, 3, rows, on_flushed, all, e);
    if (result == 0) {
        free(all->flush); /* only at close is there one: nobody hears of it any more */
        all->flush = STEAL_PTR(flush);
    }
    free(flush);
    free(values);
    return result;
}

static void flush_touched(workspaces_t *all)
{
    size_t rows = 0;
    auto_err err_t *e = NULL;
    for (workspace_t *ws = all->touched; ws != NULL; ws = ws->touched_next)
        rows++;
    if (rows == 0)
        return;
    if (send_touched(all, rows, &e) != 0) {
        flush_later(all); /* the queue is full, or no database there: they stay on the list */
        return;
    }
    for (workspace_t *ws = all->touched; ws != NULL; ws = ws->touched_next)
        ws->is_touched = false;
    all->touched = NULL;
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    workspaces_t *all = arg;
    if (all->flush != NULL)
        flush_later(all);
    else
        flush_touched(all);
}

void workspaces_touch(gateway_t *gw, workspace_row_t *row)
{
    (void)gw;
    workspace_t *ws = workspace_of(row);
    row->last_used_at_ms = (int64_t)clock_realtime_ms();
    row->expires_at_ms = workspace_expiry(ws->all, ws, row->last_used_at_ms);
    list_touched(ws);
}

size_t workspaces_count(const gateway_t *gw, enum workspace_status status)
{
    return gw->workspaces->by_status[status];
}

/* ---- timers ---- */

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    workspaces_sweep(arg);
}

static void on_idle(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    workspaces_stop_idle(arg);
}

/* What a crash interrupted and no daemon has: creating ones start anew, stopping ones without a sandbox end. */
static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    workspaces_t *all = arg;
    for (workspace_t *ws = all->newest, *older; ws != NULL; ws = older) {
        older = ws->older;
        if (ws->commit != NULL || !ws->is_committed)
            continue;
        if (ws->row.status == WORKSPACE_CREATING && ws->creation == NULL)
            workspace_start_creation(ws, NULL, NULL);
        else if (ws->row.intent == INTENT_DESTROY && ws->node[0] == '\0')
            workspace_start_destruction(ws);
    }
    workspaces_sweep(all); /* what expired while nobody swept */
}

/* ---- open and close ---- */

typedef struct loading {
    workspaces_t *all;
    err_t **e;
    bool is_failed;
} loading_t;

static void on_rows(void *arg, const store_result_t *result, const err_t *err)
{
    (void)err;
    loading_t *l = arg;
    for (size_t i = 0; i < result->row_count && !l->is_failed; i++) {
        workspace_t *ws = workspace_from_row(l->all, result, i, l->e);
        if (ws == NULL) {
            l->is_failed = true;
            return;
        }
        ws->is_committed = true;
        workspaces_add(l->all, ws);
    }
}

static void on_suite(void *arg, const store_result_t *result, const err_t *err)
{
    (void)err;
    workspaces_t *all = arg;
    if (result->row_count == 1)
        snprintf(all->suite, sizeof(all->suite), "%s", store_text_at(result, 0, 0));
}

/* The suite's id marks its sandboxes; it is made once, with the database. */
static int load_suite(workspaces_t *all, err_t **e)
{
    uuid16_t fresh;
    random_bytes(&fresh, sizeof(fresh));
    char text[UUID_TEXT_SIZE];
    uuid16_format(&fresh, text);
    store_value_t setting[] = {store_text("suite_id"), store_text(text)};
    if (store_exec_wait(all->gw->store, STORE_SETTING_ADD, setting, 2, NULL, NULL, e) != 0 ||
        store_exec_wait(all->gw->store, STORE_SETTING_GET, setting, 1, on_suite, all, e) != 0)
        return -1;
    return 0;
}

static int check_defaults(const config_t *config, err_t **e)
{
    uint32_t milli;
    uint64_t bytes;
    if (!text_to_milli(config->default_cpu, &milli))
        return err_set(e, ERR_BAD_REQUEST, "WORKSPACE_DEFAULT_CPU must be a number of CPUs such as 2 or 0.5");
    if (!text_to_size(config->default_memory, &bytes))
        return err_set(e, ERR_BAD_REQUEST, "WORKSPACE_DEFAULT_MEMORY must be a size such as 4G");
    if (!text_to_size(config->default_disk, &bytes))
        return err_set(e, ERR_BAD_REQUEST, "WORKSPACE_DEFAULT_DISK must be a size such as 10G");
    return quota_check_config(config, e);
}

static void start_timers(workspaces_t *all)
{
    struct event_base *base = all->gw->daemon.base;
    all->flush_timer = evtimer_new(base, on_flush, all);
    all->sweep_timer = event_new(base, -1, EV_PERSIST, on_sweep, all);
    all->resume_timer = evtimer_new(base, on_resume, all);
    struct timeval sweep = {.tv_sec = all->gw->daemon.config.cleanup_interval_min * 60};
    struct timeval resume = {.tv_sec = RESUME_AFTER_MS / 1000};
    event_add(all->sweep_timer, &sweep);
    event_add(all->resume_timer, &resume);
    all->idle_stop_ms = all->gw->daemon.config.idle_stop_min * 60000;
    all->idle_timer = event_new(base, -1, EV_PERSIST, on_idle, all);
    struct timeval idle = {.tv_sec = IDLE_LOOK_MAX_MS / 1000};
    if (all->idle_stop_ms > 0)
        event_add(all->idle_timer, &idle);
}

int workspaces_open(gateway_t *gw, err_t **e)
{
    if (check_defaults(&gw->daemon.config, e) != 0)
        return -1;
    workspaces_t *all = mem_alloc(sizeof(*all));
    all->gw = gw;
    gw->workspaces = all;
    loading_t loading = {.all = all, .e = e};
    auto_free char *key_file = mem_printf("%s/seal.key", gw->daemon.config.state_dir);
    all->sealer = sealer_open(key_file, NULL, e);
    if (all->sealer == NULL || load_suite(all, e) != 0 ||
        store_exec_wait(gw->store, STORE_WORKSPACE_ALL, NULL, 0, on_rows, &loading, e) != 0 || loading.is_failed ||
        workspaces_load_sessions(all, e) != 0) {
        workspaces_close(gw);
        return -1;
    }
    start_timers(all);
    log_info("%zu workspaces are known", all->count);
    return 0;
}

/* Creates under way are not cancelled: their daemons finish them and the next start adopts the result. */
void workspaces_close(gateway_t *gw)
{
    workspaces_t *all = gw->workspaces;
    if (all == NULL)
        return;
    struct event *timers[] = {all->flush_timer, all->sweep_timer, all->resume_timer, all->idle_timer};
    for (size_t i = 0; i < COUNT_OF(timers); i++)
        if (timers[i] != NULL)
            event_free(timers[i]);
    if (all->flush_timer != NULL)
        flush_touched(all);
    reconcile_free_all(all);
    subscriptions_free(all);
    for (workspace_t *ws = all->newest, *older; ws != NULL; ws = older) {
        older = ws->older;
        workspace_free(ws);
    }
    quota_free_all(all);
    sealer_destroy(&all->sealer);
    free(all->flush);
    free(all->buckets);
    free(all);
    gw->workspaces = NULL;
}
