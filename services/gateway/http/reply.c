/* SPDX-License-Identifier: Apache-2.0
 *
 * Replies: a whole one is one writev of head and body; a streamed one has a fixed length or is chunked (HTTP/1.0: until
 * close).
 */
#include "services/gateway/http/internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"

#include <stdio.h>
#include <string.h>

static const struct {
    int status;
    const char *text;
} reasons[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (reasons[i].status == status) {
            return reasons[i].text;
        }
    }
    return "Status";
}

void http_add_header(http_request_t *r, const char *name, const char *value)
{
    if (r->has_started || strpbrk(name, "\r\n:") || strpbrk(value, "\r\n")) {
        log_warn("reply header %s left out: %s", name,
                 r->has_started ? "the reply has started" : "it has a line end in it");
        return;
    }
    size_t before = r->extra.len;
    buf_append_str(&r->extra, name);
    buf_append(&r->extra, ": ", 2);
    buf_append_str(&r->extra, value);
    buf_append(&r->extra, "\r\n", 2);
    if (buf_failed(&r->extra)) {
        r->extra.is_failed = false;
        buf_truncate(&r->extra, before);
    }
}

static bool status_has_body(int status)
{
    return status >= 200 && status != 204 && status != 304;
}

/* Status line and our own headers, without the extra lines and the empty one. content_length -1 = unknown. */
static size_t make_head(http_request_t *r, char *out, size_t size, int status, const char *content_type,
                        int64_t content_length)
{
    int n = snprintf(out, size, "HTTP/1.1 %d %s\r\n", status, reason_of(status));
    if (content_type) {
        n += snprintf(out + n, size - (size_t)n, "Content-Type: %s\r\n", content_type);
    }
    if (status_has_body(status)) {
        if (content_length >= 0) {
            n += snprintf(out + n, size - (size_t)n, "Content-Length: %lld\r\n", (long long)content_length);
        } else if (r->is_reply_chunked) {
            n += snprintf(out + n, size - (size_t)n, "Transfer-Encoding: chunked\r\n");
        }
    }
    if (!r->is_keep_alive) {
        n += snprintf(out + n, size - (size_t)n, "Connection: close\r\n");
    } else if (r->is_http10) {
        n += snprintf(out + n, size - (size_t)n, "Connection: keep-alive\r\n");
    }
    return (size_t)n;
}

static bool may_reply(const http_request_t *r)
{
    return r->connection && !r->has_started && !r->is_aborted;
}

/* A body that will not be read ends the connection after the reply, unless its rest is short. */
static void decide_keep_alive(http_request_t *r)
{
    http_connection_t *c = r->connection;
    if (r->server->is_draining || c->has_eof) {
        r->is_keep_alive = false;
    }
    if (!r->is_body_done) {
        int64_t left = r->is_chunked ? INT64_MAX : r->content_length - (int64_t)r->body_seen;
        if (left > HTTP_SKIP_MAX || r->expects_continue) {
            r->is_keep_alive = false;
            c->needs_linger = true;
        }
        r->is_discarding = true;
    }
}

void http_reply(http_request_t *r, int status, const char *content_type, const void *body, size_t len)
{
    if (!may_reply(r)) {
        return;
    }
    decide_keep_alive(r);
    char head[512];
    size_t head_len = make_head(r, head, sizeof head, status, content_type, (int64_t)len);
    struct evbuffer_iovec parts[4] = {{head, head_len}, {r->extra.data, r->extra.len}, {(void *)(uintptr_t) "\r\n", 2}};
    int count = 3;
    if (len > 0 && !r->is_head && status_has_body(status)) {
        parts[count++] = (struct evbuffer_iovec){(void *)(uintptr_t)body, len};
    }
    r->has_started = r->is_replied = true;
    http_connection_write(r->connection, parts, count);
    http_server_due(r->server, r->connection);
}

