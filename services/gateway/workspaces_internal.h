/* SPDX-License-Identifier: Apache-2.0
 *
 * What the workspace*.c files share. A workspace is one struct in a hash table by id and in a list by age; every change
 * of status goes through workspace_commit(), so that what a caller can see is on disk. A workspace lives until its row
 * is deleted.
 *
 *   workspaces.c           open, close, find, touch, sweep, the cache
 *   workspace_rows.c       struct ↔ SQL row, struct → REST message
 *   workspace_commit.c     status changes, retried until they are on disk; removal
 *   workspace_request.c    POST body → workspace, with every check
 *   workspace_create.c     tries provider after provider
 *   workspace_destroy.c    destroys the sandbox, then the row; retries, waits for daemons
 *   workspace_reconcile.c  compares rows with what a daemon has
 *   workspace_events.c     subscriptions and GET /:id/events
 *   workspace_handlers.c   the REST handlers
 */
#ifndef EW_GATEWAY_WORKSPACES_INTERNAL_H
#define EW_GATEWAY_WORKSPACES_INTERNAL_H

#include "common/crypto.h"
#include "services/gateway/gateway.h"
#include "services/gateway/orchestrator.h"
#include "services/gateway/store.h"

#define WORKSPACE_STATUS_COUNT 5
#define WORKSPACE_COLUMN_COUNT 27
#define WORKSPACE_WARNINGS_MAX 16
#define WORKSPACE_REASON_MAX 2000
#define WORKSPACE_LABEL_SUITE "ew.suite"
#define WORKSPACE_CREATE_DEADLINE_MS 120000
#define WORKSPACE_DESTROY_GRACE_MS 10000
#define WORKSPACE_DESTROY_DEADLINE_MS (WORKSPACE_DESTROY_GRACE_MS + 60000)
#define WORKSPACE_RETRY_MS 1000
#define WORKSPACE_WAIT_MAX_S 60
#define WORKSPACE_WARM_GRACE_MS 25 /* a pool's answer comes within it; a create without ?wait= then says `ready` */

typedef struct workspace_item workspace_t; /* `struct workspace` is the REST message */
typedef struct waiter waiter_t;
typedef struct creation creation_t;
typedef struct destruction destruction_t;
typedef struct commit commit_t;
typedef struct reconcile reconcile_t;
typedef struct subscription subscription_t;

/* A REST request that is answered when the workspace gets somewhere. */
enum waiter_kind { WAITER_CREATE, WAITER_DELETE };
struct waiter {
    waiter_t *next;
    workspace_t *ws;
    api_request_t *r;
    enum waiter_kind kind;
    struct event *timer; /* CREATE: ?wait= is over */
};

struct workspace_item {
    workspace_row_t row; /* first: a row is its workspace */
    workspaces_t *all;
    workspace_t *hash_next, *newer, *older, *touched_next;
    char *node;             /* "" until a daemon has the sandbox */
    provider_node_t *where; /* of row.provider and node, looked up once */
    char *requested_provider;
    bool use_warm;
    bool is_committed; /* the INSERT is on disk: visible */
    bool is_touched;
    bool is_listed;      /* reconcile: seen in the daemon's list */
    uint64_t settled_ms; /* monotonic time of the last change of status */
    waiter_t *waiters;
    creation_t *creation;
    destruction_t *destruction;
    commit_t *commit; /* the newest one under way */
};

struct workspaces {
    gateway_t *gw;
    sealer_t *sealer;
    char suite[UUID_TEXT_SIZE]; /* label of all our sandboxes */
    workspace_t **buckets;
    size_t bucket_count, count;
    workspace_t *newest;
    size_t by_status[WORKSPACE_STATUS_COUNT];
    size_t active; /* what WORKSPACE_MAX_CONCURRENT limits */
    bool is_alerted;
    workspace_t *touched;
    struct event *flush_timer, *sweep_timer, *resume_timer;
    subscription_t *subscriptions;
    uint64_t last_subscription;
    unsigned emitting; /* depth of event callbacks: the list of subscriptions may not shrink under them */
    reconcile_t *reconciles;
};

