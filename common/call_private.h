/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of common/call.c (table, start, end), common/call_send.c (what goes to the callee) and common/call_receive.c
 * (what it says).
 */
#ifndef EW_COMMON_CALL_PRIVATE_H
#define EW_COMMON_CALL_PRIVATE_H

#include "common/call.h"

#include <sys/queue.h>

#define CALL_BUCKETS 4096
#define CALL_WHEEL_SLOTS 512
#define CALL_WHEEL_TICK_MS 100
#define CALL_CREDIT_BATCH (CALL_WINDOW / 4)
#define CALL_ACK_MIN 16384 /* smaller replies are cheap for the agent to keep until it drops them by age */
#define CALL_SIDE_MESSAGE_MAX (256 * 1024) /* an assembled HEAD, EVENT or ERROR */

/* What must still go to the callee, in this order. */
enum call_pending { PENDING_REQUEST = 1, PENDING_CREDIT = 2, PENDING_END = 4, PENDING_CANCEL = 8, PENDING_ACK = 16 };

struct call {
    LIST_ENTRY(call) bucket;
    LIST_ENTRY(call) in_table;
    LIST_ENTRY(call) in_blocked; /* waits for the peer's queue */
    LIST_ENTRY(call) in_slot;    /* of the timer wheel */
    call_table_t *table;
    fabric_peer_t *peer;
    uint64_t id;
    const verb_row_t *verb;
    uuid16_t sandbox, trace;
    uint32_t deadline_ms;
    uint64_t started_ms;
    uint64_t expires_tick; /* 0 = never */
    bool is_kept;
    bool is_blocked;
    bool is_unsent;    /* not even the REQUEST's first frame went out */
    bool is_ended;     /* its user knows it no more; it lives on only to send what is pending */
    bool wants_window; /* call_send_chunk took less than it was given */
    bool has_head;
    unsigned depth; /* callbacks running */
    unsigned pending;
    /* to the callee */
    buf_t request; /* what of the body is not yet sent */
    size_t request_sent;
    size_t held_request, held_assembly; /* of the table's held_bytes */
    size_t send_credit;
    uint64_t send_offset[CHANNEL_COUNT];
    uint8_t end_pending; /* bit per channel */
    uint8_t end_sent;
    /* from the callee */
    size_t recv_window;
    size_t recv_consumed; /* not granted again yet */
    uint64_t recv_offset[CHANNEL_COUNT];
    uint8_t recv_begun;
    uint8_t recv_ended;
    uint8_t assembling; /* kind, 0 = none */
    buf_t assembly;
    call_events_t events;
    void *arg;
};

LIST_HEAD(call_list, call);

struct call_table {
    struct event_base *base;
    struct event *wheel_timer;
    uint64_t tick; /* last one handled */
    size_t count;
    size_t timed_count;
    size_t held_bytes; /* see CALL_HELD_MAX */
    size_t held_max;
    struct call_list calls;
    struct call_list blocked;
    struct call_list buckets[CALL_BUCKETS];
    struct call_list wheel[CALL_WHEEL_SLOTS];
};

/* call.c */
call_t *call_table_find(call_table_t *t, uint64_t id, const uuid16_t *sandbox);
/* Counts that one of c's two parts now holds so many bytes. */
void call_hold(call_t *c, size_t *part, size_t bytes);
void call_enter(call_t *c);
void call_leave(call_t *c);
/* Takes the call from its user: after this only pending messages keep it. */
void call_end(call_t *c);
/* Ends it with on_error; tells the callee to stop if `cancel`. */
void call_fail_with(call_t *c, const err_t *err, bool cancel);

/* call_send.c */
void call_flush(call_t *c);
/* Sends a REQUEST's first frames. */
enum fabric_result call_send_request(call_t *c, const uint8_t *body, size_t len);
void call_block(call_t *c);
void call_unblock(call_t *c);

#endif