void http_reply_start(http_request_t *r, int status, const char *content_type, int64_t content_length)
{
    if (!may_reply(r)) {
        return;
    }
    decide_keep_alive(r);
    if (content_length < 0 && r->is_http10) {
        r->is_keep_alive = false;
    }
    r->is_reply_chunked = content_length < 0 && !r->is_http10;
    r->reply_left = content_length;
    char head[512];
    size_t head_len = make_head(r, head, sizeof head, status, content_type, content_length);
    struct evbuffer_iovec parts[3] = {{head, head_len}, {r->extra.data, r->extra.len}, {(void *)(uintptr_t) "\r\n", 2}};
    r->has_started = true;
    http_connection_write(r->connection, parts, 3);
}

static void write_chunk(http_request_t *r, const void *bytes, size_t len)
{
    char size_line[24];
    struct evbuffer_iovec parts[3];
    int count = 0;
    if (r->is_reply_chunked) {
        int n = snprintf(size_line, sizeof size_line, "%zx\r\n", len);
        parts[count++] = (struct evbuffer_iovec){size_line, (size_t)n};
    }
    parts[count++] = (struct evbuffer_iovec){(void *)(uintptr_t)bytes, len};
    if (r->is_reply_chunked) {
        parts[count++] = (struct evbuffer_iovec){(void *)(uintptr_t) "\r\n", 2};
    }
    http_connection_write(r->connection, parts, count);
}

bool http_reply_force(http_request_t *r, const void *bytes, size_t len)
{
    if (!r->connection || !r->has_started || r->is_replied || r->is_aborted || len == 0 || r->is_head) {
        return true;
    }
    if (r->reply_left >= 0 && !r->is_reply_chunked) {
        if ((uint64_t)len > (uint64_t)r->reply_left) { /* more than was promised would be read as the next reply */
            http_abort(r);
            return true;
        }
        r->reply_left -= (int64_t)len;
    }
    write_chunk(r, bytes, len);
    size_t queued = http_connection_queued(r->connection);
    if (queued > HTTP_FORCED_MAX) {
        http_abort(r);
        return true;
    }
    r->wants_writable |= queued >= HTTP_OUTPUT_MAX; /* only on_writable takes it back */
    return !r->wants_writable;
}

size_t http_reply_chunk(http_request_t *r, const void *bytes, size_t len)
{
    if (!r->connection || r->is_aborted || r->is_replied) {
        return len;
    }
    size_t queued = http_connection_queued(r->connection);
    if (queued > 0 && queued + len > HTTP_OUTPUT_MAX) {
        r->wants_writable = true;
        return 0;
    }
    http_reply_force(r, bytes, len);
    return len;
}

void http_reply_end(http_request_t *r)
{
    if (!r->connection || !r->has_started || r->is_replied || r->is_aborted) {
        return;
    }
    if (!r->is_reply_chunked && r->reply_left > 0 && !r->is_head) {
        http_abort(r); /* shorter than promised: the client must see that */
        return;
    }
    if (r->is_reply_chunked && !r->is_head) {
        struct evbuffer_iovec last = {(void *)(uintptr_t) "0\r\n\r\n", 5};
        http_connection_write(r->connection, &last, 1);
    }
    r->is_replied = true;
    http_server_due(r->server, r->connection);
}

bool http_has_started(const http_request_t *r)
{
    return r->has_started;
}

void http_abort(http_request_t *r)
{
    if (r->connection && !r->is_aborted) {
        r->is_aborted = true;
        http_server_due(r->server, r->connection);
    }
}

void http_reply_continue(http_request_t *r)
{
    struct evbuffer_iovec part = {(void *)(uintptr_t) "HTTP/1.1 100 Continue\r\n\r\n", 25};
    r->expects_continue = false;
    http_connection_write(r->connection, &part, 1);
}

void http_reply_refusal(http_request_t *r, int status, const char *code, const char *message)
{
    uint8_t random[8];
    char id[17], body[512];
    random_bytes(random, sizeof random);
    hex_encode(id, random, sizeof random);
    http_add_header(r, "X-Request-Id", id);
    http_add_header(r, "X-Content-Type-Options", "nosniff");
    http_add_header(r, "Cache-Control", "no-store");
    /* code and message are our own texts or the parser's, without quotes or backslashes */
    int n = snprintf(body, sizeof body, "{\"error\":{\"code\":\"%s\",\"message\":\"%s\"}}", code, message);
    r->is_keep_alive = false;
    r->connection->needs_linger = true;
    http_reply(r, status, "application/json", body, (size_t)n);
}
