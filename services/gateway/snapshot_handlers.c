// SPDX-License-Identifier: Apache-2.0
/* POST …/workspaces/:id/snapshot; GET and DELETE of snapshots. */
#include "services/gateway/snapshots_internal.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"

#include <stdio.h>

#define LIST_MAX 1000

/* ---- POST …/:id/snapshot ---- */

static void on_taken(void *arg, snapshot_t *s, const err_t *err)
{
    api_request_t *r = arg;
    if (err != NULL)
        api_reply_error(r, err);
    else
        snapshot_reply(r, s, 201);
}

/* What an earlier request with the same Idempotency-Key made, or was making when the gateway was restarted. */
static void repeat_take(api_request_t *r, snapshot_t *s)
{
    bool is_over = s->status != SNAPSHOT_CREATING && !s->is_taking;
    if (is_over && (s->is_deleting || s->status == SNAPSHOT_DELETING)) {
        api_fail(r, ERR_CONFLICT, "the snapshot of this Idempotency-Key is being deleted; use a new key");
        return;
    }
    if (is_over && s->status == SNAPSHOT_ERROR) { /* it was made once: to say so now would be a lie */
        api_fail(r, ERR_CONFLICT, "the snapshot of this Idempotency-Key is lost: %s; take another one with a new key",
                 s->failure_reason == NULL ? "no reason is known" : s->failure_reason);
        return;
    }
    if (is_over) {
        snapshot_reply(r, s, 201);
        return;
    }
    snapshot_wait_request(s, SNAPSHOT_WAITER_TAKE, r, on_taken);
    snapshot_start_take(s);
}

static void fill(snapshot_t *s, const struct workspace_snapshot *m)
{
    free(s->name);
    free(s->description);
    s->name = mem_strdup(m->name == NULL ? "" : m->name);
    s->description = mem_strdup(m->description == NULL ? "" : m->description);
    s->has_processes = !m->without_processes;
    s->expires_at_ms = m->ttl_seconds == 0 ? 0 : s->created_at_ms + (int64_t)m->ttl_seconds * 1000;
}

static int start_take(api_request_t *r, err_t **e)
{
    struct workspace_snapshot m;
    uuid16_t id;
    snapshots_t *all = r->gw->snapshots;
    workspace_row_t *row = workspaces_find(r->gw, r->params[0], &r->caller, e);
    if (row == NULL || proto_decode(MSG_workspace_snapshot, &m, r->encoded.data, r->encoded.len, e) != 0)
        return -1;
    api_note_workspace(r, row);
    if (snapshot_request_id(r, row->id_text, &id, e) != 0)
        return -1;
    snapshot_t *s = snapshots_get(all, &id);
    if (s != NULL) {
        repeat_take(r, s);
        return 0;
    }
    if (snapshot_check_source(workspace_of(row), OPERATION_SNAPSHOT, e) != 0)
        return -1;
    workspaces_touch(r->gw, row);
    s = snapshot_of_workspace(all, workspace_of(row), &id);
    fill(s, &m);
    snapshot_wait_request(s, SNAPSHOT_WAITER_TAKE, r, on_taken);
    snapshot_start_take(s);
    return 0;
}

void snapshot_take(api_request_t *r)
{
    auto_err err_t *e = NULL;
    if (start_take(r, &e) != 0)
        api_reply_error(r, e);
}

/* ---- one ---- */

void snapshot_get(api_request_t *r)
{
    auto_err err_t *e = NULL;
    const snapshot_t *s = snapshots_find(r->gw->snapshots, r->params[0], &r->caller, &e);
    if (s == NULL)
        api_reply_error(r, e);
    else
        snapshot_reply(r, s, 200);
}

static void on_deleted(void *arg, snapshot_t *s, const err_t *err)
{
    (void)s;
    if (err != NULL)
        api_reply_error(arg, err);
    else
        api_reply_empty(arg, 204);
}

void snapshot_delete(api_request_t *r)
{
    auto_err err_t *e = NULL;
    snapshot_t *s = snapshots_find(r->gw->snapshots, r->params[0], &r->caller, &e);
    if (s == NULL) {
        api_reply_error(r, e);
    } else if (s->is_taking) {
        api_fail(r, ERR_CONFLICT, "the snapshot is still being taken; delete it when that has ended");
    } else if (!s->is_deleting && snapshot_is_in_use(s)) {
        api_fail(r, ERR_CONFLICT, "a workspace is being made from the snapshot; delete it when that has ended");
    } else if (!s->is_deleting && store_check(r->gw->store, &e) != 0) { /* better not begun than promised for later */
        api_reply_error(r, e);
    } else {
        snapshot_wait_request(s, SNAPSHOT_WAITER_DELETE, r, on_deleted);
        snapshot_start_deletion(s);
    }
}

