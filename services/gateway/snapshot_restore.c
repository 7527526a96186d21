// SPDX-License-Identifier: Apache-2.0
/* Workspaces made from one snapshot, answered when all are ready. They count in the cache from the first moment, so
 * that the limits hold; their rows are written together; each is then made by the ordinary creation, which asks only
 * the daemon that has the snapshot. When one fails, none stays. */
#include "services/gateway/snapshots_internal.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"

typedef struct member {
    restore_t *owner;
    uuid16_t id;
    uint64_t subscription;
} member_t;

typedef struct requester {
    struct requester *next;
    restore_t *owner;
    api_request_t *r;
    struct event *timer; /* ?wait= is over */
} requester_t;

struct restore {
    restore_t *next;
    snapshots_t *all;
    snapshot_t *s; /* NULL: it only watches */
    bool is_fork;
    bool is_acknowledged; /* somebody was answered before the end: nothing is undone any more */
    bool is_concluding;   /* the fork's commit point is being written */
    size_t count, outstanding;
    member_t members[SNAPSHOT_FORK_MAX];
    requester_t *requesters;
    struct event *tick; /* from the loop: events of workspaces come in the middle of things */
    err_t *write_error; /* of the first row that could not be written */
};

/* ---- replies ---- */

void restore_reply_one(api_request_t *r, const workspace_t *ws)
{
    auto_buf buf_t encoded = {0};
    auto_err err_t *e = NULL;
    api_note_workspace(r, &ws->row);
    if (workspace_encode(ws, &encoded, &e) != 0)
        api_reply_error(r, e);
    else
        api_reply_message(r, 201, MSG_workspace, encoded.data, encoded.len, 0);
}

void restore_reply_many(api_request_t *r, workspace_t *const *list, size_t count)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t json = {0};
    json_writer_t w;
    json_writer_init(&w, &json);
    json_write_open_object(&w);
    json_write_key(&w, "workspaces");
    json_write_open_array(&w);
    for (size_t i = 0; i < count; i++) {
        auto_buf buf_t encoded = {0};
        if (workspace_encode(list[i], &encoded, &e) != 0 ||
            proto_to_json(MSG_workspace, encoded.data, encoded.len, 0, &w, &e) != 0) {
            api_reply_error(r, e);
            return;
        }
    }
    json_write_close_array(&w);
    json_write_close_object(&w);
    api_reply_json(r, 201, &json);
}

static workspace_t *workspace_at(const restore_t *b, size_t i)
{
    return workspaces_get(b->all->gw->workspaces, &b->members[i].id);
}

static void reply(const restore_t *b, api_request_t *r)
{
    workspace_t *list[SNAPSHOT_FORK_MAX];
    size_t count = 0;
    for (size_t i = 0; i < b->count; i++) {
        list[count] = workspace_at(b, i);
        count += list[count] != NULL; /* its owner may have destroyed it in the last moment */
    }
    if (b->is_fork)
        restore_reply_many(r, list, count);
    else if (count == 1)
        restore_reply_one(r, list[0]);
    else
        api_fail(r, ERR_CONFLICT, "the workspace was destroyed while it was being created");
}

static void requester_free(requester_t *q)
{
    requester_t **at = &q->owner->requesters;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    if (q->timer != NULL)
        event_free(q->timer);
    q->r->state = NULL;
    free(q);
}

/* A client that hangs up changes nothing. */
static void on_request_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    if (r->state != NULL)
        requester_free(r->state);
}

static void on_wait_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    requester_t *q = arg;
    restore_t *b = q->owner;
    api_request_t *r = q->r;
    const workspace_t *ws = workspace_at(b, 0);
    if (ws == NULL || !ws->is_committed)
        return; /* its row is being written: the end comes soon, with the one or the other answer */
    b->is_acknowledged = true;
    requester_free(q);
    reply(b, r);
}

void restore_add_request(restore_t *b, api_request_t *r, uint64_t wait_s)
{
    requester_t *q = mem_alloc(sizeof(*q));
    *q = (requester_t){.owner = b, .r = r, .next = b->requesters};
    b->requesters = q;
    r->state = q;
    r->on_close = on_request_close;
    if (wait_s == 0)
        return;
    struct timeval delay = {.tv_sec = (time_t)wait_s};
    q->timer = evtimer_new(b->all->gw->daemon.base, on_wait_over, q);
    event_add(q->timer, &delay);
}

/* ---- life ---- */

static void check(restore_t *b);

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    check(arg);
}

restore_t *restore_new(snapshots_t *all, snapshot_t *s, bool is_fork)
{
    restore_t *b = mem_alloc(sizeof(*b));
    b->all = all;
    b->s = s;
    b->is_fork = is_fork;
    b->tick = evtimer_new(all->gw->daemon.base, on_tick, b);
    b->next = all->restores;
    all->restores = b;
    if (s != NULL)
        s->users++;
    return b;
}

