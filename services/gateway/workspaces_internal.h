/* SPDX-License-Identifier: Apache-2.0
 *
 * What the workspace*.c files share. A workspace is one struct in a hash table by id and in a list by age; every change
 * of status goes through workspace_commit(), so that what a caller can see is on disk. A workspace lives until its row
 * is deleted.
 *
 *   workspaces.c           open, close, find, touch, the cache
 *   workspace_states.c     the table of transitions: which operation is allowed when
 *   workspace_rows.c       struct ↔ SQL row, struct → REST message
 *   workspace_commit.c     status changes, retried until they are on disk; removal
 *   workspace_request.c    POST body → workspace, with every check
 *   workspace_quota.c      limits of the suite and of owners
 *   workspace_create.c     tries provider after provider
 *   workspace_destroy.c    destroys the sandbox, then the row; retries, waits for daemons
 *   workspace_stop.c       stop and resume: intent, daemon, result; wake on use
 *   workspace_sessions.c   attach, detach and their history
 *   workspace_patch.c      PATCH: TTL and metadata
 *   workspace_sweep.c      expired and idle ones
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
#define WORKSPACE_INTENT_COUNT 4
#define WORKSPACE_COLUMN_COUNT 30
#define WORKSPACE_WARNINGS_MAX 16
#define WORKSPACE_REASON_MAX 2000
#define WORKSPACE_LABEL_SUITE "ew.suite"
#define WORKSPACE_CREATE_DEADLINE_MS 120000
#define WORKSPACE_DESTROY_GRACE_MS 10000
#define WORKSPACE_DESTROY_DEADLINE_MS (WORKSPACE_DESTROY_GRACE_MS + 60000)
#define WORKSPACE_STOP_DEADLINE_MS 600000         /* of stop and resume: gigabytes go to a slow disk */
#define WORKSPACE_WAKING_MAX 64                   /* tool calls that wait for one workspace to be resumed */
#define WORKSPACE_WAKING_BYTES ((size_t)64 << 20) /* their requests, of all workspaces */
#define WORKSPACE_RETRY_MS 1000
#define WORKSPACE_WAIT_MAX_S 60
#define WORKSPACE_OWNER_BUCKETS 1024
#define WORKSPACE_WARM_GRACE_MS \
    250 /* a pool answers within it on a busy host too; a create without ?wait= then says `ready` */

typedef struct workspace_item workspace_t; /* `struct workspace` is the REST message */
typedef struct waiter waiter_t;
typedef struct creation creation_t;
typedef struct destruction destruction_t;
typedef struct transition transition_t;
typedef struct commit commit_t;
typedef struct reconcile reconcile_t;
typedef struct subscription subscription_t;
typedef struct owner_usage owner_usage_t;
typedef struct flush flush_t;

typedef struct quota_amounts { /* what a workspace counts in its owner's limits */
    uint64_t cpu_milli, memory_bytes, disk_bytes;
} quota_amounts_t;

/* A REST request that is answered when the workspace gets somewhere. */
enum waiter_kind {
    WAITER_CREATE,
    WAITER_DELETE,
    WAITER_STOP,
    WAITER_RESUME,
    WAITER_ASSIGN, /* attach, until it is on disk */
    WAITER_ATTACH, /* attach, until the workspace is resumed */
    WAITER_TOOL,   /* runs when the workspace is resumed */
};
struct waiter {
    waiter_t *next;
    workspace_t *ws;
    api_request_t *r;
    enum waiter_kind kind;
    struct event *timer; /* CREATE: ?wait= is over */
    route_fn then;       /* TOOL: what goes on */
    size_t bytes;        /* TOOL: of the request it holds */
    bool is_first;       /* ASSIGN, ATTACH: the session got it by this request and loses it when that fails */
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
    bool is_assigning;                     /* an attach is being written */
    char previous_session[UUID_TEXT_SIZE]; /* "" = not known */
    bool is_listed;                        /* reconcile: seen in the daemon's list */
    int64_t attached_ms;                   /* of the last attach through this gateway */
    uint64_t settled_ms;                   /* monotonic time of the last change of status */
    waiter_t *waiters;
    creation_t *creation;
    destruction_t *destruction;
    transition_t *transition; /* stop or resume under way */
    commit_t *commit;         /* the newest one under way */
    owner_usage_t *usage;     /* while it is in the cache */
    quota_amounts_t amounts;
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
    flush_t *flush; /* last uses on their way to the store */
    struct event *flush_timer, *sweep_timer, *resume_timer, *idle_timer;
    int64_t idle_stop_ms; /* 0 = never */
    size_t waking_bytes;
    subscription_t *subscriptions;
    uint64_t last_subscription;
    unsigned emitting; /* depth of event callbacks: the list of subscriptions may not shrink under them */
    reconcile_t *reconciles;
    owner_usage_t *owners[WORKSPACE_OWNER_BUCKETS];
};

