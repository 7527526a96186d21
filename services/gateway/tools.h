/* SPDX-License-Identifier: Apache-2.0
 *
 * One verb of the agent called for one REST request: shared by the handlers of tools, processes and files.
 */
#ifndef EW_GATEWAY_TOOLS_H
#define EW_GATEWAY_TOOLS_H

#include "services/gateway/gateway.h"

#define TOOL_DEADLINE_MS 130000        /* verbs without a time of their own */
#define TOOL_TIMEOUT_DEFAULT_MS 120000 /* bash and process_wait when timeout_ms is absent */
#define TOOL_GRACE_MS 10000            /* TERM, 5 s, KILL, and the way back */

/* Starts route->verb with r->encoded at the workspace's daemon. deadline_ms 0 = none. call_id 0 = fresh, else kept.
 * NULL after the error was replied. */
call_t *tool_start(api_request_t *r, uint32_t deadline_ms, uint64_t call_id, const call_events_t *events, void *arg);
/* timeout_ms as the request says it, with its default, plus grace. */
uint32_t tool_deadline(const api_request_t *r, const char *field, int64_t standard);
/* What was asked, for the audit line: names and short values, no contents. */
void tool_note_request(api_request_t *r);

/* output_stream.c: bash and process_output as server-sent events. r->encoded is the request with `stream` set. */
void output_stream_start(api_request_t *r, uint32_t deadline_ms, uint64_t stdout_offset, uint64_t stderr_offset,
                         bool is_base64);

#endif
