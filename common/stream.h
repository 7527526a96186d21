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
 *
 * Before a checkpoint: stream_quiesce. From then on stream_send says FULL (nothing is taken, so nothing can be lost:
 * the caller keeps it and hears on_writable after a stream_resync); all that stream_send had taken is written first,
 * in order, then QUIESCE. What the agent sent up to QUIESCED is handed on as ever, QUIESCED is the last frame of
 * on_frame, and nothing is read or written after it. This does not wait for a hub: while quiescing, a paused stream
 * hands on up to STREAM_QUIESCE_EXTRA bytes more (as much as a well-behaved agent can have under way: its pipe and its
 * queue), and only beyond that waits for stream_pause(s, false). If QUIESCED does not come in time, on_broken.
 * Afterwards either
 *   stream_resync  the same sandbox runs on (snapshot): calls in flight go on where they were, windows and offsets
 *                  hold, on_ready comes again, then on_writable if a send was refused; or
 *   stream_destroy (stop). Whoever opens a stream later, with stream_open, on the same or on new FIFOs, finds the
 *                  agent's calls detached: they run on to their own deadline, their replies are kept and given to who
 *                  repeats the call id.
 * A daemon that dies anywhere in this is no special case: stream_open by the next one ends the silence.
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
#define STREAM_QUIESCE_TIMEOUT_MS 10000
#define STREAM_QUIESCE_EXTRA (4 * 1024 * 1024)

typedef struct stream stream_t;

typedef struct stream_events {
    /* MARKER and ADOPT have come; calls may be sent. `adopt` is borrowed. Again after every stream_resync. */
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
 * full, or not ready. */
bool stream_send(stream_t *s, const envelope_t *env, const void *body, size_t len);
bool stream_is_ready(const stream_t *s); /* false from stream_quiesce to the on_ready of stream_resync */

/* Asks the agent for silence; see above. False: the stream is not ready, nothing was done. timeout_ms 0 =
 * STREAM_QUIESCE_TIMEOUT_MS. */
bool stream_quiesce(stream_t *s, uint32_t timeout_ms);
bool stream_is_quiesced(const stream_t *s); /* QUIESCED has come */
/* Goes on after QUIESCED, with a greater identity->epoch; identity->sandbox may be another one (then the agent forgets
 * its calls). An error: it was not quiesced, or the identity does not fit into RESYNC. timeout_ms as in stream_open. */
int stream_resync(stream_t *s, const stream_identity_t *identity, uint32_t timeout_ms, err_t **e);
/* The sandbox's id is another one from now on (a warm one was claimed); what comes up is stamped with it. The agent
 * learns it from the agent_configure call with is_new. */
void stream_set_sandbox(stream_t *s, const uuid16_t *sandbox);
size_t stream_queued_bytes(const stream_t *s);
/* Stops and restarts reading (a slow hub must slow its sandbox). */
void stream_pause(stream_t *s, bool is_paused);

#endif
