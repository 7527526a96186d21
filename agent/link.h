/* SPDX-License-Identifier: Apache-2.0
 *
 * The agent's end of the sandbox's byte stream: cuts input into frames, queues frames for output. Frames of calls go to
 * the call layer, frames about the stream itself to agent/session.c.
 *
 * What comes in is written by the daemon in whole frames; yet a frame that breaks the rules must neither crash the
 * agent nor deafen it for ever: one with a wrong envelope is skipped, and after an impossible length everything is
 * skipped up to the next RESYNC.
 */
#ifndef EW_AGENT_LINK_H
#define EW_AGENT_LINK_H

#include "proto/envelope.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINK_QUEUE_HIGH ((size_t)128 * 1024) /* bulk senders stop here; control frames may pass it */

/* Takes both descriptors and makes them non-blocking. `on_closed` is called when the input ends. */
void link_init(int fd_in, int fd_out, void (*on_closed)(void));
/* Parses bytes as if they were read (and the fuzz target's way in). */
void link_feed(const uint8_t *bytes, size_t len);

/* Queues one frame; body_len is at most STREAM_BODY_UP_MAX. Dropped while the stream is silent. */
void link_send(const envelope_t *env, const void *body, size_t body_len);
/* Whether a bulk sender may queue a frame now. When it may not, calls_on_link_room() follows. */
bool link_has_room(void);
/* Writes what the transport takes now, once every loop turn. True: there is more that it would take. */
bool link_flush(void);

/* Drops what is queued, but for the rest of a frame that was begun; then only MARKER may follow. */
void link_reset(void);
/* Nothing is sent while silent: before the first RESYNC and after QUIESCED. */
void link_set_silent(bool is_silent);
bool link_is_silent(void);
size_t link_queued_bytes(void);

#endif
