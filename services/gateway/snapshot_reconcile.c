// SPDX-License-Identifier: Apache-2.0
/* A daemon came up: what it has is compared with what the rows say. The daemon is the authority on what exists, the
 * rows on what should. */
#include "services/gateway/snapshots_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#define LIST_DEADLINE_MS 30000

struct snapshot_list {
    snapshot_list_t *next;
    snapshots_t *all;
    provider_node_t *node;
    uint64_t started_ms; /* what settled later is not judged by this list */
    struct event *again;
};

static void start_list(snapshot_list_t *l);

static void forget(snapshot_list_t *l)
{
    snapshot_list_t **at = &l->all->lists;
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    event_free(l->again);
    free(l);
}

void snapshot_lists_free(snapshots_t *all)
{
    while (all->lists != NULL)
        forget(all->lists);
}

static bool has_our_label(const snapshots_t *all, const struct snapshot_info *info)
{
    proto_iter_t it = proto_iter_map(&info->labels);
    const char *name, *value;
    while (proto_iter_str(&it, &name) && proto_iter_str(&it, &value))
        if (strcmp(name, WORKSPACE_LABEL_SUITE) == 0)
            return strcmp(value, all->gw->workspaces->suite) == 0;
    return false;
}

static bool is_in_motion(const snapshot_t *s, const snapshot_list_t *l)
{
    return s->is_taking || s->is_deleting || s->write != NULL || !s->is_committed || s->settled_ms > l->started_ms;
}

/* ---- strays: a row of another gateway on the same database is no stray, so the database is asked first ---- */

typedef struct stray {
    snapshots_t *all;
    provider_node_t *node;
    char id_text[UUID_TEXT_SIZE];
} stray_t;

static void on_row(void *arg, const store_result_t *result, const err_t *err)
{
    stray_t *stray = arg;
    uuid16_t id;
    bool is_known = uuid16_parse(&id, stray->id_text) && snapshots_get(stray->all, &id) != NULL;
    if (err == NULL && result->row_count == 0 && !is_known && stray->node->peer != NULL)
        snapshots_delete_stray(stray->all, stray->node->peer, stray->id_text, "no row knows it");
    free(stray);
}

static void judge_stray(const snapshot_list_t *l, const uuid16_t *id)
{
    stray_t *stray = mem_alloc(sizeof(*stray));
    auto_err err_t *e = NULL;
    *stray = (stray_t){.all = l->all, .node = l->node};
    uuid16_format(id, stray->id_text);
    store_value_t value = store_text(stray->id_text);
    if (store_exec(l->all->gw->store, STORE_SNAPSHOT_GET, &value, 1, on_row, stray, &e) != 0) {
        log_warn("look for the row of snapshot %s: %s", stray->id_text, err_message(e));
        free(stray);
    }
}

/* ---- rows ---- */

static void judge_here(snapshot_t *s, const snapshot_list_t *l, const struct snapshot_info *info)
{
    bool is_ready = strcmp(info->state, "ready") == 0;
    if (is_in_motion(s, l) || s->status == SNAPSHOT_DELETING)
        return;
    if (is_ready && s->status != SNAPSHOT_READY) {
        log_info("snapshot %s is ready: its daemon has it", s->id_text);
        snapshot_take_info(s, info);
        snapshot_commit(s, SNAPSHOT_READY, NULL);
    } else if (s->status == SNAPSHOT_CREATING && strcmp(info->state, "creating") == 0) {
        snapshot_start_take(s); /* the same call again brings its reply */
    }
}

static void judge_missing(snapshot_t *s, const snapshot_list_t *l)
{
    if (is_in_motion(s, l) || s->status != SNAPSHOT_READY)
        return; /* `creating`: a repeated request may still want it; the sweep ends it */
    auto_free char *reason =
        mem_printf("the %s daemon on node %s does not have it any more", l->node->provider, l->node->node);
    log_error("snapshot %s: %s", s->id_text, reason);
    snapshot_set_reason(s, reason);
    snapshot_commit(s, SNAPSHOT_ERROR, NULL);
}

static bool is_of_node(const snapshot_t *s, const provider_node_t *n)
{
    return strcmp(s->provider, n->provider) == 0 && strcmp(s->node, n->node) == 0;
}

