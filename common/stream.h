/* SPDX-License-Identifier: Apache-2.0
 *
 * A provider daemon's end of one sandbox's byte stream (architecture §6). Frames down are at most 4096 bytes and
 * written whole by one write(); frames up are at most STREAM_FRAME_UP_MAX. Opening sends RESYNC and discards input up
 * to the MARKER with its nonce, so a daemon that was killed in the middle of anything goes on cleanly. Everything that
 * comes up is hostile: a frame that breaks the rules ends the stream (on_broken), never the daemon.
 *
 * Ownership: stream_open takes both descriptors (they may be equal) and closes them; bodies given to handlers are
 * borrowed. Limits: STREAM_QUEUE_MAX bytes wait for a slow agent, then stream_send says FULL; STREAM_READ_TURN bytes
 * per loop turn.
 */
#ifndef EW_COMMON_STREAM_H
#define EW_COMMON_STREAM_H

#include "common/err.h"
#include "proto/envelope.h"
#include "proto/messages.h"

#include <event2/event.h>

#define STREAM_QUEUE_MAX (4 * 1024 * 1024)
#define STREAM_QUEUE_LOW (512 * 1024)
#define STREAM_READ_TURN (256 * 1024)
#define STREAM_RESYNC_TIMEOUT_MS 10000 /* first MARKER; a cold sandbox needs part of it to start */

typedef struct stream stream_t;

typedef struct stream_events {
    /* MARKER and ADOPT have come; calls may be sent. `adopt` is borrowed. */
    void (*on_ready)(void *arg, const struct adopt *adopt);
    /* REPLY, ERROR, HEAD, EVENT, CHUNK, CREDIT, QUIESCED, NOTICE. */
    void (*on_frame)(void *arg, const envelope_t *env, const uint8_t *body, size_t len);
    void (*on_writable)(void *arg);                   /* the queue fell below STREAM_QUEUE_LOW after a FULL */
    void (*on_broken)(void *arg, const char *reason); /* nothing more will come; destroy it */
} stream_events_t;

/* What RESYNC carries. */
typedef struct stream_identity {
    uuid16_t sandbox;
    uint64_t epoch;
    const char *machine_id; /* 32 hexadecimal digits or NULL */
    const char *hostname;   /* or NULL */
    uint32_t pids_max;
    uint64_t memory_budget_bytes;
} stream_identity_t;

/* Takes fd_in and fd_out. Sends RESYNC at once. resync_timeout_ms 0 = STREAM_RESYNC_TIMEOUT_MS. */
stream_t *stream_open(struct event_base *base, int fd_in, int fd_out, const stream_identity_t *identity,
                      uint32_t resync_timeout_ms, const stream_events_t *events, void *arg, err_t **e);
void stream_destroy(stream_t **s);

/* Queues one fabric frame towards the agent, split as needed (MORE; CHUNK offsets advance). All or nothing. False:
 * full. */
bool stream_send(stream_t *s, const envelope_t *env, const void *body, size_t len);
bool stream_is_ready(const stream_t *s);
size_t stream_queued_bytes(const stream_t *s);
/* Stops and restarts reading (a slow hub must slow its sandbox). */
void stream_pause(stream_t *s, bool is_paused);

#endif
