/* SPDX-License-Identifier: Apache-2.0
 *
 * What a tool of the agent sees of a call. A tool is one `agent_tool_t` in agent/tools.c's table; it knows nothing
 * about frames, windows of the request, deadlines or replays: the call layer (agent/call.c) does that.
 *
 * Life: start → any of call_head, call_event, call_chunk → exactly one of call_reply or call_fail, after which the
 * layer calls destroy and the call must not be touched. The request struct and everything in it stays valid until then.
 * The agent is one thread: nothing may block. Work longer than about 2 ms is done in step(), a slice at a time.
 */
#ifndef EW_AGENT_CALL_H
#define EW_AGENT_CALL_H

#include "common/buf.h"
#include "common/err.h"
#include "proto/envelope.h"
#include "proto/verbs.h"

#include <stdbool.h>

#define AGENT_SLICE_US 2000 /* a step's share of the loop */

typedef struct agent_call agent_call_t;

typedef struct agent_tool {
    uint16_t verb;
    bool has_no_end; /* may wait for ever, though its verb is not a VERB_LONG: ends a while after its reader is gone */
    void (*start)(agent_call_t *call, const void *request);
    /* Does at most about AGENT_SLICE_US of work; called every loop turn while call_want_steps(call, true). */
    void (*step)(agent_call_t *call);
    /* Verbs with IN: bytes of the caller. Grant more with call_consumed. */
    void (*on_chunk)(agent_call_t *call, enum envelope_channel channel, const uint8_t *bytes, size_t len, bool is_end);
    /* call_chunk takes bytes again. */
    void (*on_window)(agent_call_t *call);
    /* The caller cancelled, or the deadline of the envelope passed. NULL: call_fail(cancelled / deadline_exceeded). A
     * tool that has one must end the call soon. */
    void (*on_cancel)(agent_call_t *call, bool is_deadline);
    /* The stream was opened anew, and nobody has asked for the call's id since (CALLS_HOLD_MS): it must not wait for a
     * reader any more. May end the call. */
    void (*on_abandon)(agent_call_t *call);
    /* Frees call_state. Always called once, last. */
    void (*destroy)(agent_call_t *call);
} agent_tool_t;

void *call_state(agent_call_t *call);
void call_set_state(agent_call_t *call, void *state);
uint64_t call_number(const agent_call_t *call); /* the call id */
uuid16_t call_sandbox(const agent_call_t *call);
bool call_is_abandoned(const agent_call_t *call); /* see on_abandon; asking for its id again ends it */

/* Ends the call with a reply struct of the verb's reply message (encoded and kept at once). */
void call_reply(agent_call_t *call, const void *reply);
/* Ends the call with an error. Takes *e, sets it NULL. */
void call_fail(agent_call_t *call, err_t **e);

/* What is known before the bytes, or one event of a running call: struct of message msg_id. False: too many unsent
 * events. */
bool call_head(agent_call_t *call, unsigned msg_id, const void *msg);
bool call_event(agent_call_t *call, unsigned msg_id, const void *msg);
/* Sends raw bytes; takes as many as the window and the queue allow and returns that number. is_end counts only when all
 * were taken (a NULL, 0, true call closes a channel). on_window follows a short count. */
size_t call_chunk(agent_call_t *call, enum envelope_channel channel, const void *bytes, size_t len, bool is_end);
/* Position of the next byte of a channel, before the first call_chunk; 0 unless told. */
void call_set_offset(agent_call_t *call, enum envelope_channel channel, uint64_t offset);
/* Grants the caller more IN bytes. */
void call_consumed(agent_call_t *call, size_t len);
/* Ask for step() every loop turn, or stop. */
void call_want_steps(agent_call_t *call, bool wants);

/* Watches a descriptor in the agent's poll loop for this call: POLLIN/POLLOUT bits in `events`, 0 = stop watching. One
 * handler a descriptor. */
typedef void (*call_fd_fn)(agent_call_t *call, int fd, short revents);
void call_watch_fd(agent_call_t *call, int fd, short events, call_fd_fn fn);

/* Paths: relative ones are taken from /workspace (AGENT_WORKSPACE in the environment, for tests outside a sandbox).
 * Writes the absolute path to out; bad_request when it does not fit. */
int agent_path(const char *path, char *out, size_t size, err_t **e);
const char *agent_workspace(void);

#endif
