/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the provider kit: what its files share. Nobody else includes this.
 *
 * provider.c   start, links to the hubs, status, dispatch of frames
 * verbs.c      the daemon's own verbs (create, destroy, list, status, images)
 * lifecycle.c  a sandbox from creating to gone, adoption after a restart
 * registry.c   sandbox.json
 * relay.c      calls between hubs and one sandbox's stream
 * outbox.c     frames that wait for a slow hub
 * grace.c      ends what runs in a sandbox before it is destroyed
 */
#ifndef EW_COMMON_PROVIDER_KIT_H
#define EW_COMMON_PROVIDER_KIT_H

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
#define KIT_ADOPT_TIMEOUT_MS 60000 /* an agent starved by its own sandbox's processes takes long to answer */
#define KIT_NOTICE_BURST 64        /* notices of one sandbox that are passed on at once; more are dropped */
#define KIT_NOTICE_MS 100          /* for each of them another one may come after this */

typedef struct kit_sandbox kit_sandbox_t;

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

/* A hub that waits for create or destroy to end. */
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
    bool is_making;          /* ops->create runs */
    bool is_destroy_running; /* ops->destroy runs */
    bool is_destroy_wanted;  /* as soon as ops->create has ended */
    struct kit_waiter_list create_waiters;
    struct kit_waiter_list destroy_waiters;
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

struct provider {
    daemon_t *daemon;
    const provider_ops_t *ops;
    void *data;
    char *sandboxes_dir;
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
/* A NOTICE with sandbox_event to every gateway. */
void kit_event(kit_sandbox_t *ks, const char *type, const char *reason);

/* ---- registry.c ---- */
kit_sandbox_t *kit_sandbox_new(provider_t *p, const uuid16_t *id);
void kit_sandbox_free(kit_sandbox_t *ks); /* takes it out of the lists; the directory stays */
kit_sandbox_t *kit_sandbox_find(provider_t *p, const uuid16_t *id);
int kit_registry_save(kit_sandbox_t *ks, err_t **e);
/* Reads every sandbox.json; what cannot be read becomes a sandbox in state destroying. */
int kit_registry_load(provider_t *p, err_t **e);
const char *kit_state_name(enum sandbox_state state);

/* ---- lifecycle.c ---- */
void kit_create(kit_sandbox_t *ks);
void kit_destroy(kit_sandbox_t *ks);
void kit_adopt(kit_sandbox_t *ks);
void kit_mark_dead(kit_sandbox_t *ks, const char *reason);
void kit_waiters_error(provider_t *p, struct kit_waiter_list *list, const err_t *err);
void kit_waiter_add(struct kit_waiter_list *list, const kit_peer_t *kp, const envelope_t *env);

/* ---- verbs.c ---- */
void kit_verb_frame(kit_peer_t *kp, const envelope_t *env, const uint8_t *body, size_t len);
void kit_verb_credit(kit_peer_t *kp, const envelope_t *env);
void kit_verb_cancel(kit_peer_t *kp, const envelope_t *env);
void kit_requests_free(kit_peer_t *kp);
void kit_reply(kit_peer_t *kp, const envelope_t *request, unsigned msg_id, const void *msg);
void kit_reply_created(kit_sandbox_t *ks);

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
