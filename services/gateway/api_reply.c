/* SPDX-License-Identifier: Apache-2.0
 *
 * Replies of the REST API: messages as JSON, errors in their one shape, streams, server-sent events.
 */
#include "services/gateway/api_internal.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"
#include "services/gateway/audit.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define RETRY_AFTER_LIMIT "5" /* seconds: a slot must get free */
#define RETRY_AFTER_SHORT "1" /* seconds: a daemon reconnects, a queue drains */

void api_reply_headers(api_request_t *r)
{
    http_add_header(r->http, "X-Request-Id", r->request_id);
    http_add_header(r->http, "X-Content-Type-Options", "nosniff");
    if (!r->is_public_cache) {
        http_add_header(r->http, "Cache-Control", "no-store");
    }
}

static bool begin_reply(api_request_t *r, int status)
{
    if (r->is_replied) {
        return false;
    }
    r->is_replied = true;
    r->status = status;
    api_reply_headers(r);
    return true;
}

void api_error_json(const err_t *err, buf_t *out)
{
    json_writer_t w;
    json_writer_init(&w, out);
    json_write_open_object(&w);
    json_write_key(&w, "error");
    json_write_open_object(&w);
    json_write_key(&w, "code");
    json_write_str(&w, err_code_name(err_code(err)));
    json_write_key(&w, "message");
    json_write_str(&w, err_message(err));
    const char *details = err_details(err);
    if (details) {
        json_write_key(&w, "details");
        json_write_raw(&w, details, strlen(details));
    }
    json_write_close_object(&w);
    json_write_close_object(&w);
}

static void note_error(api_request_t *r, const err_t *err)
{
    snprintf(r->error_code, sizeof r->error_code, "%s", err_code_name(err_code(err)));
    snprintf(r->error_text, sizeof r->error_text, "%s", err_message(err));
    bool is_audited = audit_operation(r->route); /* the audit line tells it */
    if (err_code_http(err_code(err)) >= 500 && !is_audited) {
        log_ctx_t ctx = {.request = r->request_id};
        /* Probes ask every second; what they hear of is logged where it changes. */
        bool is_probe = r->route && r->route->scope == SCOPE_NONE;
        log_write(is_probe ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, &ctx, "%s: %s", err_code_name(err_code(err)),
                  err_message(err));
    }
}

void api_reply_error(api_request_t *r, const err_t *err)
{
    enum err_code code = err_code(err);
    int status = err_code_http(code);
    if (!begin_reply(r, status)) {
        return;
    }
    note_error(r, err);
    if (status == 401) {
        http_add_header(r->http, "WWW-Authenticate", "Bearer");
    } else if (status == 429) {
        http_add_header(r->http, "Retry-After", RETRY_AFTER_LIMIT);
    } else if (status == 503) {
        http_add_header(r->http, "Retry-After", RETRY_AFTER_SHORT);
    }
    buf_reset(&r->scratch);
    api_error_json(err, &r->scratch);
    http_reply(r->http, status, "application/json", r->scratch.data, r->scratch.len);
}

