/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots of workspaces. The row is intent and identity, the daemon on `node` has the bytes: a row is committed as
 * `creating` before the daemon is asked, as `ready` before the caller hears of it, as `deleting` before the daemon is
 * told to remove it. Whatever a crash leaves half done is finished or undone from the row alone.
 *
 *   snapshots.c           the cache: open, close, find, waiters
 *   snapshot_rows.c       struct ↔ SQL row, struct → REST message
 *   snapshot_write.c      rows reach the disk, retried until they have
 *   snapshot_take.c       asks the daemon for one
 *   snapshot_delete.c     asks the daemon to remove one
 *   snapshot_restore.c    workspaces made from one, all or none
 *   snapshot_fork.c       POST /:id/fork: a hidden snapshot and workspaces from it
 *   snapshot_from.c       POST /from-snapshot
 *   snapshot_reconcile.c  compares rows with what a daemon has
 *   snapshot_sweep.c      retention, and what a crash left
 *   snapshot_handlers.c   the other REST handlers
 *
 * A hidden snapshot belongs to a fork. While its row says anything but `deleting`, the fork is not done: a gateway that
 * starts undoes it. `deleting` is the fork's commit point; the workspaces are answered after it.
 */
#ifndef EW_GATEWAY_SNAPSHOTS_INTERNAL_H
#define EW_GATEWAY_SNAPSHOTS_INTERNAL_H

#include "services/gateway/workspaces_internal.h"

#define SNAPSHOT_STATUS_COUNT 4
#define SNAPSHOT_COLUMN_COUNT 19
#define SNAPSHOT_BUCKETS 1024
#define SNAPSHOT_WARNINGS_MAX 16
#define SNAPSHOT_FORK_MAX 100
#define SNAPSHOT_TAKE_DEADLINE_MS 300000 /* memory and disk are copied */
#define SNAPSHOT_TAKE_HOPE_MS 30000      /* how long to wait for a daemon that went away */
#define SNAPSHOT_DELETE_DEADLINE_MS 60000
#define SNAPSHOT_GRACE_MS 600000 /* a row `creating` that no daemon has is kept so long for a repeated request */

typedef struct snapshot_item snapshot_t; /* `struct snapshot` is the REST message */
typedef struct snapshot_waiter snapshot_waiter_t;
typedef struct snapshot_write snapshot_write_t;
typedef struct restore restore_t;
typedef struct snapshot_list snapshot_list_t;

/* err NULL: it is done. The snapshot is valid until the callback returns. */
typedef void (*snapshot_done_fn)(void *arg, snapshot_t *s, const err_t *err);

enum snapshot_waiter_kind { SNAPSHOT_WAITER_TAKE, SNAPSHOT_WAITER_DELETE };
struct snapshot_waiter {
    snapshot_waiter_t *next;
    snapshot_t *s;
    enum snapshot_waiter_kind kind;
    api_request_t *r; /* NULL: one of the gateway's own parts waits */
    snapshot_done_fn done;
    void *arg;
};

struct snapshot_item {
    snapshots_t *all;
    snapshot_t *hash_next, *newer, *older;
    uuid16_t id;
    char id_text[UUID_TEXT_SIZE];
    char owner[64];
    char workspace_id[UUID_TEXT_SIZE];
    char *provider, *node, *name, *description;
    enum snapshot_status status;
    bool is_hidden;
    bool has_processes; /* creating: they are to be kept */
    int64_t size_bytes, stall_ms;
    char *cpu, *memory, *disk; /* resource_limits of its workspace */
    char *image, *network, *failure_reason;
    int64_t created_at_ms, expires_at_ms; /* 0 = by the configured age, if any */
    json_t *warnings;

    bool is_committed; /* the INSERT is on disk: visible */
    bool is_listed;    /* reconcile: seen in the daemon's list */
    uint64_t settled_ms;
    unsigned users; /* restores that need it */
    snapshot_waiter_t *waiters;
    snapshot_write_t *write; /* the newest one under way */
    bool is_taking;          /* from the insert to the answer */
    enum err_code take_code; /* why it failed */
    uint64_t take_started_ms;
    bool is_deleting, is_delete_due; /* due: the intent is on disk */
    bool is_called;                  /* a call of either kind is under way */
    unsigned delay_ms;
    struct event *again; /* the next try of either kind */
};

struct snapshots {
    gateway_t *gw;
    snapshot_t *buckets[SNAPSHOT_BUCKETS];
    snapshot_t *newest;
    size_t count, by_status[SNAPSHOT_STATUS_COUNT];
    restore_t *restores;
    snapshot_list_t *lists;
    struct event *start_timer, *sweep_timer, *first_sweep_timer;
};

