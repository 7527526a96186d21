// SPDX-License-Identifier: Apache-2.0
/* POST …/workspaces/from-snapshot: one workspace, on the node that has the snapshot, answered when it is ready. */
#include "services/gateway/idempotency.h"
#include "services/gateway/snapshots_internal.h"

#include "common/mem.h"
#include "common/text.h"

#include <ctype.h>
#include <stdio.h>
#include <strings.h>

static int check_provider(const snapshot_t *s, const char *given, err_t **e)
{
    char lower[33];
    snprintf(lower, sizeof(lower), "%s", given == NULL ? "" : given);
    for (char *c = lower; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    if (lower[0] == '\0' || strcmp(lower, "auto") == 0 || strcmp(lower, s->provider) == 0)
        return 0;
    if (!orchestrator_is_provider(lower))
        return err_set(e, ERR_BAD_REQUEST, "provider must be one of auto, %s", orchestrator_provider_names());
    return err_set(e, ERR_BAD_REQUEST, "snapshot '%s' is of provider %s; a workspace from it cannot be of provider %s",
                   s->id_text, s->provider, lower);
}

static int check_snapshot(const snapshot_t *s, err_t **e)
{
    if (s->status != SNAPSHOT_READY || s->is_deleting)
        return err_set(e, ERR_CONFLICT, "snapshot must be ready; current state: %s",
                       snapshot_status_name(s->is_deleting ? SNAPSHOT_DELETING : s->status));
    provider_node_t *n = snapshot_where(s);
    if (n == NULL || n->peer == NULL)
        return err_set(e, ERR_PROVIDER_UNAVAILABLE,
                       "provider \"%s\" on node %s, which has the snapshot, is not connected; retry when its daemon is "
                       "back",
                       s->provider, s->node);
    if (!n->capabilities.supports_snapshots)
        return err_set(e, ERR_BAD_REQUEST, "provider %s does not support snapshots", s->provider);
    return store_check(s->all->gw->store, e);
}

static int check_wait(const api_request_t *r, uint64_t *seconds, err_t **e)
{
    const char *text = http_query(r->http, "wait");
    *seconds = 0;
    if (text != NULL && (!text_to_u64(text, seconds) || *seconds == 0 || *seconds > WORKSPACE_WAIT_MAX_S))
        return err_set(e, ERR_BAD_REQUEST, "wait must be a whole number of seconds from 1 to %d", WORKSPACE_WAIT_MAX_S);
    return 0;
}

/* With an Idempotency-Key the id follows from owner and key, as in a create. *known: the one that is there already. */
static int take_key(api_request_t *r, uuid16_t *id, workspace_t **known, err_t **e)
{
    uint64_t call_id = 0;
    *known = NULL;
    memset(id, 0, sizeof(*id));
    if (idempotency_begin(r, &call_id, e) != 0)
        return -1;
    if (call_id == 0)
        return 0;
    idempotency_done(r->gw->idempotency, call_id); /* nothing runs under it: a repetition finds the row */
    idempotency_uuid(r, r->gw->workspaces->suite, id);
    *known = workspaces_get(r->gw->workspaces, id);
    return 0;
}

static void repeat(api_request_t *r, workspace_t *known, uint64_t wait_s)
{
    restore_t *b = restore_find(r->gw->snapshots, &known->row.id);
    if (b == NULL && known->row.status == WORKSPACE_CREATING && known->destruction == NULL) {
        b = restore_new(r->gw->snapshots, NULL, false); /* of an earlier life of the gateway */
        restore_watch_member(b, known);
    }
    if (b == NULL)
        restore_reply_one(r, known);
    else
        restore_add_request(b, r, wait_s);
}

static workspace_t *make(snapshot_t *s, const api_request_t *r, const struct workspace_from_snapshot *m,
                         const uuid16_t *id, err_t **e)
{
    struct workspace_create create = {
        .deployment_mode = m->deployment_mode,
        .resource_limits = m->resource_limits,
        .env = m->env,
        .metadata = m->metadata,
        .agent_session_id = m->agent_session_id,
    };
    workspace_t *ws = restore_workspace(s, r, &create, e);
    if (ws == NULL)
        return NULL;
    json_object_set_new(ws->row.metadata, "created_from_snapshot", json_string(s->id_text));
    if (!uuid16_is_zero(id)) {
        ws->row.id = *id;
        uuid16_format(id, ws->row.id_text);
    }
    return ws;
}

static int start(api_request_t *r, err_t **e)
{
    struct workspace_from_snapshot m;
    uint64_t wait_s;
    uuid16_t id;
    workspace_t *known;
    if (proto_decode(MSG_workspace_from_snapshot, &m, r->encoded.data, r->encoded.len, e) != 0 ||
        check_wait(r, &wait_s, e) != 0)
        return -1;
    if (m.snapshot_id == NULL || m.snapshot_id[0] == '\0')
        return err_set(e, ERR_BAD_REQUEST, "snapshot_id is required");
    if (take_key(r, &id, &known, e) != 0)
        return -1;
    if (known != NULL) {
        repeat(r, known, wait_s);
        return 0;
    }
    snapshot_t *s = snapshots_find(r->gw->snapshots, m.snapshot_id, &r->caller, e);
    if (s == NULL || check_provider(s, m.provider, e) != 0 || check_snapshot(s, e) != 0)
        return -1;
    workspace_t *ws = make(s, r, &m, &id, e);
    if (ws == NULL)
        return -1;
    restore_t *b = restore_new(r->gw->snapshots, s, false);
    restore_add_request(b, r, wait_s);
    auto_err err_t *refusal = NULL;
    if (restore_add_member(b, ws, &refusal) != 0)
        restore_fail(b, refusal);
    else
        restore_start(b);
    return 0;
}

void workspace_from_snapshot(api_request_t *r)
{
    auto_err err_t *e = NULL;
    if (start(r, &e) != 0)
        api_reply_error(r, e);
}
