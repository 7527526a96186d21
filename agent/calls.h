/* SPDX-License-Identifier: Apache-2.0
 *
 * The call layer as the stream sees it (tools see agent/call.h): assembles requests, keeps windows and deadlines both
 * ways, keeps finished replies and never runs a call id twice.
 *
 * Retention: a reply stays until ACK (KEEP: after ACK as well, while there is room), within CALLS_KEPT_BYTES and
 * CALLS_KEPT_MAX. The oldest without KEEP or with ACK go first; what goes without an ACK leaves a mark, `lost`, and is
 * still not run again.
 */
#ifndef EW_AGENT_CALLS_H
#define EW_AGENT_CALLS_H

#include "common/buf.h"
#include "proto/envelope.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CALLS_RUNNING_MAX 1024
#define CALLS_KEPT_MAX 1024
#define CALLS_KEPT_BYTES ((size_t)1024 * 1024)
#define CALLS_LOST_MAX 1024
#define CALLS_ASSEMBLING_MAX ((size_t)80 * 1024 * 1024) /* all requests that are coming in, together */
#define CALLS_UNSENT_MAX ((size_t)80 * 1024 * 1024)     /* all replies that their callers are slow to take, together */
#define CALLS_HOLD_MS 10000   /* a command whose reader is gone waits this long for another one, then for nobody */
#define CALLS_ORPHAN_MS 60000 /* a call without a deadline ends when nobody asked for it this long after RESYNC */

struct agent_call;

/* REQUEST, CHUNK, CREDIT, CANCEL, ACK; others are ignored. */
void calls_on_frame(const envelope_t *env, const uint8_t *body, size_t len);
void calls_on_link_room(void);
/* After RESYNC. is_same: nothing was lost since QUIESCED, so calls go on talking to whom they talked. Else running
 * calls are detached until their id is asked for again, and half uploads end. */
void calls_on_resync(bool is_same);
/* The sandbox is another one from now on: all calls but one (or NULL) end without an answer and are forgotten, with
 * the commands that they wait for; background processes stay. Not from within a handler of one of them. */
void calls_forget(const struct agent_call *but);
/* The `calls` of ADOPT: appends encoded adopted_call, returns how many. Running ones come first; at most max_bytes. */
uint32_t calls_list(buf_t *out, size_t max_bytes);
/* Steps of tools; once every loop turn. True: there is more to do. */
bool calls_turn(void);
/* Tears down what calls that ended have held; once every loop turn, after their replies were written: closing a file
 * can take as long as writing it, and nobody has to wait for that. */
void calls_end_finished(void);
/* Ends all running calls (the agent stops). */
void calls_cancel_all(void);

#endif
