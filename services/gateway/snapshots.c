// SPDX-License-Identifier: Apache-2.0
/* The cache of all snapshots, and who waits for one. */
#include "services/gateway/snapshots_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <stdio.h>

#define SWEEP_S 3600
#define FIRST_SWEEP_S 10 /* daemons have come back by then */

static const char *const STATUS_NAMES[SNAPSHOT_STATUS_COUNT] = {"creating", "ready", "error", "deleting"};

const char *snapshot_status_name(enum snapshot_status status)
{
    return STATUS_NAMES[status];
}

bool snapshot_status_parse(const char *text, enum snapshot_status *status)
{
    for (size_t i = 0; i < SNAPSHOT_STATUS_COUNT; i++)
        if (strcmp(STATUS_NAMES[i], text) == 0) {
            *status = (enum snapshot_status)i;
            return true;
        }
    return false;
}

/* ---- the hash table: ids are random, their first bytes are the hash ---- */

static size_t bucket_of(const uuid16_t *id)
{
    uint64_t hash;
    memcpy(&hash, id->bytes, sizeof(hash));
    return hash % SNAPSHOT_BUCKETS;
}

snapshot_t *snapshots_get(const snapshots_t *all, const uuid16_t *id)
{
    snapshot_t *s = all->buckets[bucket_of(id)];
    while (s != NULL && memcmp(&s->id, id, sizeof(*id)) != 0)
        s = s->hash_next;
    return s;
}

static bool is_newer(const snapshot_t *a, const snapshot_t *b)
{
    if (a->created_at_ms != b->created_at_ms)
        return a->created_at_ms > b->created_at_ms;
    return strcmp(a->id_text, b->id_text) > 0;
}

/* Newest first; nearly always at the front. */
static void list_insert(snapshots_t *all, snapshot_t *s)
{
    snapshot_t *newer = NULL, *older = all->newest;
    while (older != NULL && is_newer(older, s)) {
        newer = older;
        older = older->older;
    }
    s->newer = newer;
    s->older = older;
    if (older != NULL)
        older->newer = s;
    if (newer != NULL)
        newer->older = s;
    else
        all->newest = s;
}

void snapshots_add(snapshots_t *all, snapshot_t *s)
{
    snapshot_t **bucket = &all->buckets[bucket_of(&s->id)];
    s->hash_next = *bucket;
    *bucket = s;
    list_insert(all, s);
    all->count++;
    all->by_status[s->status]++;
}

void snapshots_remove(snapshot_t *s)
{
    snapshots_t *all = s->all;
    snapshot_t **at = &all->buckets[bucket_of(&s->id)];
    while (*at != s)
        at = &(*at)->hash_next;
    *at = s->hash_next;
    if (s->older != NULL)
        s->older->newer = s->newer;
    if (s->newer != NULL)
        s->newer->older = s->older;
    else
        all->newest = s->older;
    all->count--;
    all->by_status[s->status]--;
    snapshot_free(s);
}

/* ---- one snapshot ---- */

snapshot_t *snapshot_new(snapshots_t *all)
{
    snapshot_t *s = mem_alloc(sizeof(*s));
    s->all = all;
    s->settled_ms = clock_monotonic_ms();
    return s;
}

void snapshot_set_status(snapshot_t *s, enum snapshot_status status)
{
    s->all->by_status[s->status]--;
    s->status = status;
    s->all->by_status[s->status]++;
    s->settled_ms = clock_monotonic_ms();
}

provider_node_t *snapshot_where(const snapshot_t *s)
{
    return orchestrator_node(s->all->gw->orchestrator, s->provider, s->node, true);
}

bool snapshot_is_in_use(const snapshot_t *s)
{
    if (s->users > 0)
        return true;
    for (const workspace_t *ws = s->all->gw->workspaces->newest; ws != NULL; ws = ws->older)
        if (ws->row.status == WORKSPACE_CREATING && ws->row.snapshot_id != NULL &&
            strcmp(ws->row.snapshot_id, s->id_text) == 0)
            return true;
    return false;
}

int64_t snapshot_expiry(const snapshot_t *s)
{
    int64_t days = s->all->gw->daemon.config.snapshot_max_age_days;
    if (s->expires_at_ms != 0)
        return s->expires_at_ms;
    return days == 0 ? 0 : s->created_at_ms + days * 86400 * 1000;
}

void snapshot_set_reason(snapshot_t *s, const char *reason)
{
    free(s->failure_reason);
    s->failure_reason =
        reason == NULL ? NULL : mem_strndup(reason, utf8_cut(reason, strlen(reason), WORKSPACE_REASON_MAX));
}

snapshot_t *snapshots_find(const snapshots_t *all, const char *id_text, const caller_t *caller, err_t **e)
{
    uuid16_t id;
    if (!uuid16_parse(&id, id_text)) {
        err_set(e, ERR_BAD_REQUEST, "invalid snapshot id format");
        return NULL;
    }
    snapshot_t *s = snapshots_get(all, &id);
    if (s == NULL || !s->is_committed || s->is_hidden || strcmp(s->owner, caller->owner) != 0) {
        err_set(e, ERR_NOT_FOUND, "snapshot '%s' not found", id_text);
        return NULL;
    }
    return s;
}