static void judge_info(const snapshot_list_t *l, const struct snapshot_info *info)
{
    uuid16_t id;
    if (!uuid16_parse(&id, info->snapshot_id))
        return;
    snapshot_t *s = snapshots_get(l->all, &id);
    if (s != NULL && is_of_node(s, l->node)) {
        s->is_listed = strcmp(info->state, "destroying") != 0;
        judge_here(s, l, info);
    } else if (s != NULL && has_our_label(l->all, info)) {
        snapshots_delete_stray(l->all, l->node->peer, s->id_text, "it belongs to another node");
    } else if (s == NULL && has_our_label(l->all, info)) {
        judge_stray(l, &id);
    }
}

/* ---- the list ---- */

static void judge_all(snapshot_list_t *l, const struct snapshot_list_reply *list)
{
    snapshots_t *all = l->all;
    for (snapshot_t *s = all->newest; s != NULL; s = s->older)
        s->is_listed = false;
    proto_iter_t it = proto_iter(&list->snapshots);
    proto_nested_t nested;
    struct snapshot_info info;
    while (proto_iter_msg(&it, &nested)) {
        auto_err err_t *bad = NULL;
        if (proto_decode(MSG_snapshot_info, &info, nested.bytes, nested.len, &bad) == 0)
            judge_info(l, &info);
        else
            log_error("a snapshot in the list of %s: %s", l->node->node, err_message(bad));
    }
    for (snapshot_t *s = all->newest; s != NULL; s = s->older)
        if (!s->is_listed && is_of_node(s, l->node))
            judge_missing(s, l);
}

static void on_list(void *arg, const uint8_t *body, size_t len)
{
    snapshot_list_t *l = arg;
    struct snapshot_list_reply list;
    auto_err err_t *e = NULL;
    if (proto_decode(MSG_snapshot_list_reply, &list, body, len, &e) != 0)
        log_error("list of snapshots on %s: %s", l->node->node, err_message(e));
    else if (l->node->peer != NULL)
        judge_all(l, &list);
    forget(l);
}

static void on_list_error(void *arg, const err_t *err)
{
    snapshot_list_t *l = arg;
    if (err_code(err) == ERR_PROVIDER_GONE) { /* its next coming up reconciles */
        forget(l);
        return;
    }
    log_warn("list the snapshots of %s on %s: %s", l->node->provider, l->node->node, err_message(err));
    struct timeval delay = {.tv_sec = WORKSPACE_RETRY_MS / 1000};
    if (err_code_is_retryable(err_code(err)))
        event_add(l->again, &delay);
    else
        forget(l);
}

static void start_list(snapshot_list_t *l)
{
    static const call_events_t EVENTS = {.on_reply = on_list, .on_error = on_list_error};
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    struct empty empty = {0};
    call_options_t options = {.deadline_ms = LIST_DEADLINE_MS};
    call_t *call = NULL;
    l->started_ms = clock_monotonic_ms();
    if (l->node->peer == NULL)
        err_set(&e, ERR_PROVIDER_GONE, "it is not connected any more");
    else if (proto_encode(MSG_empty, &empty, &body, &e) == 0)
        call = call_start(l->all->gw->calls, l->node->peer, VERB_snapshot_list, &options, body.data, body.len, &EVENTS,
                          l, &e);
    if (call == NULL)
        on_list_error(l, e);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    start_list(arg);
}

/* What waits for this daemon goes on at once: for that no list is needed. */
static void resume(snapshots_t *all, const provider_node_t *n)
{
    for (snapshot_t *s = all->newest, *older; s != NULL; s = older) {
        older = s->older;
        if (!is_of_node(s, n))
            continue;
        snapshot_take_again(s);
        if (s->status == SNAPSHOT_DELETING && !s->is_taking && s->is_committed)
            snapshot_start_deletion(s);
    }
}

static bool has_rows(const snapshots_t *all, const provider_node_t *n)
{
    for (const snapshot_t *s = all->newest; s != NULL; s = s->older)
        if (is_of_node(s, n))
            return true;
    return false;
}

void snapshots_on_peer_up(gateway_t *gw, fabric_peer_t *peer)
{
    snapshots_t *all = gw->snapshots;
    orchestrator_on_peer_up(gw, peer); /* idempotent: whichever of them the caller tells first */
    provider_node_t *n = orchestrator_node_of_peer(gw->orchestrator, peer);
    if (n == NULL || all == NULL || (!n->capabilities.supports_snapshots && !has_rows(all, n)))
        return;
    resume(all, n);
    for (snapshot_list_t *l = all->lists; l != NULL; l = l->next)
        if (l->node == n)
            return; /* under way; its failure tries again */
    snapshot_list_t *l = mem_alloc(sizeof(*l));
    l->all = all;
    l->node = n;
    l->again = evtimer_new(gw->daemon.base, on_again, l);
    l->next = all->lists;
    all->lists = l;
    start_list(l);
}