/* ---- cache (workspaces.c) ---- */
workspace_t *workspace_new(workspaces_t *all);
void workspace_free(workspace_t *ws);
void workspaces_add(workspaces_t *all, workspace_t *ws);    /* into the cache; counts it */
void workspaces_remove(workspaces_t *all, workspace_t *ws); /* out of the cache and freed */
workspace_t *workspaces_get(workspaces_t *all, const uuid16_t *id);
void workspace_set_status(workspace_t *ws, enum workspace_status status); /* in memory, with the event */
void workspace_set_intent(workspace_t *ws, enum workspace_intent intent); /* in memory */
void workspace_set_stop_reason(workspace_t *ws, const char *reason);      /* NULL clears */
/* Room for `ws` to be running beside all that are (limits of the suite and of its owner); call it before it counts. */
int workspaces_check_room(const workspaces_t *all, const workspace_t *ws, err_t **e);
/* Sums for each owner (workspace_quota.c): into and out of the cache, and as it begins and ends to be active. */
void quota_join(workspace_t *ws);
void quota_leave(workspace_t *ws);
void quota_count(workspace_t *ws, bool is_more);
void quota_free_all(workspaces_t *all);
int quota_check_config(const config_t *config, err_t **e);
bool workspaces_is_active(const workspace_t *ws, enum workspace_status status);
provider_node_t *workspace_where(workspace_t *ws); /* NULL without a node */
void workspace_place(workspace_t *ws, provider_node_t *n);
void workspace_warn(workspace_t *ws, const char *text);
void workspace_set_reason(workspace_t *ws, const char *reason); /* NULL clears */
int64_t workspace_expiry(const workspaces_t *all, const workspace_t *ws, int64_t now_ms);
const char *workspace_status_name(enum workspace_status status);
bool workspace_status_parse(const char *text, enum workspace_status *status);
/* ---- states (workspace_states.c) ---- */
enum workspace_operation {
    OPERATION_STOP,
    OPERATION_RESUME,
    OPERATION_ATTACH,
    OPERATION_DETACH,
    OPERATION_SNAPSHOT,
    OPERATION_FORK,
    OPERATION_TOOL,
    OPERATION_PATCH,
    OPERATION_DELETE,
    WORKSPACE_OPERATION_COUNT
};
enum workspace_verdict {
    VERDICT_REFUSED, /* the error names the state and what to do */
    VERDICT_ALLOWED,
    VERDICT_JOINS, /* what is asked for is under way, or is done when what is under way has ended */
    VERDICT_DONE,  /* it is so already */
};
enum workspace_verdict workspace_judge(const workspace_row_t *row, enum workspace_operation operation, err_t **e);
const char *workspace_intent_name(enum workspace_intent intent); /* "" for none */
bool workspace_intent_parse(const char *text, enum workspace_intent *intent);

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
size_t workspace_update_values(const workspace_t *ws, enum workspace_status status, enum workspace_intent intent,
                               store_value_t *values, workspace_row_storage_t *storage);
workspace_t *workspace_from_row(workspaces_t *all, const store_result_t *rows, size_t row, err_t **e);
int workspace_encode(const workspace_t *ws, buf_t *out, err_t **e); /* MSG_workspace */

/* ---- commit (workspace_commit.c) ---- */
typedef void (*workspace_then_fn)(workspace_t *ws);
/* The status is visible, and `then` (may be NULL) is called, once it is on disk. A later commit of the same workspace
 * takes an earlier one's place, whose `then` is not called any more. */
void workspace_commit(workspace_t *ws, enum workspace_status status, workspace_then_fn then);
/* The same with something under way; workspace_commit leaves no intent. */
void workspace_commit_intent(workspace_t *ws, enum workspace_status status, enum workspace_intent intent,
                             workspace_then_fn then);
/* Metadata, warnings, TTL and expiry as they are in memory, beside whatever else is committed. done may be NULL. */
int workspace_save_note(workspace_t *ws, store_done_fn done, void *arg, err_t **e);
void workspace_delete_row(workspace_t *ws, workspace_then_fn then); /* then frees it */
void commit_free(commit_t *c);
/* What a client is told when its change could not be written: no text of the database, but whether it may retry. */
void workspace_database_error(const err_t *err, err_t **e);