/* ---- cache (snapshots.c) ---- */
snapshot_t *snapshot_new(snapshots_t *all);
void snapshots_add(snapshots_t *all, snapshot_t *s);
void snapshots_remove(snapshot_t *s); /* out of the cache and freed */
void snapshot_free(snapshot_t *s);
snapshot_t *snapshots_get(const snapshots_t *all, const uuid16_t *id);
/* Visible ones of the caller; else 400 for a bad id, 404 "snapshot '<id>' not found". */
snapshot_t *snapshots_find(const snapshots_t *all, const char *id_text, const caller_t *caller, err_t **e);
void snapshot_set_status(snapshot_t *s, enum snapshot_status status); /* in memory */
provider_node_t *snapshot_where(const snapshot_t *s);
/* A workspace is being made from it: it must not go. */
bool snapshot_is_in_use(const snapshot_t *s);
int64_t snapshot_expiry(const snapshot_t *s); /* 0 = never */
void snapshot_set_reason(snapshot_t *s, const char *reason);
void snapshot_wait(snapshot_t *s, enum snapshot_waiter_kind kind, snapshot_done_fn done, void *arg);
void snapshot_wait_request(snapshot_t *s, enum snapshot_waiter_kind kind, api_request_t *r, snapshot_done_fn done);
void snapshot_settle(snapshot_t *s, enum snapshot_waiter_kind kind, const err_t *err); /* answers all of that kind */
bool snapshot_status_parse(const char *text, enum snapshot_status *status);

/* ---- rows (snapshot_rows.c) ---- */
typedef struct snapshot_storage {
    char *limits, *warnings;
} snapshot_storage_t;
size_t snapshot_insert_values(const snapshot_t *s, store_value_t *values, snapshot_storage_t *storage);
size_t snapshot_update_values(const snapshot_t *s, enum snapshot_status status, store_value_t *values,
                              snapshot_storage_t *storage);
void snapshot_storage_free(snapshot_storage_t *storage);
snapshot_t *snapshot_from_row(snapshots_t *all, const store_result_t *rows, size_t row, err_t **e);
int snapshot_encode(const snapshot_t *s, buf_t *out, err_t **e); /* MSG_snapshot */
void snapshot_reply(api_request_t *r, const snapshot_t *s, int status);

/* ---- writes (snapshot_write.c) ---- */
/* A later write of the same snapshot takes an earlier one's place, whose `then` is not called any more. err is only
 * ever set after an insert; the others are repeated until they are on disk. */
typedef void (*snapshot_then_fn)(snapshot_t *s, const err_t *err);
void snapshot_insert(snapshot_t *s, snapshot_then_fn then);
void snapshot_commit(snapshot_t *s, enum snapshot_status status, snapshot_then_fn then);
void snapshot_delete_row(snapshot_t *s, snapshot_then_fn then);
void snapshot_write_free(snapshot_write_t *w);

/* ---- take, delete ---- */
/* Why no snapshot of the workspace can be taken now. */
int snapshot_check_source(workspace_t *ws, enum workspace_operation operation, err_t **e);
/* A row about the workspace, in the cache, not yet written. */
snapshot_t *snapshot_of_workspace(snapshots_t *all, const workspace_t *ws, const uuid16_t *id);
void snapshot_start_take(snapshot_t *s); /* inserts the row if it is not there; waiters of TAKE hear the end */
void snapshot_take_info(snapshot_t *s, const struct snapshot_info *info);
void snapshot_take_again(snapshot_t *s);     /* the daemon is back */
void snapshot_start_deletion(snapshot_t *s); /* idempotent */
void snapshot_delete_on(snapshot_t *s);      /* sends it if it is due and the daemon is there */
void snapshots_delete_stray(snapshots_t *all, fabric_peer_t *peer, const char *id_text, const char *why);
/* The id that follows from the request's Idempotency-Key and its workspace, else a random one. -1 + error: bad key. */
int snapshot_request_id(api_request_t *r, const char *workspace_id, uuid16_t *id, err_t **e);

/* ---- restore (snapshot_restore.c) ---- */
/* Workspaces that are answered when all are ready; when one fails, none stays. */
restore_t *restore_new(snapshots_t *all, snapshot_t *s, bool is_fork);
void restore_add_request(restore_t *b, api_request_t *r, uint64_t wait_s); /* wait_s 0: until it ends */
/* Checks the room and counts it in the cache; taken over. Call it for all before anything else is done. */
int restore_add_member(restore_t *b, workspace_t *ws, err_t **e);
void restore_watch_member(restore_t *b, workspace_t *ws); /* one that exists already: it is only waited for */
void restore_start(restore_t *b);                         /* the snapshot is ready: writes the rows, makes them */
void restore_fail(restore_t *b, const err_t *err);        /* nothing of it stays; answers; frees it */
restore_t *restore_find(const snapshots_t *all, const uuid16_t *workspace);
void restore_close_all(snapshots_t *all);
/* A workspace made from `s`, checked, with all that follows from the snapshot. `m` gives env, metadata, …. */
workspace_t *restore_workspace(snapshot_t *s, const api_request_t *r, struct workspace_create *m, err_t **e);
void restore_reply_many(api_request_t *r, workspace_t *const *list, size_t count);
void restore_reply_one(api_request_t *r, const workspace_t *ws);
void snapshot_conclude_fork(snapshot_t *s, snapshot_then_fn then); /* the commit point of a fork */
void snapshot_forget_in_workspaces(snapshot_t *s);                 /* rows made from it do not name it any more */

/* ---- reconcile, sweep ---- */
void snapshot_lists_free(snapshots_t *all);
void snapshots_sweep(snapshots_t *all);      /* also called by tests */
void snapshots_undo_forks(snapshots_t *all); /* once, after a start */

#endif