/* ---- waiters ---- */

static void waiter_detach(snapshot_waiter_t *w)
{
    snapshot_waiter_t **at = &w->s->waiters;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
}

static void waiter_free(snapshot_waiter_t *w)
{
    waiter_detach(w);
    if (w->r != NULL)
        w->r->state = NULL;
    free(w);
}

/* A client that hangs up changes nothing. */
static void on_request_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    if (r->state != NULL)
        waiter_free(r->state);
}

static snapshot_waiter_t *waiter_add(snapshot_t *s, snapshot_waiter_t what)
{
    snapshot_waiter_t *w = mem_alloc(sizeof(*w));
    *w = what;
    w->s = s;
    w->next = s->waiters;
    s->waiters = w;
    return w;
}

void snapshot_wait(snapshot_t *s, enum snapshot_waiter_kind kind, snapshot_done_fn done, void *arg)
{
    waiter_add(s, (snapshot_waiter_t){.kind = kind, .done = done, .arg = arg});
}

void snapshot_wait_request(snapshot_t *s, enum snapshot_waiter_kind kind, api_request_t *r, snapshot_done_fn done)
{
    r->state = waiter_add(s, (snapshot_waiter_t){.kind = kind, .r = r, .done = done, .arg = r});
    r->on_close = on_request_close;
}

void snapshot_settle(snapshot_t *s, enum snapshot_waiter_kind kind, const err_t *err)
{
    for (snapshot_waiter_t *w = s->waiters, *next; w != NULL; w = next) {
        next = w->next;
        if (w->kind != kind)
            continue;
        snapshot_done_fn done = w->done;
        void *arg = w->arg;
        waiter_free(w);
        done(arg, s, err);
    }
}

void snapshot_free(snapshot_t *s)
{
    while (s->waiters != NULL)
        waiter_free(s->waiters);
    snapshot_write_free(s->write);
    if (s->again != NULL)
        event_free(s->again);
    char *texts[] = {s->provider, s->node, s->name,  s->description, s->cpu,
                     s->memory,   s->disk, s->image, s->network,     s->failure_reason};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        free(texts[i]);
    json_decref(s->warnings);
    free(s);
}

/* ---- open and close ---- */

typedef struct loading {
    snapshots_t *all;
    err_t **e;
    bool is_failed;
} loading_t;

static void on_rows(void *arg, const store_result_t *result, const err_t *err)
{
    (void)err;
    loading_t *l = arg;
    for (size_t i = 0; i < result->row_count && !l->is_failed; i++) {
        snapshot_t *s = snapshot_from_row(l->all, result, i, l->e);
        if (s == NULL) {
            l->is_failed = true;
            return;
        }
        snapshots_add(l->all, s);
    }
}

static void on_start(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    snapshots_undo_forks(arg);
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    snapshots_sweep(arg);
}

static void start_timers(snapshots_t *all)
{
    static const struct timeval NOW = {0}, FIRST = {.tv_sec = FIRST_SWEEP_S}, HOURLY = {.tv_sec = SWEEP_S};
    struct event_base *base = all->gw->daemon.base;
    all->start_timer = evtimer_new(base, on_start, all);
    all->first_sweep_timer = evtimer_new(base, on_sweep, all);
    all->sweep_timer = event_new(base, -1, EV_PERSIST, on_sweep, all);
    event_add(all->start_timer, &NOW);
    event_add(all->first_sweep_timer, &FIRST);
    event_add(all->sweep_timer, &HOURLY);
}

int snapshots_open(gateway_t *gw, err_t **e)
{
    snapshots_t *all = mem_alloc(sizeof(*all));
    all->gw = gw;
    gw->snapshots = all;
    loading_t loading = {.all = all, .e = e};
    if (store_exec_wait(gw->store, STORE_SNAPSHOT_ALL, NULL, 0, on_rows, &loading, e) != 0 || loading.is_failed) {
        snapshots_close(gw);
        return -1;
    }
    start_timers(all);
    log_info("%zu snapshots are known", all->count);
    return 0;
}

void snapshots_close(gateway_t *gw)
{
    snapshots_t *all = gw->snapshots;
    if (all == NULL)
        return;
    struct event *timers[] = {all->start_timer, all->first_sweep_timer, all->sweep_timer};
    for (size_t i = 0; i < COUNT_OF(timers); i++)
        if (timers[i] != NULL)
            event_free(timers[i]);
    restore_close_all(all);
    snapshot_lists_free(all);
    for (snapshot_t *s = all->newest, *older; s != NULL; s = older) {
        older = s->older;
        snapshot_free(s);
    }
    free(all);
    gw->snapshots = NULL;
}

size_t snapshots_count(const gateway_t *gw, enum snapshot_status status)
{
    return gw->snapshots == NULL ? 0 : gw->snapshots->by_status[status];
}
