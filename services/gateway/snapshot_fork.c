// SPDX-License-Identifier: Apache-2.0
/* POST …/workspaces/:id/fork: a hidden snapshot, workspaces from it, and the snapshot goes. All or none: the row of the
 * hidden snapshot turning to `deleting` is the commit point; a gateway that starts and finds it in any other status
 * undoes the fork. */
#include "services/gateway/snapshots_internal.h"

#include "common/log.h"
#include "common/mem.h"

#include <openssl/evp.h>
#include <stdio.h>

/* ---- commit point ---- */

void snapshot_forget_in_workspaces(snapshot_t *s)
{
    auto_err err_t *e = NULL;
    store_value_t values[SNAPSHOT_FORK_MAX][2];
    size_t count = 0;
    for (workspace_t *ws = s->all->gw->workspaces->newest; ws != NULL; ws = ws->older)
        if (ws->row.snapshot_id != NULL && strcmp(ws->row.snapshot_id, s->id_text) == 0 && count < COUNT_OF(values)) {
            free(ws->row.snapshot_id);
            ws->row.snapshot_id = NULL;
            values[count][0] = store_text(ws->row.id_text);
            values[count++][1] = store_text(NULL);
        }
    /* By id: a search for the snapshot would read every row. Not durable by itself, but before the snapshot's end. */
    if (count > 0 &&
        store_exec_batch(s->all->gw->store, STORE_WORKSPACE_SET_SNAPSHOT, values[0], 2, count, NULL, NULL, &e) != 0)
        log_warn("forget hidden snapshot %s in its workspaces: %s", s->id_text, err_message(e));
}

void snapshot_conclude_fork(snapshot_t *s, snapshot_then_fn then)
{
    snapshot_commit(s, SNAPSHOT_DELETING, then); /* before the workspaces forget it: the store keeps the order */
    snapshot_forget_in_workspaces(s);
}

/* A fork that a crash interrupted was never answered: nothing of it stays. */
static void undo(snapshot_t *s)
{
    workspaces_t *workspaces = s->all->gw->workspaces;
    log_warn("undoing the fork of workspace %s, which was interrupted", s->workspace_id);
    for (workspace_t *ws = workspaces->newest, *older; ws != NULL; ws = older) {
        older = ws->older;
        if (ws->is_committed && ws->row.snapshot_id != NULL && strcmp(ws->row.snapshot_id, s->id_text) == 0)
            workspace_start_destruction(ws);
    }
    snapshot_start_deletion(s);
}

void snapshots_undo_forks(snapshots_t *all)
{
    for (snapshot_t *s = all->newest, *older; s != NULL; s = older) {
        older = s->older;
        if (!s->is_hidden || s->users > 0 || s->is_taking || s->is_deleting || !s->is_committed)
            continue;
        if (s->status != SNAPSHOT_DELETING) {
            undo(s);
            continue;
        }
        snapshot_forget_in_workspaces(s);
        snapshot_start_deletion(s);
    }
}

/* ---- the request ---- */

/* The i-th workspace's id follows from the hidden snapshot's, so that a repeated request finds them. */
static int member_id(const uuid16_t *snapshot, uint32_t i, uuid16_t *id, err_t **e)
{
    uint8_t input[sizeof(*snapshot) + sizeof(i)], digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    memcpy(input, snapshot, sizeof(*snapshot));
    memcpy(input + sizeof(*snapshot), &i, sizeof(i));
    if (EVP_Digest(input, sizeof(input), digest, &len, EVP_sha256(), NULL) != 1 || len < sizeof(*id))
        return err_set(e, ERR_INTERNAL, "libcrypto could not compute SHA-256");
    memcpy(id, digest, sizeof(*id));
    id->bytes[6] = (uint8_t)((id->bytes[6] & 0x0f) | 0x80);
    id->bytes[8] = (uint8_t)((id->bytes[8] & 0x3f) | 0x80);
    return 0;
}

/* The source's environment goes on in its forks; the request's comes on top. */
static void inherit_env(workspace_t *ws, const workspace_t *source)
{
    const char *name;
    json_t *value;
    if (source->row.env == NULL)
        return;
    if (ws->row.env == NULL)
        ws->row.env = json_object();
    json_object_foreach(source->row.env, name, value) if (json_object_get(ws->row.env, name) == NULL)
        json_object_set(ws->row.env, name, value);
}