void api_fail(api_request_t *r, enum err_code code, const char *fmt, ...)
{
    char message[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    auto_err err_t *e = NULL;
    err_set(&e, code, "%s", message);
    api_reply_error(r, e);
}

void api_reply_message(api_request_t *r, int status, unsigned msg_id, const void *encoded, size_t len,
                       unsigned json_flags)
{
    auto_err err_t *e = NULL;
    json_writer_t w;
    buf_reset(&r->scratch);
    json_writer_init(&w, &r->scratch);
    if (proto_to_json(msg_id, encoded, len, json_flags, &w, &e)) {
        err_wrap_code(&e, ERR_PROTOCOL, "the sandbox's answer is malformed");
        api_reply_error(r, e);
        return;
    }
    if (buf_failed(&r->scratch)) {
        api_fail(r, ERR_PAYLOAD_TOO_LARGE, "the answer is too large; ask for less");
        return;
    }
    if (begin_reply(r, status)) {
        http_reply(r->http, status, "application/json", r->scratch.data, r->scratch.len);
    }
}

void api_reply_json(api_request_t *r, int status, buf_t *json)
{
    if (buf_failed(json)) {
        api_fail(r, ERR_INTERNAL, "the answer is too large");
    } else if (begin_reply(r, status)) {
        http_reply(r->http, status, "application/json", json->data, json->len);
    }
    buf_free(json);
}

void api_reply_empty(api_request_t *r, int status)
{
    if (begin_reply(r, status)) {
        http_reply(r->http, status, NULL, NULL, 0);
    }
}

/* ---- streams ---- */

void api_stream_start(api_request_t *r, int status, const char *content_type, int64_t content_length)
{
    if (!r->is_replied && !http_has_started(r->http)) {
        r->status = status;
        api_reply_headers(r);
        http_reply_start(r->http, status, content_type, content_length);
    }
}

bool api_stream_bytes(api_request_t *r, const void *bytes, size_t len)
{
    return http_reply_force(r->http, bytes, len);
}

void api_stream_end(api_request_t *r)
{
    r->is_replied = true;
    http_reply_end(r->http);
}

void api_stream_abort(api_request_t *r)
{
    http_abort(r->http);
}

/* ---- server-sent events ---- */

bool api_wants_sse(const api_request_t *r)
{
    const char *accept = http_header(r->http, "accept");
    return accept && strcasestr(accept, "text/event-stream");
}

void api_sse_start(api_request_t *r)
{
    api_t *api = r->gw->api;
    if (r->is_replied || r->is_sse) {
        return;
    }
    http_add_header(r->http, "X-Accel-Buffering", "no"); /* nginx must not collect events */
    api_stream_start(r, 200, "text/event-stream", -1);
    if (strcmp(http_method(r->http), "HEAD") == 0) { /* nobody would ever end it */
        api_stream_end(r);
        return;
    }
    r->is_sse = true;
    http_release_head(r->http); /* of thousands of quiet streams, most would be heads that nobody reads */
    r->next = api->streams;
    r->link = &api->streams;
    if (r->next) {
        r->next->link = &r->next;
    }
    api->streams = r;
    api->stream_count++;
}

bool api_sse_event(api_request_t *r, const char *event, const char *id, const char *data, size_t len)
{
    buf_t *out = &r->gw->api->event; /* not the request's own: a quiet stream would keep it */
    buf_reset(out);
    if (id) {
        buf_append_str(out, "id: ");
        buf_append_str(out, id);
        buf_append_byte(out, '\n');
    }
    buf_append_str(out, "event: ");
    buf_append_str(out, event);
    buf_append_byte(out, '\n');
    for (size_t at = 0;;) { /* a line end inside would end the event */
        const char *lf = memchr(data + at, '\n', len - at);
        size_t end = lf ? (size_t)(lf - data) : len;
        buf_append_str(out, "data: ");
        buf_append(out, data + at, end - at);
        buf_append_byte(out, '\n');
        if (!lf) {
            break;
        }
        at = end + 1;
    }
    buf_append_byte(out, '\n');
    bool is_fast = http_reply_force(r->http, out->data, out->len);
    if (out->cap > API_BUFFER_KEEP) {
        buf_free(out);
        buf_init(out, 0);
    }
    return is_fast;
}

void api_sse_end(api_request_t *r)
{
    api_stream_end(r);
}

const char *api_status_name(int status)
{
    static const char *const names[] = {[WORKSPACE_CREATING] = "creating",
                                        [WORKSPACE_READY] = "ready",
                                        [WORKSPACE_STOPPING] = "stopping",
                                        [WORKSPACE_STOPPED] = "stopped",
                                        [WORKSPACE_ERROR] = "error"};
    return status >= 0 && (size_t)status < COUNT_OF(names) ? names[status] : "unknown";
}