static void unsubscribe_all(restore_t *b)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->members[i].subscription != 0)
            workspaces_unsubscribe(b->all->gw, b->members[i].subscription);
}

static void restore_free(restore_t *b)
{
    restore_t **at = &b->all->restores;
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    while (b->requesters != NULL)
        requester_free(b->requesters);
    unsubscribe_all(b);
    event_free(b->tick);
    err_free(&b->write_error);
    free(b);
}

void restore_close_all(snapshots_t *all)
{
    while (all->restores != NULL)
        restore_free(all->restores);
}

restore_t *restore_find(const snapshots_t *all, const uuid16_t *workspace)
{
    for (restore_t *b = all->restores; b != NULL; b = b->next)
        for (size_t i = 0; i < b->count; i++)
            if (b->s != NULL && memcmp(&b->members[i].id, workspace, sizeof(*workspace)) == 0)
                return b;
    return NULL;
}

static void schedule(restore_t *b)
{
    static const struct timeval NOW = {0};
    event_add(b->tick, &NOW);
}

static void on_workspace_event(void *arg, const char *event, const char *json, size_t len)
{
    (void)json;
    (void)len;
    if (strcmp(event, "status") == 0 || strcmp(event, "deleted") == 0)
        schedule(((member_t *)arg)->owner);
}

int restore_add_member(restore_t *b, workspace_t *ws, err_t **e)
{
    if (b->count == SNAPSHOT_FORK_MAX || workspaces_check_room(ws->all, ws, e) != 0) {
        if (*e == NULL)
            err_set(e, ERR_VALIDATION, "at most %d workspaces can be made at once", SNAPSHOT_FORK_MAX);
        workspace_free(ws);
        return -1;
    }
    workspaces_add(ws->all, ws); /* counts from here */
    b->members[b->count++] = (member_t){.owner = b, .id = ws->row.id};
    return 0;
}

void restore_watch_member(restore_t *b, workspace_t *ws)
{
    member_t *m = &b->members[b->count++];
    *m = (member_t){.owner = b, .id = ws->row.id};
    m->subscription = workspaces_subscribe(b->all->gw, &m->id, on_workspace_event, m);
}

/* ---- the end ---- */

/* Everybody hears of it before the restore is gone; what they then do cannot reach it. */
static void answer_and_free(restore_t *b, const err_t *err)
{
    while (b->requesters != NULL) {
        api_request_t *r = b->requesters->r;
        requester_free(b->requesters);
        if (err != NULL)
            api_reply_error(r, err);
        else
            reply(b, r);
    }
    snapshot_t *s = b->s;
    restore_free(b);
    if (s == NULL)
        return;
    s->users--;
    if (!s->is_hidden || s->users > 0 || s->is_taking)
        return;
    if (s->is_committed)
        snapshot_start_deletion(s);
    else
        snapshots_remove(s); /* refused before anything was done */
}

void restore_fail(restore_t *b, const err_t *err)
{
    unsubscribe_all(b);
    for (size_t i = 0; i < b->count && b->s != NULL; i++) {
        b->members[i].subscription = 0;
        workspace_t *ws = workspace_at(b, i);
        if (ws != NULL && !ws->is_committed)
            workspaces_remove(ws->all, ws);
        else if (ws != NULL && !b->is_acknowledged)
            workspace_start_destruction(ws);
    }
    answer_and_free(b, err);
}

static void fail_of(restore_t *b, const workspace_t *ws)
{
    auto_err err_t *e = NULL;
    const char *what = b->is_fork ? "failed to fork the workspace" : "failed to create workspace from snapshot";
    provider_node_t *n = b->s == NULL ? NULL : snapshot_where(b->s);
    if (n != NULL && n->peer == NULL)
        err_set(&e, ERR_PROVIDER_UNAVAILABLE, "%s: the %s daemon on node %s is not connected; retry when it is back",
                what, b->s->provider, b->s->node);
    else if (ws == NULL || ws->destruction != NULL || ws->row.status == WORKSPACE_STOPPING)
        err_set(&e, ERR_CONFLICT, "%s: it was destroyed while it was being created", what);
    else
        err_set(&e, ERR_SANDBOX_FAILED, "%s: %s", what,
                ws->row.failure_reason == NULL ? "the sandbox failed" : ws->row.failure_reason);
    restore_fail(b, e);
}

/* The fork's commit point is on disk. */
static void on_concluded(snapshot_t *s, const err_t *err)
{
    (void)err;
    for (restore_t *b = s->all->restores; b != NULL; b = b->next)
        if (b->s == s && b->is_concluding) {
            answer_and_free(b, NULL);
            return;
        }
}

