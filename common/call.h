/* SPDX-License-Identifier: Apache-2.0
 *
 * The caller's half of a call, used by hubs (gateway, mcphost, gitsync) and by tests: assembles replies, keeps credit
 * windows, deadlines and cancellation, and fails everything in flight when a peer goes down. One call_table_t per hub.
 *
 * Life of a call: call_start → any of on_head, on_event, on_chunk → exactly one of on_reply or on_error, after which
 * the call is freed and must not be touched. call_cancel asks the callee to stop and ends the call now (on_error is not
 * called). Everything given to callbacks is borrowed. Starting, sending and cancelling inside callbacks is fine.
 *
 * Limits: CALL_TABLE_MAX calls; a reply of at most CALL_MESSAGE_MAX; CALL_HELD_MAX bytes kept for all of them, beyond
 * which a call whose reply grows on fails with overloaded; a callee that sends more than its window breaks
 * the protocol: the call fails with protocol_error and is cancelled at the callee.
 */
#ifndef EW_COMMON_CALL_H
#define EW_COMMON_CALL_H

#include "common/buf.h"
#include "common/err.h"
#include "common/fabric.h"
#include "proto/envelope.h"
#include "proto/verbs.h"

#define CALL_TABLE_MAX 65536
#define CALL_HELD_MAX ((size_t)256 << 20) /* of all calls: requests that wait and replies being put together */
#define CALL_HELD_SHARE (256 * 1024)      /* so much of one reply is taken all the same */
#define CALL_DEADLINE_GRACE_MS 10000      /* added to a call's own deadline before the caller gives up on the callee */

typedef struct call_table call_table_t;
typedef struct call call_t;

typedef struct call_events {
    void (*on_reply)(void *arg, const uint8_t *body, size_t len); /* the whole encoded reply */
    void (*on_error)(void *arg, const err_t *err);                /* from the callee or from here */
    void (*on_head)(void *arg, const uint8_t *body, size_t len);
    void (*on_event)(void *arg, const uint8_t *body, size_t len);
    /* Raw bytes. The window is granted again by call_consumed, by the receiver's own pace. */
    void (*on_chunk)(void *arg, enum envelope_channel channel, uint64_t offset, const uint8_t *bytes, size_t len,
                     bool is_end);
    void (*on_window)(void *arg); /* call_send_chunk takes bytes again */
} call_events_t;                  /* all but on_reply and on_error may be NULL; NULL on_chunk consumes and drops */

typedef struct call_options {
    uuid16_t sandbox; /* zero = the daemon itself */
    uuid16_t trace;
    uint64_t call_id;     /* 0 = a fresh random one; else chosen by the caller (Idempotency-Key) */
    uint32_t deadline_ms; /* 0 = none; the caller waits CALL_DEADLINE_GRACE_MS longer than the callee may take */
    bool is_kept;         /* ask the agent to keep the reply for a repetition */
} call_options_t;

call_table_t *call_table_new(struct event_base *base);
void call_table_destroy(call_table_t **t); /* fails nothing: calls are freed silently */

/* Sends the REQUEST with the encoded body (any size up to CALL_MESSAGE_MAX; larger than the window is sent as credit
 * comes). A peer whose queue is full gets it later. NULL + error: overloaded (half of CALL_HELD_MAX waits), or the peer
 * is gone. */
call_t *call_start(call_table_t *t, fabric_peer_t *peer, enum verb verb, const call_options_t *options,
                   const void *body, size_t len, const call_events_t *events, void *arg, err_t **e);
/* Bytes taken now (0..len, limited by the window and the peer); is_end counts only if all were taken. on_window follows
 * a short count. */
size_t call_send_chunk(call_t *c, enum envelope_channel channel, const void *bytes, size_t len, bool is_end);
void call_consumed(call_t *c, size_t len);
void call_cancel(call_t *c);
uint64_t call_id(const call_t *c);

/* Feed from the fabric's events. */
void call_table_on_frame(call_table_t *t, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len);
void call_table_on_writable(call_table_t *t, fabric_peer_t *peer);
void call_table_on_down(call_table_t *t, fabric_peer_t *peer); /* fails its calls with provider_gone */
size_t call_table_count(const call_table_t *t);
/* Calls under way that name this sandbox. Looks at all of them. */
size_t call_table_count_of(const call_table_t *t, const uuid16_t *sandbox);

#endif
