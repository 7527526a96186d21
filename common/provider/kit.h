/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the provider kit: what its files share. Nobody else includes this.
 *
 * provider.c       start, links to the hubs, status, dispatch of frames
 * requests.c       requests for the daemon itself: assembly, replies in windows
 * verbs.c          the daemon's own verbs: destroy, list, status, images, stop, resume
 * create_verb.c    sandbox_create: what is asked for, checked
 * snapshot_verbs.c snapshot_create, _delete, _list
 * states.c         the table of states: names, what may begin in each, what a restarted daemon does with each
 * lifecycle.c      creating and destroying; adoption after a restart
 * stop.c           ready or dead -> stopping -> stopped
 * resume.c         stopped or dead -> resuming -> ready
 * restart.c        what happens when one ends by itself
 * snapshot_take.c  a snapshot of a ready or stopped one
 * snapshots.c      snapshot.json, the list of snapshots, removal
 * registry.c       sandbox.json
 * line.c           the stream of one sandbox: opened, quiesced, lost
 * configure.c      tells an agent that was restored from another's memory who it is
 * relay.c          calls between hubs and one sandbox's stream
 * outbox.c         frames that wait for a slow hub
 * pool.c           warm pools: made, checked, claimed
 * pool_verbs.c     pool_set, pool_list; what the status tells of pools
 * drain.c          stops everything before the machine, container or pod ends
 * grace.c          ends what runs in a sandbox before it is destroyed
 * trash.c          removes trees in a child process
 *
 * Of one sandbox at most one function of the provider's vtable that ends by `done` runs at a time (kit_sandbox.op).
 */
#ifndef EW_COMMON_PROVIDER_KIT_H
#define EW_COMMON_PROVIDER_KIT_H

#include "common/log.h"
#include "common/provider/provider.h"
#include "proto/verbs.h"

#include <sys/queue.h>

#define KIT_CALLS_MAX 4096                   /* in flight per sandbox */
#define KIT_DOWN_QUEUE_MAX (8 * 1024 * 1024) /* bytes that wait for one sandbox beyond its stream's own queue */
#define KIT_REQUEST_MAX (1024 * 1024)        /* one assembled request for the daemon itself */
#define KIT_REQUESTS_MAX 256                 /* requests for the daemon in assembly or with an unsent reply, per hub */
#define KIT_GRACE_DEFAULT_MS 10000
#define KIT_PROBE_INTERVAL_MS 30000
#define KIT_PROBE_FRESH_MS 5000
#define KIT_ADOPT_WAIT_MS 5000 /* the hubs are told of us when all streams are back, or after this */
#define KIT_DESTROY_RETRY_MS 5000
#define KIT_ADOPT_TIMEOUT_MS 60000  /* an agent starved by its own sandbox's processes takes long to answer */
#define KIT_RESUME_TIMEOUT_MS 30000 /* an agent restored from disk reads its memory back as it goes */
#define KIT_QUIESCE_MS 5000         /* for QUIESCED; then it is done without its processes */
#define KIT_CONFIGURE_MS 10000
#define KIT_DEATHS_MAX 3 /* within KIT_DEATHS_MS: then it stays dead */
#define KIT_DEATHS_MS ((uint64_t)10 * 60 * 1000)
#define KIT_RESTARTS_MAX 4  /* at once */
#define KIT_RESTART_TRIES 2 /* more, a second and two later */
#define KIT_WARNINGS_MAX 16
#define KIT_POOLS_MAX 64
#define KIT_POOL_MAKING_MAX 8   /* at once, of all pools */
#define KIT_POOL_FILL_MS 100    /* after the last claim */
#define KIT_POOL_CHECK_MS 30000 /* a warm one answers at least this often */
#define KIT_POOL_RETRY_MIN_MS 1000
#define KIT_POOL_RETRY_MAX_MS 60000
#define KIT_POOL_DRAIN_MS 10000
#define KIT_CLAIM_MS 5000
#define KIT_DRAIN_AT_ONCE 4
#define KIT_NOTICE_BURST 64 /* notices of one sandbox that are passed on at once; more are dropped */
#define KIT_NOTICE_MS 100   /* for each of them another one may come after this */

typedef struct kit_sandbox kit_sandbox_t;
typedef struct kit_snapshot kit_snapshot_t;
typedef struct kit_pool kit_pool_t;