/* ---- cache (workspaces.c) ---- */
workspace_t *workspace_new(workspaces_t *all);
void workspace_free(workspace_t *ws);
void workspaces_add(workspaces_t *all, workspace_t *ws);    /* into the cache; counts it */
void workspaces_remove(workspaces_t *all, workspace_t *ws); /* out of the cache and freed */
workspace_t *workspaces_get(workspaces_t *all, const uuid16_t *id);
void workspace_set_status(workspace_t *ws, enum workspace_status status); /* in memory, with the event */
bool workspaces_is_active(const workspace_t *ws, enum workspace_status status);
provider_node_t *workspace_where(workspace_t *ws); /* NULL without a node */
void workspace_place(workspace_t *ws, provider_node_t *n);
void workspace_warn(workspace_t *ws, const char *text);
void workspace_set_reason(workspace_t *ws, const char *reason); /* NULL clears */
int64_t workspace_expiry(const workspaces_t *all, const workspace_t *ws, int64_t now_ms);
const char *workspace_status_name(enum workspace_status status);
bool workspace_status_parse(const char *text, enum workspace_status *status);
static inline workspace_t *workspace_of(workspace_row_t *row)
{
    return (workspace_t *)row;
}

/* ---- rows (workspace_rows.c) ---- */
/* Fills WORKSPACE_COLUMN_COUNT values; texts they point to live in *storage until workspace_row_free. */
typedef struct workspace_row_storage {
    char *limits, *metadata, *warnings;
    buf_t mcp_config, env;
} workspace_row_storage_t;
int workspace_row_values(const workspace_t *ws, enum workspace_status status, store_value_t *values,
                         workspace_row_storage_t *storage, err_t **e);
void workspace_row_free(workspace_row_storage_t *storage);
size_t workspace_update_values(const workspace_t *ws, enum workspace_status status, store_value_t *values,
                               workspace_row_storage_t *storage);
workspace_t *workspace_from_row(workspaces_t *all, const store_result_t *rows, size_t row, err_t **e);
int workspace_encode(const workspace_t *ws, buf_t *out, err_t **e); /* MSG_workspace */

/* ---- commit (workspace_commit.c) ---- */
typedef void (*workspace_then_fn)(workspace_t *ws);
/* The status is visible, and `then` (may be NULL) is called, once it is on disk. A later commit of the same workspace
 * takes an earlier one's place, whose `then` is not called any more. */
void workspace_commit(workspace_t *ws, enum workspace_status status, workspace_then_fn then);
void workspace_delete_row(workspace_t *ws, workspace_then_fn then); /* then frees it */
void commit_free(commit_t *c);

/* ---- create, destroy ---- */
workspace_t *workspace_from_request(workspaces_t *all, const api_request_t *r, pick_request_t *pick, err_t **e);
/* Starts trying. `pick` is taken over; NULL: choose now. only_node: no other daemon may make it. */
void workspace_start_creation(workspace_t *ws, pick_t *pick, provider_node_t *only_node);
void workspace_pick_request(const workspace_t *ws, pick_request_t *request);
provider_node_t *creation_node(const creation_t *c); /* where a call is under way, or NULL */
void creation_free(creation_t *c);
void creation_abort(workspace_t *ws);              /* cancels; what was begun must be destroyed */
void workspace_start_destruction(workspace_t *ws); /* idempotent */
void workspace_destroy_on(workspace_t *ws);        /* sends it if it is due and the daemon is there */
void destruction_free(destruction_t *d);
/* A sandbox that no row wants: told to the daemon once, logged. */
void workspaces_destroy_stray(workspaces_t *all, fabric_peer_t *peer, const uuid16_t *sandbox, const char *why);
void reconcile_free_all(workspaces_t *all);

/* ---- waiters (workspace_handlers.c) ---- */
void workspace_settle(workspace_t *ws, enum waiter_kind kind, const err_t *err); /* answers all of that kind */
void workspace_drop_waiters(workspace_t *ws);

/* ---- events (workspace_events.c) ---- */
void workspaces_emit_status(workspace_t *ws);
void workspaces_emit_notice(workspace_t *ws, const char *type, const char *reason);
void workspaces_emit_deleted(workspace_t *ws);
void subscriptions_free(workspaces_t *all);

#endif
