/* SPDX-License-Identifier: Apache-2.0
 *
 * A hub with a call table, and behind a fabric link a callee whose behaviour the test gives; for the tests of calls.
 */
#ifndef EW_TESTS_CALL_WORLD_H
#define EW_TESTS_CALL_WORLD_H

#include "common/call.h"

#define SANDBOX ((uuid16_t){{7, 7, 7}})
#define UPLOAD_BYTES (10u << 20)

/* What the far end does with a call: a daemon with a fake agent behind it. */
typedef struct callee {
    fabric_t *fabric;
    fabric_peer_t *peer;
    void (*on_frame)(struct callee *callee, const envelope_t *env, const uint8_t *body, size_t len);
    unsigned kinds[ENVELOPE_KIND_COUNT];
    size_t window; /* what the caller has granted and we have not used */
    size_t to_send, sent, received;
    bool is_sum_wrong;
    bool is_in_request;
    bool is_silent; /* grants no credit */
    buf_t request;
    envelope_t env; /* of the first REQUEST */
} callee_t;

/* What the caller saw of one call. */
typedef struct seen {
    struct world *world;
    unsigned replies, errors, heads, events, windows, ends;
    enum err_code code;
    char message[256], details[128];
    size_t bytes, reply_len;
    bool is_sum_wrong, holds_window, cancels_in_chunk, starts_another;
    call_t *call;
    size_t uploaded;
} seen_t;

typedef struct world {
    struct event_base *base;
    char dir[64], endpoint[128];
    fabric_t *hub;
    fabric_peer_t *peer;
    call_table_t *calls;
    callee_t callee;
} world_t;

extern const call_events_t seen_events;

uint8_t pattern(size_t i);
void callee_send(callee_t *callee, envelope_t env, const void *body, size_t len);
void run_ms(world_t *w, unsigned ms);
bool reaches(world_t *w, const unsigned *counter, unsigned value);
void make_world(world_t *w);
void end_world(world_t *w);
void seen_on_reply(void *arg, const uint8_t *body, size_t len);
void seen_on_error(void *arg, const err_t *err);
void upload_more(seen_t *seen);
call_t *start(world_t *w, seen_t *seen, enum verb verb, const void *body, size_t len);
void reply_small(callee_t *callee, const envelope_t *env, const uint8_t *body, size_t len);
void download(callee_t *callee, const envelope_t *env, const uint8_t *body, size_t len);

#endif
