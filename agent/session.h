/* SPDX-License-Identifier: Apache-2.0
 *
 * What the daemon says about the stream and the sandbox, not about a call: RESYNC (answered by MARKER and ADOPT),
 * QUIESCE, PRESSURE.
 */
#ifndef EW_AGENT_SESSION_H
#define EW_AGENT_SESSION_H

#include "agent/call.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* is_init: the agent is PID 1 and owns the machine: only then clock, host name and machine id are touched. */
void session_init(bool is_init);
#define SESSION_NOTICES_MAX ((size_t)16 * 1024)

/* True: the frame was about the session. */
bool session_on_frame(const envelope_t *env, const uint8_t *body, size_t len);
bool session_is_resync(const uint8_t *body, size_t len);
uint64_t session_started_ms(void); /* CLOCK_MONOTONIC */
/* The memory is another sandbox's from now on: calls (but one, or NULL) are forgotten, the boot epoch is a new one. */
void session_renew(uuid16_t sandbox, const agent_call_t *but);
/* NOTICE to the daemon. process_id 0 = none. Kept while quiesced, up to SESSION_NOTICES_MAX bytes. */
void session_notice(const char *type, uint32_t process_id, const char *detail);

#endif