/* ---- create, destroy ---- */
workspace_t *workspace_from_request(workspaces_t *all, const api_request_t *r, pick_request_t *pick, err_t **e);
workspace_t *workspace_from_message(workspaces_t *all, const api_request_t *r, const struct workspace_create *m,
                                    pick_request_t *pick, err_t **e);
/* Starts trying. A workspace that is not made yet and has a snapshot_id is made from it, where row.provider and node
 * say. `pick` is taken over; NULL: choose now. only_node: no other daemon may make it. */
void workspace_start_creation(workspace_t *ws, pick_t *pick, provider_node_t *only_node);
void workspace_pick_request(const workspace_t *ws, pick_request_t *request);
provider_node_t *creation_node(const creation_t *c); /* where a call is under way, or NULL */
void creation_free(creation_t *c);
void creation_abort(workspace_t *ws);              /* cancels; what was begun must be destroyed */
void workspace_start_destruction(workspace_t *ws); /* idempotent */
/* The same; a daemon that is not there is not waited for. */
void workspace_force_destruction(workspace_t *ws);
void workspace_destroy_on(workspace_t *ws); /* sends it if it is due and the daemon is there */
void destruction_free(destruction_t *d);
/* ---- stop, resume (workspace_stop.c); each only after workspace_judge allowed it ---- */
int workspace_start_stop(workspace_t *ws, bool without_processes, const char *reason, err_t **e);
/* Its daemon is there, it has a sandbox and there is room for it. */
int workspace_may_resume(workspace_t *ws, err_t **e);
/* With these checks. WAITER_RESUME, WAITER_ATTACH and WAITER_TOOL are answered in the end. */
int workspace_start_resume(workspace_t *ws, err_t **e);
void workspace_continue(workspace_t *ws); /* the intent is on disk: asks the daemon if nobody does */
void transition_abort(workspace_t *ws);   /* it is destroyed instead */
void transition_note_death(workspace_t *ws, const char *reason);
void transition_free(transition_t *t);

/* ---- sessions (workspace_sessions.c) ---- */
int workspaces_load_sessions(workspaces_t *all, err_t **e);
/* The session that came with the create: its history begins with the row. */
void workspace_open_first_assignment(workspace_t *ws);
void workspace_end_assignment(workspace_t *ws, const char *reason); /* closes the open one, if there is one */
void workspace_undo_attach(workspace_t *ws);                        /* what it was attached for failed */
bool workspace_session_parse(const char *text, char session[UUID_TEXT_SIZE]);

/* ---- sweep (workspace_sweep.c) ---- */
void workspaces_sweep(workspaces_t *all);                         /* destroys what has expired */
void workspaces_stop_idle(workspaces_t *all);                     /* stops what nobody uses */
int workspace_check_metadata(const json_t *metadata, err_t **e);  /* no key that the suite writes */
void workspace_copy_own_metadata(json_t *to, const json_t *from); /* only the keys that the suite writes */

/* A sandbox that no row wants: told to the daemon once, logged. */
void workspaces_destroy_stray(workspaces_t *all, fabric_peer_t *peer, const uuid16_t *sandbox, const char *why);
void reconcile_free_all(workspaces_t *all);

/* ---- waiters (workspace_handlers.c) ---- */
waiter_t *workspace_wait(workspace_t *ws, api_request_t *r, enum waiter_kind kind);
size_t workspace_count_waiters(const workspace_t *ws, enum waiter_kind kind);
void workspace_settle(workspace_t *ws, enum waiter_kind kind, const err_t *err); /* answers all of that kind */
void workspace_reply(api_request_t *r, const workspace_t *ws, int status);
/* The workspace of :id for a handler; NULL after the error was replied. */
workspace_t *workspace_of_request(api_request_t *r);
void workspace_drop_waiters(workspace_t *ws);

/* ---- cursors of lists, newest first (workspace_list.c) ---- */
bool list_cursor_parse(const char *text, int64_t *created_at_ms, char id_text[UUID_TEXT_SIZE]);
void list_cursor_add(api_request_t *r, int64_t created_at_ms, const char *id_text); /* X-Next-Cursor */

/* ---- events (workspace_events.c) ---- */
void workspaces_emit_status(workspace_t *ws);
void workspaces_emit_notice(workspace_t *ws, const char *type, const char *reason);
void workspaces_emit_deleted(workspace_t *ws);
void subscriptions_free(workspaces_t *all);

#endif