static void check(restore_t *b)
{
    if (b->is_concluding)
        return;
    bool is_done = true;
    for (size_t i = 0; i < b->count; i++) {
        const workspace_t *ws = workspace_at(b, i);
        bool is_alive = ws != NULL && ws->destruction == NULL &&
                        (ws->row.status == WORKSPACE_CREATING || ws->row.status == WORKSPACE_READY);
        if (!is_alive) {
            fail_of(b, ws);
            return;
        }
        is_done = is_done && ws->row.status == WORKSPACE_READY;
    }
    if (!is_done)
        return;
    if (b->s != NULL && b->s->is_hidden) {
        b->is_concluding = true;
        snapshot_conclude_fork(b->s, on_concluded);
    } else {
        answer_and_free(b, NULL);
    }
}

/* ---- rows, then creations ---- */

static void start_creations(restore_t *b)
{
    for (size_t i = 0; i < b->count; i++) {
        member_t *m = &b->members[i];
        m->subscription = workspaces_subscribe(b->all->gw, &m->id, on_workspace_event, m);
    }
    for (size_t i = 0; i < b->count; i++) {
        workspace_t *ws = workspace_at(b, i);
        if (ws != NULL && ws->row.status == WORKSPACE_CREATING && ws->destruction == NULL)
            workspace_start_creation(ws, NULL, NULL);
    }
    schedule(b);
}

static void all_written(restore_t *b)
{
    if (b->write_error == NULL) {
        start_creations(b);
        return;
    }
    auto_err err_t *e = NULL;
    store_client_error(b->write_error, &e);
    restore_fail(b, e);
}

static void note_write_error(restore_t *b, const err_t *err)
{
    log_error("insert the row of a workspace: %s", err_message(err));
    if (b->write_error == NULL)
        err_set(&b->write_error, err_code(err), "%s", err_message(err));
}

static void on_inserted(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    member_t *m = arg;
    restore_t *b = m->owner;
    workspace_t *ws = workspaces_get(b->all->gw->workspaces, &m->id);
    if (err != NULL) {
        note_write_error(b, err);
    } else if (ws != NULL) {
        ws->is_committed = true;
    }
    if (--b->outstanding == 0)
        all_written(b);
}

static int insert(member_t *m, err_t **e)
{
    restore_t *b = m->owner;
    store_value_t values[WORKSPACE_COLUMN_COUNT];
    workspace_row_storage_t storage;
    workspace_t *ws = workspaces_get(b->all->gw->workspaces, &m->id);
    int result = workspace_row_values(ws, WORKSPACE_CREATING, values, &storage, e);
    if (result == 0)
        result =
            store_exec(b->all->gw->store, STORE_WORKSPACE_INSERT, values, WORKSPACE_COLUMN_COUNT, on_inserted, m, e);
    workspace_row_free(&storage);
    if (result == 0)
        workspace_open_first_assignment(ws);
    return result;
}

void restore_start(restore_t *b)
{
    for (size_t i = 0; i < b->count; i++) {
        auto_err err_t *e = NULL;
        if (insert(&b->members[i], &e) != 0) {
            note_write_error(b, e);
        } else {
            b->outstanding++;
        }
    }
    if (b->outstanding == 0)
        all_written(b);
}

/* ---- one workspace ---- */

static int merge_limits(const snapshot_t *s, const struct workspace_create *m, buf_t *out, err_t **e)
{
    struct resource_limits limits = {0};
    uint64_t asked, had;
    if (m->resource_limits.bytes != NULL &&
        proto_decode(MSG_resource_limits, &limits, m->resource_limits.bytes, m->resource_limits.len, e) != 0)
        return -1;
    const char **fields[] = {&limits.cpu, &limits.memory, &limits.disk};
    const char *own[] = {s->cpu, s->memory, s->disk};
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        if (*fields[i] == NULL || (*fields[i])[0] == '\0')
            *fields[i] = own[i];
    if (text_to_size(limits.disk, &asked) && text_to_size(s->disk, &had) && asked < had)
        return err_set(
            e, ERR_VALIDATION,
            "resource_limits.disk must be at least %s, the disk of the snapshot: a disk can grow, not shrink", s->disk);
    return proto_encode(MSG_resource_limits, &limits, out, e);
}

workspace_t *restore_workspace(snapshot_t *s, const api_request_t *r, struct workspace_create *m, err_t **e)
{
    auto_buf buf_t limits = {0};
    pick_request_t unused;
    if (merge_limits(s, m, &limits, e) != 0)
        return NULL;
    m->container_type = "agent_workspace";
    m->provider = s->provider;
    m->image = s->image;
    m->network = s->network;
    m->resource_limits = (proto_nested_t){.bytes = limits.data, .len = limits.len};
    m->has.warm_start = true;
    m->warm_start = false;
    workspace_t *ws = workspace_from_message(s->all->gw->workspaces, r, m, &unused, e);
    if (ws == NULL)
        return NULL;
    workspace_place(ws, snapshot_where(s)); /* in the row before anything is made: no other daemon has the snapshot */
    free(ws->row.snapshot_id);
    ws->row.snapshot_id = mem_strdup(s->id_text);
    return ws;
}