static workspace_t *make(snapshot_t *s, const api_request_t *r, const struct workspace_fork *m,
                         const workspace_t *source, uint32_t i, err_t **e)
{
    struct workspace_create create = {
        .env = m->env, .metadata = m->metadata, .deployment_mode = source->row.deployment_mode};
    workspace_t *ws = restore_workspace(s, r, &create, e);
    if (ws == NULL)
        return NULL;
    if (member_id(&s->id, i, &ws->row.id, e) != 0) {
        workspace_free(ws);
        return NULL;
    }
    uuid16_format(&ws->row.id, ws->row.id_text);
    json_object_set_new(ws->row.metadata, "forked_from", json_string(source->row.id_text));
    inherit_env(ws, source);
    return ws;
}

static void on_taken(void *arg, snapshot_t *s, const err_t *err)
{
    restore_t *b = arg;
    (void)s;
    if (err == NULL) {
        restore_start(b);
        return;
    }
    auto_err err_t *e = NULL;
    err_set(&e, err_code(err), "failed to fork the workspace: %s", err_message(err));
    restore_fail(b, e);
}

/* What an earlier request with the same Idempotency-Key made. False: nothing of it is there. */
static bool repeat(api_request_t *r, const uuid16_t *hidden, uint32_t count, err_t **e)
{
    workspace_t *list[SNAPSHOT_FORK_MAX];
    size_t found = 0;
    uuid16_t id;
    bool is_ending = false;
    for (uint32_t i = 0; i < count && member_id(hidden, i, &id, e) == 0; i++) {
        restore_t *b = restore_find(r->gw->snapshots, &id);
        if (b != NULL) {
            restore_add_request(b, r, 0);
            return true;
        }
        workspace_t *ws = workspaces_get(r->gw->workspaces, &id);
        is_ending = is_ending || (ws != NULL && ws->destruction != NULL);
        if (ws != NULL)
            list[found++] = ws;
    }
    const snapshot_t *s = snapshots_get(r->gw->snapshots, hidden);
    bool is_undone = is_ending || (s != NULL && (found < count || s->status != SNAPSHOT_DELETING));
    if (is_undone)
        err_set(e, ERR_CONFLICT, "an earlier attempt of this fork is being undone; retry in a few seconds");
    else if (found > 0)
        restore_reply_many(r, list, found);
    return found > 0 && !is_undone;
}

static int add_members(restore_t *b, snapshot_t *s, const api_request_t *r, const struct workspace_fork *m,
                       const workspace_t *source, uint32_t count, err_t **e)
{
    for (uint32_t i = 0; i < count; i++) {
        workspace_t *ws = make(s, r, m, source, i, e);
        if (ws == NULL || restore_add_member(b, ws, e) != 0)
            return -1;
    }
    return 0;
}

static int start(api_request_t *r, err_t **e)
{
    struct workspace_fork m;
    uuid16_t id;
    workspace_row_t *row = workspaces_find(r->gw, r->params[0], &r->caller, e);
    if (row == NULL || proto_decode(MSG_workspace_fork, &m, r->encoded.data, r->encoded.len, e) != 0)
        return -1;
    workspace_t *source = workspace_of(row);
    api_note_workspace(r, row);
    uint32_t count = m.has.count ? m.count : 1;
    if (count < 1 || count > SNAPSHOT_FORK_MAX)
        return err_set(e, ERR_BAD_REQUEST, "count must be from 1 to %d", SNAPSHOT_FORK_MAX);
    if (snapshot_request_id(r, row->id_text, &id, e) != 0)
        return -1;
    if (repeat(r, &id, count, e))
        return 0;
    if (*e != NULL || snapshot_check_source(source, OPERATION_FORK, e) != 0)
        return -1;
    snapshots_t *all = r->gw->snapshots;
    workspaces_touch(r->gw, row);
    snapshot_t *s = snapshot_of_workspace(all, source, &id);
    s->is_hidden = true;
    s->has_processes = !m.without_processes;
    restore_t *b = restore_new(all, s, true);
    restore_add_request(b, r, 0);
    auto_err err_t *refusal = NULL;
    if (add_members(b, s, r, &m, source, count, &refusal) != 0) {
        restore_fail(b, refusal);
        return 0;
    }
    snapshot_wait(s, SNAPSHOT_WAITER_TAKE, on_taken, b);
    snapshot_start_take(s);
    return 0;
}

void workspace_fork(api_request_t *r)
{
    auto_err err_t *e = NULL;
    if (start(r, &e) != 0)
        api_reply_error(r, e);
}