/* ---- what is asked of a sandbox, and what its state says to that (states.c) ---- */
enum kit_want { KIT_WANT_CREATE, KIT_WANT_STOP, KIT_WANT_RESUME, KIT_WANT_SNAPSHOT, KIT_WANT_COUNT };
enum kit_answer {
    KIT_REFUSE, /* a conflict */
    KIT_BEGIN,
    KIT_JOIN, /* it is under way: wait for its end */
    KIT_DONE  /* it is so already */
};

/* The function of the vtable that runs. */
enum kit_op { KIT_OP_NONE, KIT_OP_CREATE, KIT_OP_STOP, KIT_OP_RESUME, KIT_OP_SNAPSHOT, KIT_OP_DESTROY };

/* A frame that waits. */
typedef struct kit_frame {
    STAILQ_ENTRY(kit_frame) entry;
    kit_sandbox_t *source; /* its stream is paused until this is sent; NULL = the daemon itself */
    envelope_t env;
    size_t len;
    uint8_t body[];
} kit_frame_t;
STAILQ_HEAD(kit_frame_list, kit_frame);

/* A request for the daemon in assembly, then its reply while the hub has not granted all of it. */
typedef struct kit_request {
    TAILQ_ENTRY(kit_request) entry;
    envelope_t env; /* of the first frame */
    buf_t body;
    buf_t reply;
    size_t reply_sent;
    size_t credit;
    bool is_replying;
} kit_request_t;
TAILQ_HEAD(kit_request_list, kit_request);

/* One hub; hangs on the fabric's peer. */
typedef struct kit_peer {
    TAILQ_ENTRY(kit_peer) entry;
    fabric_peer_t *peer;
    provider_t *provider;
    uint64_t serial; /* never reused: remembers a hub safely after it is gone */
    bool is_gateway;
    struct kit_frame_list outbox;
    size_t outbox_bytes;
    struct kit_request_list requests;
    size_t request_count;
} kit_peer_t;
TAILQ_HEAD(kit_peer_list, kit_peer);

/* failure NULL: the stream is ready. Called once. */
typedef void (*kit_opened_fn)(kit_sandbox_t *ks, const char *failure);
/* is_quiet: the agent sends nothing more, and nothing that it sent is missing. Called once. */
typedef void (*kit_quiesced_fn)(kit_sandbox_t *ks, bool is_quiet);
typedef void (*kit_configured_fn)(kit_sandbox_t *ks, const err_t *err);
typedef void (*kit_internal_fn)(kit_sandbox_t *ks, void *arg, const uint8_t *body, size_t len, bool is_error);

/* One call in flight. */
typedef struct kit_call {
    LIST_ENTRY(kit_call) entry;
    uint64_t call_id;
    uint64_t peer_serial;
    uuid16_t trace;
    kit_peer_t *peer;  /* NULL: its hub is gone, or the call is the kit's own */
    bool is_cancelled; /* its hub listens no more: only the end is passed on */
    kit_internal_fn internal;
    void *internal_arg;
    buf_t *internal_body;
} kit_call_t;
LIST_HEAD(kit_call_list, kit_call);

/* A hub that waits for the end of what it asked for. */
typedef struct kit_waiter {
    STAILQ_ENTRY(kit_waiter) entry;
    uint64_t peer_serial;
    envelope_t env;
} kit_waiter_t;
STAILQ_HEAD(kit_waiter_list, kit_waiter);

