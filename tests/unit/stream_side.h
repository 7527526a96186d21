/* SPDX-License-Identifier: Apache-2.0
 *
 * Tests of common/stream.h: a daemon with its stream in an event base; the test plays the agent on the other ends, with
 * blocking descriptors.
 */
#ifndef EW_TESTS_STREAM_SIDE_H
#define EW_TESTS_STREAM_SIDE_H

#include "common/buf.h"
#include "common/stream.h"

#define SANDBOX ((uuid16_t){{1, 2, 3, 4}})

typedef struct side {
    struct event_base *base;
    stream_t *stream;
    int to_agent, from_agent; /* the agent's ends */
    bool is_ready, is_broken;
    char reason[256];
    char kill_tree[32];
    unsigned frames, writables;
    envelope_t env; /* of the last frame */
    buf_t body;     /* of all frames */
    uint8_t nonce[16];
    uint64_t epoch;
    unsigned readies;
    uuid16_t sandbox;  /* as RESYNC's envelope said */
    bool is_continued; /* as RESYNC said */
    bool pause_after_frame, destroy_in_frame, resync_when_quiesced;
} side_t;

extern const stream_identity_t side_identity; /* epoch 42 */

stream_t *side_open_on(side_t *side, int fd_in, int fd_out, uint32_t timeout_ms);
void side_set_up(side_t *side);
void side_tear_down(side_t *side);
void side_turn(side_t *side, unsigned turns);
size_t side_receive(side_t *side, envelope_t *env, uint8_t *body);
void side_write(side_t *side, const void *bytes, size_t len);
size_t side_encode(uint8_t *out, envelope_t env, const void *body, size_t len);
void side_send(side_t *side, envelope_t env, const void *body, size_t len);
void side_take_resync(side_t *side);
void side_encode_adopt(buf_t *body);
void side_adopt(side_t *side);
void side_mark(side_t *side);
void side_make_ready(side_t *side);

#endif
