// SPDX-License-Identifier: Apache-2.0
/* PATCH …/:id: the TTL of a workspace, and its metadata by RFC 7396 (what the suite writes there stays its own). */
#include "services/gateway/workspaces_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#define METADATA_MAX 32768 /* of all of it, as JSON */
#define DEPTH_MAX 32

typedef struct patch {
    api_request_t *r; /* NULL: the client is gone */
    workspaces_t *all;
    uuid16_t id;
    json_t *before, *after; /* metadata; NULL: not changed */
    int64_t ttl_before, expires_before, ttl_after, expires_after;
    bool has_ttl;
} patch_t;

static json_t *merge(const json_t *target, const json_t *change, unsigned depth)
{
    json_t *result = json_is_object(target) ? json_copy((json_t *)(uintptr_t)target) : json_object();
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)change, name, value)
    {
        if (json_is_null(value))
            json_object_del(result, name);
        else if (json_is_object(value) && depth < DEPTH_MAX)
            json_object_set_new(result, name, merge(json_object_get(result, name), value, depth + 1));
        else
            json_object_set(result, name, value);
    }
    return result;
}

static int merge_metadata(const workspace_t *ws, const char *text, json_t **after, err_t **e)
{
    json_t *change = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    int result = -1;
    *after = NULL;
    if (!json_is_object(change))
        err_set(e, ERR_BAD_REQUEST, "metadata must be an object");
    else if (workspace_check_metadata(change, e) == 0) {
        *after = merge(ws->row.metadata, change, 0);
        auto_free char *all = json_dumps(*after, JSON_COMPACT);
        result = 0;
        if (all == NULL || strlen(all) > METADATA_MAX)
            result = err_set(e, ERR_VALIDATION, "metadata would be larger than %d bytes in all", METADATA_MAX);
    }
    json_decref(change);
    return result;
}

static void patch_free(patch_t *p)
{
    json_decref(p->before);
    json_decref(p->after);
    free(p);
}

static void on_patch_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    patch_t *p = r->state;
    if (p != NULL)
        p->r = NULL;
}

/* In memory first, so that a status that is committed meanwhile writes it, too. */
static void apply(workspace_t *ws, patch_t *p, uint64_t ttl_seconds)
{
    if (p->after != NULL) {
        p->before = ws->row.metadata;
        ws->row.metadata = json_incref(p->after);
    }
    if (p->has_ttl) {
        p->ttl_before = ws->row.ttl_seconds;
        p->expires_before = ws->row.expires_at_ms;
        ws->row.ttl_seconds = (int64_t)ttl_seconds;
        ws->row.expires_at_ms = workspace_expiry(ws->all, ws, (int64_t)clock_realtime_ms());
        p->ttl_after = ws->row.ttl_seconds;
        p->expires_after = ws->row.expires_at_ms;
    }
}

/* It could not be written and is told so; a newer change stays, and so does what the suite noted meanwhile. */
static void undo(workspace_t *ws, patch_t *p)
{
    if (p->after != NULL && ws->row.metadata == p->after) {
        workspace_copy_own_metadata(p->before, p->after);
        json_decref(ws->row.metadata);
        ws->row.metadata = json_incref(p->before);
    }
    if (p->has_ttl && ws->row.ttl_seconds == p->ttl_after) {
        bool is_used = ws->row.expires_at_ms != p->expires_after; /* since then: its end moved on */
        ws->row.ttl_seconds = p->ttl_before;
        ws->row.expires_at_ms = is_used ? workspace_expiry(ws->all, ws, ws->row.last_used_at_ms) : p->expires_before;
    }
}

static void reply_database_error(api_request_t *r, const err_t *err)
{
    auto_err err_t *e = NULL;
    workspace_database_error(err, &e);
    api_reply_error(r, e);
}

static void on_written(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    patch_t *p = arg;
    api_request_t *r = p->r;
    workspace_t *ws = workspaces_get(p->all, &p->id);
    if (err != NULL && ws != NULL) {
        log_write(LOG_LEVEL_ERROR, &(log_ctx_t){.sandbox = ws->row.id_text}, "change of the workspace: %s",
                  err_message(err));
        undo(ws, p);
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
    patch_free(p);
}

static int check(const workspace_t *ws, const struct workspace_patch *m, err_t **e)
{
    if (!m->has.ttl_seconds && m->metadata == NULL)
        return err_set(e, ERR_BAD_REQUEST, "ttl_seconds or metadata is required");
    if (workspace_judge(&ws->row, OPERATION_PATCH, e) == VERDICT_REFUSED)
        return -1;
    if (m->has.ttl_seconds && strcmp(ws->row.lifecycle, "persistent") == 0)
        return err_set(e, ERR_VALIDATION, "ttl_seconds is not for a persistent workspace: it never expires");
    return 0;
}

void workspace_patch(api_request_t *r)
{
    struct workspace_patch m;
    auto_err err_t *e = NULL;
    workspace_t *ws = workspace_of_request(r);
    if (ws == NULL)
        return;
    patch_t *p = mem_alloc(sizeof(*p));
    *p = (patch_t){.r = r, .all = ws->all, .id = ws->row.id};
    if (proto_decode(MSG_workspace_patch, &m, r->encoded.data, r->encoded.len, &e) == 0 && check(ws, &m, &e) == 0 &&
        (m.metadata == NULL || merge_metadata(ws, m.metadata, &p->after, &e) == 0)) {
        p->has_ttl = m.has.ttl_seconds;
        apply(ws, p, m.ttl_seconds);
        if (workspace_save_note(ws, on_written, p, &e) == 0) {
            r->state = p;
            r->on_close = on_patch_close;
            return;
        }
        undo(ws, p);
    }
    patch_free(p);
    api_reply_error(r, e);
}