struct kit_sandbox {
    sandbox_t pub; /* first: a sandbox_t * is a kit_sandbox_t * */
    TAILQ_ENTRY(kit_sandbox) entry;
    LIST_ENTRY(kit_sandbox) by_id;
    uint64_t created_at_ms;
    uint64_t epoch; /* of the stream; grows, saved */
    uint64_t started_ms;
    uint64_t made_ms; /* ops->create had ended */
    uint32_t total_ms;
    buf_t programs; /* LIST elements of the agent's `programs` */
    uint32_t program_count;
    bool is_adopting;
    enum kit_op op;
    bool is_destroy_wanted; /* as soon as op has ended */
    char *died;             /* ended by itself while op ran, why */
    err_t *op_error;        /* what is told when the way back is done */
    struct kit_waiter_list create_waiters;
    struct kit_waiter_list stop_waiters;
    struct kit_waiter_list resume_waiters;
    struct kit_waiter_list destroy_waiters;
    /* stop and resume; the first three are saved */
    bool keeps_processes;   /* stopping: as asked for */
    uint32_t stop_ms;       /* how long it took to stop */
    char *restart_reason;   /* resuming: it is a restart by ourselves, and why */
    json_t *deaths;         /* saved: when it ended by itself, milliseconds since 1970, the last few */
    json_t *warnings;       /* saved: of the operation under way or the last one */
    bool are_warnings_told; /* the next operation starts with none */
    bool is_restart_queued;
    char *untold_restart;   /* it came back while no gateway was there, and why it had ended */
    unsigned restart_tries; /* that failed */
    struct event *restart_timer;
    bool has_retried;             /* resuming: from the files, because the processes did not answer */
    enum sandbox_state came_from; /* stopping, resuming: where it was */
    /* snapshots */
    kit_snapshot_t *snapshot; /* being taken of it */
    kit_snapshot_t *origin;   /* creating: made from this one */
    /* pool */
    kit_pool_t *pool; /* made for it, and not claimed yet */
    bool was_warm;
    bool was_drained; /* it was stopped, or tried to be, for a drain */
    bool is_checking;
    uint64_t checked_ms;
    /* line */
    kit_opened_fn on_opened;
    kit_quiesced_fn on_quiesced;
    bool is_stalled; /* QUIESCE was sent: what comes from hubs waits */
    struct event *quiesce_timer;
    kit_configured_fn on_configured;
    struct event *configure_timer;
    struct event *retry_timer;
    /* relay */
    struct kit_call_list *calls;
    size_t call_buckets;
    size_t call_count;
    struct kit_frame_list down;
    size_t down_bytes;
    size_t held; /* frames of ours in outboxes */
    uint32_t notice_tokens;
    uint64_t notice_ms; /* tokens are counted up to here */
    /* grace */
    struct event *grace_timer;
    uint64_t grace_until_ms;
    bool has_terminated;
    bool is_grace_asking;
};
TAILQ_HEAD(kit_sandbox_list, kit_sandbox);
LIST_HEAD(kit_bucket, kit_sandbox);
#define KIT_ID_BUCKETS 256

/* One snapshot; pub.dir is where it is now. */
struct kit_snapshot {
    snapshot_t pub; /* first: a snapshot_t * is a kit_snapshot_t * */
    TAILQ_ENTRY(kit_snapshot) entry;
    provider_t *provider;
    enum kit_snapshot_state { KIT_SNAPSHOT_CREATING, KIT_SNAPSHOT_READY, KIT_SNAPSHOT_DESTROYING } state;
    char *unreadable; /* why its snapshot.json cannot be read: it is kept and refused */
    size_t users;     /* sandboxes that are being made from it */
    bool keeps_processes;
    bool is_taken; /* ops->snapshot has ended */
    uint64_t started_ms;
    uint64_t stalled_ms; /* QUIESCE was sent */
    struct kit_waiter_list create_waiters;
    struct kit_waiter_list delete_waiters;
};
TAILQ_HEAD(kit_snapshot_list, kit_snapshot);

/* One warm pool. */
struct kit_pool {
    TAILQ_ENTRY(kit_pool) entry;
    char *image;
    char *network;
    uint64_t disk_bytes, memory_bytes;
    uint32_t cpu_milli, pids_max;
    uint32_t size; /* 0: it is given up, and freed when its last sandbox is gone */
    uint64_t hits, misses;
    uint64_t retry_ms; /* not filled before: the last one failed */
    uint32_t delay_ms;
    char message[300];
};

typedef struct kit_trash kit_trash_t;
TAILQ_HEAD(kit_trash_list, kit_trash);
TAILQ_HEAD(kit_pool_list, kit_pool);

struct provider {
    daemon_t *daemon;
    const provider_ops_t *ops;
    void *data;
    char *sandboxes_dir;
    char *snapshots_dir;
    struct kit_snapshot_list snapshots;
    struct kit_trash_list trash;
    struct kit_pool_list pools;
    uint64_t pool_misses_other;
    struct event *pool_timer;
    struct event *drain_signal;
    bool is_draining, is_drained;
    fabric_t **links;
    size_t link_count;
    struct kit_peer_list peers;
    uint64_t next_serial;
    struct kit_sandbox_list sandboxes;
    struct kit_bucket by_id[KIT_ID_BUCKETS];
    size_t sandbox_count;
    struct event *tick;
    struct event *adopt_timer;
    bool is_probing;
    bool is_pumping; /* kit_restart_pump() runs */
    bool are_links_open;
    uint64_t probe_started_ms;
    uint64_t probed_ms;
    uint64_t probed_realtime_ms;
    struct kit_waiter_list probe_waiters;
};

