/* SPDX-License-Identifier: Apache-2.0
 *
 * Output of a background process: once, from an offset, or followed as server-sent events. The other process routes are
 * plain tool calls.
 */
#include "services/gateway/tools.h"

#include "common/text.h"

#include <stdio.h>
#include <string.h>

/* "<stdout>:<stderr>" of an earlier stream's last event. */
static bool parse_event_id(const char *id, uint64_t *out, uint64_t *err)
{
    char first[24];
    const char *colon = strchr(id, ':');
    if (!colon || (size_t)(colon - id) >= sizeof first) {
        return false;
    }
    memcpy(first, id, (size_t)(colon - id));
    first[colon - id] = 0;
    return text_to_u64(first, out) && text_to_u64(colon + 1, err);
}

void process_output(api_request_t *r)
{
    if (!api_wants_sse(r)) {
        tool_call(r);
        return;
    }
    auto_err err_t *e = NULL;
    struct process_output_request request;
    auto_buf buf_t encoded = r->encoded; /* the request points into it */
    buf_init(&r->encoded, encoded.max);
    if (proto_decode(MSG_process_output_request, &request, encoded.data, encoded.len, &e)) {
        api_reply_error(r, e);
        return;
    }
    const char *last = http_header(r->http, "last-event-id");
    if (last && !parse_event_id(last, &request.stdout_offset, &request.stderr_offset)) {
        api_fail(r, ERR_BAD_REQUEST, "Last-Event-ID must be \"<stdout offset>:<stderr offset>\"");
        return;
    }
    bool is_base64 = request.output_encoding && strcmp(request.output_encoding, "base64") == 0;
    request.stream = true;
    if (proto_encode(MSG_process_output_request, &request, &r->encoded, &e)) {
        api_reply_error(r, e);
        return;
    }
    output_stream_start(r, 0, request.stdout_offset, request.stderr_offset, is_base64);
}