/* ---- list ---- */

typedef struct filter {
    const char *owner, *provider;
    char workspace[UUID_TEXT_SIZE];
    bool has_status;
    enum snapshot_status status;
    uint64_t limit;
    int64_t cursor_ms; /* -1: from the newest */
    char cursor_id[UUID_TEXT_SIZE];
} filter_t;

static const char *query(const api_request_t *r, const char *name)
{
    const char *value = http_query(r->http, name);
    return value == NULL || value[0] == '\0' ? NULL : value;
}

static int parse_filter(const api_request_t *r, filter_t *f, err_t **e)
{
    *f = (filter_t){.owner = r->caller.owner, .limit = LIST_MAX, .cursor_ms = -1};
    f->provider = query(r, "provider");
    const char *status = query(r, "status"), *workspace = query(r, "workspace_id");
    const char *limit = query(r, "limit"), *cursor = query(r, "cursor");
    uuid16_t id;
    if (f->provider != NULL && !orchestrator_is_provider(f->provider))
        return err_set(e, ERR_BAD_REQUEST, "provider must be one of %s", orchestrator_provider_names());
    f->has_status = status != NULL;
    if (status != NULL && !snapshot_status_parse(status, &f->status))
        return err_set(e, ERR_BAD_REQUEST, "status must be one of creating, ready, error, deleting");
    if (workspace != NULL && !uuid16_parse(&id, workspace))
        return err_set(e, ERR_BAD_REQUEST, "workspace_id must be a UUID");
    if (workspace != NULL)
        uuid16_format(&id, f->workspace);
    if (limit != NULL && (!text_to_u64(limit, &f->limit) || f->limit == 0 || f->limit > LIST_MAX))
        return err_set(e, ERR_BAD_REQUEST, "limit must be a whole number from 1 to %d", LIST_MAX);
    if (cursor != NULL && !list_cursor_parse(cursor, &f->cursor_ms, f->cursor_id))
        return err_set(e, ERR_BAD_REQUEST, "cursor must be taken from X-Next-Cursor of an earlier reply");
    return 0;
}

static bool matches(const filter_t *f, const snapshot_t *s)
{
    return s->is_committed && !s->is_hidden && strcmp(s->owner, f->owner) == 0 &&
           (f->provider == NULL || strcmp(s->provider, f->provider) == 0) &&
           (f->workspace[0] == '\0' || strcmp(s->workspace_id, f->workspace) == 0) &&
           (!f->has_status || s->status == f->status);
}

/* Rows are newest first: is it beyond the cursor? */
static bool is_after_cursor(const filter_t *f, const snapshot_t *s)
{
    if (f->cursor_ms < 0 || s->created_at_ms < f->cursor_ms)
        return true;
    return s->created_at_ms == f->cursor_ms && strcmp(s->id_text, f->cursor_id) < 0;
}

static int write_snapshot(const snapshot_t *s, json_writer_t *w, err_t **e)
{
    auto_buf buf_t encoded = {0};
    if (snapshot_encode(s, &encoded, e) != 0)
        return -1;
    return proto_to_json(MSG_snapshot, encoded.data, encoded.len, 0, w, e);
}

void snapshot_list(api_request_t *r)
{
    filter_t f;
    auto_err err_t *e = NULL;
    auto_buf buf_t json = {0};
    json_writer_t w;
    size_t total = 0, shown = 0;
    const snapshot_t *last = NULL;
    bool has_more = false;
    int result = parse_filter(r, &f, &e);
    json_writer_init(&w, &json);
    json_write_open_array(&w);
    for (const snapshot_t *s = r->gw->snapshots->newest; s != NULL && result == 0; s = s->older) {
        if (!matches(&f, s))
            continue;
        total++;
        if (!is_after_cursor(&f, s))
            continue;
        has_more = last != NULL && shown == f.limit;
        if (has_more)
            continue;
        result = write_snapshot(s, &w, &e);
        last = s;
        shown++;
    }
    if (result != 0) {
        api_reply_error(r, e);
        return;
    }
    json_write_close_array(&w);
    char text[24];
    snprintf(text, sizeof(text), "%zu", total);
    http_add_header(r->http, "X-Total-Count", text);
    if (has_more)
        list_cursor_add(r, last->created_at_ms, last->id_text);
    api_reply_json(r, 200, &json);
}