/* ---- provider.c ---- */
kit_peer_t *kit_peer_by_serial(provider_t *p, uint64_t serial);
void kit_probe_start(provider_t *p);
int kit_status_encode(provider_t *p, buf_t *out, err_t **e);
void kit_status_push(provider_t *p);
void kit_links_open_if_adopted(provider_t *p);
bool kit_has_gateway(const provider_t *p);
/* A NOTICE with sandbox_event to every gateway. */
void kit_event(kit_sandbox_t *ks, const char *type, const char *reason);

/* ---- states.c ---- */
const char *kit_state_name(enum sandbox_state state);
bool kit_state_parse(const char *name, enum sandbox_state *state);
/* For KIT_REFUSE *e says why. */
enum kit_answer kit_answer(const kit_sandbox_t *ks, enum kit_want want, err_t **e);
/* Why it takes no call now. */
void kit_refuse_call(const kit_sandbox_t *ks, kit_peer_t *kp, const envelope_t *env);
/* What a restarted daemon does with it. */
void kit_start(kit_sandbox_t *ks);

/* ---- registry.c ---- */
kit_sandbox_t *kit_sandbox_new(provider_t *p, const uuid16_t *id); /* host_id = id */
void kit_sandbox_set_id(kit_sandbox_t *ks, const uuid16_t *id);    /* host_id and directory stay */
void kit_sandbox_free(kit_sandbox_t *ks);                          /* takes it out of the lists; the directory stays */
kit_sandbox_t *kit_sandbox_find(provider_t *p, const uuid16_t *id);
int kit_registry_save(kit_sandbox_t *ks, err_t **e);
/* Reads every sandbox.json; what cannot be read becomes a sandbox in state destroying. */
int kit_registry_load(provider_t *p, err_t **e);
json_t *kit_spec_pack(const sandbox_spec_t *spec); /* NULL: a text in it is not UTF-8 */
int kit_spec_unpack(json_t *root, sandbox_spec_t *spec, err_t **e);
void kit_spec_free(sandbox_spec_t *spec);

/* ---- lifecycle.c ---- */
void kit_log(const kit_sandbox_t *ks, enum log_level level, const char *what, const char *detail);
void kit_save(kit_sandbox_t *ks); /* a failure is logged: on disk is an earlier state from which a restart finds on */
void kit_create(kit_sandbox_t *ks);
void kit_fail_create(kit_sandbox_t *ks, const err_t *err);
void kit_create_configured(kit_sandbox_t *ks,
                           const err_t *err); /* the last step of one that had to be told who it is */
void kit_destroy(kit_sandbox_t *ks);          /* waits for the end of what runs */
/* To be called first when an op has ended: true = it was destroyed meanwhile, go no further. */
bool kit_op_ended(kit_sandbox_t *ks);
void kit_adopt_ready(kit_sandbox_t *ks);
void kit_waiters_error(provider_t *p, struct kit_waiter_list *list, const err_t *err);
void kit_waiters_reply(provider_t *p, struct kit_waiter_list *list, unsigned msg_id, const void *msg);
void kit_waiter_add(struct kit_waiter_list *list, const kit_peer_t *kp, const envelope_t *env);

/* ---- stop.c ---- */
void kit_stop(kit_sandbox_t *ks, bool keeps_processes); /* after the waiter was added */
void kit_stop_finish(kit_sandbox_t *ks);                /* after a restart: stopping, and it does not run */
void kit_stop_reply(kit_sandbox_t *ks, struct kit_waiter_list *list);

/* ---- resume.c ---- */
void kit_resume(kit_sandbox_t *ks);
void kit_resume_run(kit_sandbox_t *ks);  /* it is in state resuming already */
void kit_resume_undo(kit_sandbox_t *ks); /* after a restart: resuming, and it does not run */
void kit_resume_adopted(kit_sandbox_t *ks);
void kit_resume_reply(kit_sandbox_t *ks, struct kit_waiter_list *list);

/* ---- restart.c ---- */
/* It has ended by itself: it is started anew, or is dead. */
void kit_died(kit_sandbox_t *ks, const char *reason);
void kit_mark_dead(kit_sandbox_t *ks, const char *reason);
void kit_restart_queue(kit_sandbox_t *ks);
void kit_restart_later(kit_sandbox_t *ks); /* a try has failed */
void kit_restart_stop(kit_sandbox_t *ks);
void kit_restart_pump(provider_t *p);

/* ---- warnings (restart.c) ---- */
void kit_warnings_begin(kit_sandbox_t *ks);
/* The list as a message's field; adds the provider's own (private_ "warnings") when `facts` is given. */
proto_list_t kit_warnings_list(const json_t *warnings, const json_t *facts, buf_t *storage);
char *kit_phases(const kit_sandbox_t *ks, const char *key); /* JSON text or NULL */

/* ---- snapshots.c ---- */
int kit_snapshots_load(provider_t *p, err_t **e);
void kit_snapshots_free(provider_t *p);
kit_snapshot_t *kit_snapshot_find(provider_t *p, const uuid16_t *id);
/* With its directory `.new-<uuid>`. */
kit_snapshot_t *kit_snapshot_new(kit_sandbox_t *ks, const uuid16_t *id, err_t **e);
int kit_snapshot_complete(kit_snapshot_t *snap, err_t **e); /* it takes its name */
/* Its directory goes to the trash; frees it when that is empty (delete_waiters are answered then). */
void kit_snapshot_remove(kit_snapshot_t *snap);

/* ---- snapshot_take.c ---- */
void kit_snapshot_take(kit_sandbox_t *ks, kit_snapshot_t *snap);
/* The sandbox goes: what is taken is finished, what is not is dropped. */
void kit_snapshot_interrupt(kit_sandbox_t *ks, const err_t *err);

/* ---- snapshot_verbs.c ---- */
void kit_verb_snapshot_create(kit_peer_t *kp, const envelope_t *env, const void *msg);
void kit_verb_snapshot_delete(kit_peer_t *kp, const envelope_t *env, const void *msg);
void kit_verb_snapshot_list(kit_peer_t *kp, const envelope_t *env, const void *msg);
void kit_snapshot_reply(kit_snapshot_t *snap, struct kit_waiter_list *list);

/* ---- trash.c ---- */
typedef void (*kit_trash_fn)(void *arg, bool is_gone);
/* Removes the tree, one after another, in a child process; done may be NULL. */
void kit_trash_add(provider_t *p, const char *path, kit_trash_fn done, void *arg);
void kit_trash_free(provider_t *p);

/* ---- requests.c ---- */
void kit_verb_frame(kit_peer_t *kp, const envelope_t *env, const uint8_t *body, size_t len);
void kit_verb_credit(kit_peer_t *kp, const envelope_t *env);
void kit_verb_cancel(kit_peer_t *kp, const envelope_t *env);
void kit_requests_free(kit_peer_t *kp);
void kit_reply(kit_peer_t *kp, const envelope_t *request, unsigned msg_id, const void *msg);

/* ---- verbs.c, create_verb.c ---- */
void kit_dispatch(kit_peer_t *kp, const envelope_t *env, const uint8_t *body, size_t len);
void kit_verb_create(kit_peer_t *kp, const envelope_t *env, const void *msg);
void kit_reply_created(kit_sandbox_t *ks);
/* In state creating, on disk; NULL + error. */
kit_sandbox_t *kit_create_begin(provider_t *p, const uuid16_t *id, const struct sandbox_create_request *request,
                                err_t **e);
uint32_t kit_pids_max(const provider_t *p, const struct sandbox_create_request *request);
json_t *kit_map_to_json(const proto_list_t *map);
int kit_check_room(provider_t *p, const kit_sandbox_t *self, err_t **e); /* self: counts already, or NULL */

/* ---- line.c ---- */
/* The agent's calls are detached from who asked: their replies wait for the same call ids. */
int kit_line_open(kit_sandbox_t *ks, kit_opened_fn fn, uint32_t timeout_ms, err_t **e);
/* After kit_quiesce: calls in flight go on where they were, if the agent became quiet. */
int kit_line_go_on(kit_sandbox_t *ks, kit_opened_fn fn, err_t **e);
/* Ends every call in flight with err. */
void kit_line_close(kit_sandbox_t *ks, const err_t *err);
/* The stream broke or the sandbox has ended: whoever waits for the line hears of it. */
void kit_line_lost(kit_sandbox_t *ks, const char *reason);
void kit_quiesce(kit_sandbox_t *ks, kit_quiesced_fn fn);
void kit_quiesced(kit_sandbox_t *ks); /* the agent says so */
void kit_line_timers_free(kit_sandbox_t *ks);

/* ---- configure.c ---- */
/* is_new: its memory is another's. Without that and without an environment there is nothing to tell. */
void kit_configure(kit_sandbox_t *ks, bool is_new, kit_configured_fn fn);
void kit_configure_lost(kit_sandbox_t *ks, const char *reason);
void kit_configure_stop(kit_sandbox_t *ks);

/* ---- drain.c ---- */
int kit_drain_init(provider_t *p, err_t **e); /* SIGUSR2 */
void kit_drain_free(provider_t *p);
void kit_drain_turn(provider_t *p); /* goes on if a drain is under way */

/* ---- pool.c, pool_verbs.c ---- */
void kit_pools_give_up(provider_t *p);
void kit_pools_init(provider_t *p);
void kit_pools_free(provider_t *p);
void kit_pool_tick(provider_t *p);
void kit_pool_fill(provider_t *p); /* drops what is too much, makes what is missing */
size_t kit_pool_count(const provider_t *p, const kit_pool_t *pool, enum sandbox_state state);
kit_pool_t *kit_pool_find(provider_t *p, const char *image, uint64_t disk_bytes, const char *network);
void kit_pool_free(provider_t *p, kit_pool_t *pool);
/* A claim went wrong: who waits for it gets a cold one. */
void kit_pool_claim_failed(kit_sandbox_t *ks, const err_t *err);
void kit_pool_made(kit_sandbox_t *ks);
void kit_pool_failed(kit_sandbox_t *ks, const err_t *err);
/* A warm one of the shape asked for, on its way to be ready under its new id, the hub among its waiters; NULL: none. */
kit_sandbox_t *kit_pool_claim(kit_peer_t *kp, const envelope_t *env, const struct sandbox_create_request *request);
int kit_pools_status(provider_t *p, struct provider_status *status, buf_t *storage, err_t **e);
void kit_verb_pool_set(kit_peer_t *kp, const envelope_t *env, const void *msg);
void kit_verb_pool_list(kit_peer_t *kp, const envelope_t *env, const void *msg);

/* ---- outbox.c ---- */
void kit_send(kit_peer_t *kp, const envelope_t *env, const void *body, size_t len, kit_sandbox_t *source);
void kit_send_error(kit_peer_t *kp, const envelope_t *request, const err_t *err);
void kit_send_error_code(kit_peer_t *kp, const envelope_t *request, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void kit_outbox_flush(kit_peer_t *kp);
void kit_outbox_free(kit_peer_t *kp);
void kit_outbox_forget(kit_peer_t *kp, kit_sandbox_t *source);
kit_frame_t *kit_frame_new(const envelope_t *env, const void *body, size_t len, kit_sandbox_t *source);

/* ---- relay.c ---- */
void kit_relay_down(kit_peer_t *kp, const envelope_t *env, const uint8_t *body, size_t len);
void kit_relay_up(kit_sandbox_t *ks, const envelope_t *env, const uint8_t *body, size_t len);
void kit_relay_flush(kit_sandbox_t *ks);
void kit_relay_peer_gone(kit_sandbox_t *ks, kit_peer_t *kp);
/* The stream is gone: every call in flight ends with this. */
void kit_relay_fail_all(kit_sandbox_t *ks, const err_t *err);
void kit_relay_cancel_all(kit_sandbox_t *ks);
size_t kit_relay_hub_calls(const kit_sandbox_t *ks);
/* A call of the kit's own; fn is called once unless the stream ends first. */
bool kit_relay_call(kit_sandbox_t *ks, enum verb verb, const void *body, size_t len, kit_internal_fn fn, void *arg);

/* ---- grace.c ---- */
/* Sends TERM to what runs, waits at most grace_ms, then goes on with kit_destroy. */
void kit_grace_start(kit_sandbox_t *ks, uint32_t grace_ms);
void kit_grace_stop(kit_sandbox_t *ks);

#endif
