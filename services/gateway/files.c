/* SPDX-License-Identifier: Apache-2.0
 *
 * Files as byte streams: download with ranges and entity tags, upload with back pressure, watch. The other file routes
 * are plain tool calls.
 */
#include "services/gateway/tools.h"

#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* ---- download ---- */

typedef struct download {
    api_request_t *r;
    call_t *call;
    size_t unconsumed;
    uint64_t left;
    bool has_range;
    bool is_restarted; /* without the range, because If-Range does not hold */
} download_t;

/* "bytes=a-b", "bytes=a-", "bytes=-n". False for anything else: RFC 9110 §14.2 lets a server ignore it, several ranges
 * included. */
static bool parse_range(const char *text, uint64_t *offset, int64_t *length)
{
    char first[24] = "", last[24] = "";
    uint64_t from, to;
    if (strncasecmp(text, "bytes=", 6) != 0 || strchr(text, ',')) {
        return false;
    }
    const char *dash = strchr(text += 6, '-');
    if (!dash || (size_t)(dash - text) >= sizeof first || strlen(dash + 1) >= sizeof last) {
        return false;
    }
    memcpy(first, text, (size_t)(dash - text));
    memcpy(last, dash + 1, strlen(dash + 1));
    *offset = 0;
    *length = 0;
    if (!first[0]) {
        if (!text_to_u64(last, &to) || to == 0 || to > INT64_MAX) {
            return false;
        }
        *length = -(int64_t)to;
        return true;
    }
    if (!text_to_u64(first, &from) || (last[0] && (!text_to_u64(last, &to) || to < from || to - from >= INT64_MAX))) {
        return false;
    }
    *offset = from;
    *length = last[0] ? (int64_t)(to - from + 1) : 0;
    return true;
}

static void make_etag(const struct file_get_head *head, char *out, size_t size)
{
    snprintf(out, size, "\"%llx-%llx-%llx\"", (unsigned long long)head->inode, (unsigned long long)head->modified_at_ms,
             (unsigned long long)head->size);
}

/* If-None-Match: a list of tags or "*"; weak comparison. */
static bool tag_matches(const char *list, const char *etag)
{
    size_t len = strlen(etag);
    for (const char *at = list; *at;) {
        at += strspn(at, " \t,");
        if (*at == '*') {
            return true;
        }
        if (at[0] == 'W' && at[1] == '/') {
            at += 2;
        }
        size_t token = strcspn(at, ",");
        while (token > 0 && (at[token - 1] == ' ' || at[token - 1] == '\t')) {
            token--;
        }
        if (token == len && memcmp(at, etag, len) == 0) {
            return true;
        }
        at += strcspn(at, ",");
    }
    return false;
}

static void add_validators(api_request_t *r, const struct file_get_head *head, const char *etag)
{
    char date[64];
    time_t seconds = (time_t)(head->modified_at_ms / 1000);
    struct tm tm;
    http_add_header(r->http, "ETag", etag);
    http_add_header(r->http, "Accept-Ranges", "bytes");
    http_add_header(r->http, "Cache-Control", "private, no-cache");
    r->is_public_cache = true;
    if (gmtime_r(&seconds, &tm) && strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm) > 0) {
        http_add_header(r->http, "Last-Modified", date);
    }
}

static void download_stop(download_t *d)
{
    if (d->call) {
        call_cancel(d->call);
        d->call = NULL;
    }
}

static bool download_call(download_t *d);

static void refuse_range(download_t *d, uint64_t size)
{
    char range[40];
    snprintf(range, sizeof range, "bytes */%llu", (unsigned long long)size);
    http_add_header(d->r->http, "Content-Range", range);
    api_fail(d->r, ERR_RANGE_NOT_SATISFIABLE, "the byte range lies outside the file of %llu bytes",
             (unsigned long long)size);
    download_stop(d);
}

/* The file changed since the client got its part: the whole file, from a new call. */
static void restart_whole(download_t *d)
{
    download_stop(d);
    d->is_restarted = true;
    d->has_range = false;
    download_call(d);
}

static void download_on_head(void *arg, const uint8_t *body, size_t len)
{
    download_t *d = arg;
    api_request_t *r = d->r;
    auto_err err_t *e = NULL;
    struct file_get_head head;
    char etag[64];
    if (http_has_started(r->http)) {
        return;
    }
    if (proto_decode(MSG_file_get_head, &head, body, len, &e)) {
        err_wrap_code(&e, ERR_PROTOCOL, "the sandbox's answer is malformed");
        api_reply_error(r, e);
        download_stop(d);
        return;
    }
    make_etag(&head, etag, sizeof etag);
    const char *if_range = http_header(r->http, "if-range");
    if (d->has_range && if_range && strcmp(if_range, etag) != 0) {
        restart_whole(d);
        return;
    }
    if (head.offset > head.size || head.length > head.size - head.offset || head.length > INT64_MAX) {
        api_fail(r, ERR_PROTOCOL, "the sandbox promises bytes outside of the file");
        download_stop(d);
        return;
    }
    const char *none_match = http_header(r->http, "if-none-match");
    if (none_match && tag_matches(none_match, etag)) {
        add_validators(r, &head, etag);
        api_reply_empty(r, 304);
        download_stop(d);
        return;
    }
    if (d->has_range && head.length == 0) {
        refuse_range(d, head.size);
        return;
    }
    add_validators(r, &head, etag);
    if (d->has_range) {
        char range[72];
        snprintf(range, sizeof range, "bytes %llu-%llu/%llu", (unsigned long long)head.offset,
                 (unsigned long long)(head.offset + head.length - 1), (unsigned long long)head.size);
        http_add_header(r->http, "Content-Range", range);
    }
    d->left = head.length;
    api_stream_start(r, d->has_range ? 206 : 200, "application/octet-stream", (int64_t)head.length);
    if (strcmp(http_method(r->http), "HEAD") == 0) {
        download_stop(d);
        api_stream_end(r);
    }
}

static void download_on_chunk(void *arg, enum envelope_channel channel, uint64_t offset, const uint8_t *bytes,
                              size_t len, bool is_end)
{
    (void)channel;
    (void)offset;
    (void)is_end;
    download_t *d = arg;
    if (!http_has_started(d->r->http) || len > d->left) {
        download_stop(d);
        api_fail(d->r, ERR_PROTOCOL, "the sandbox sent bytes it did not announce");
        api_stream_abort(d->r);
        return;
    }
    d->left -= len;
    if (api_stream_bytes(d->r, bytes, len) && d->unconsumed == 0) {
        call_consumed(d->call, len);
    } else {
        d->unconsumed += len;
    }
}

static void download_on_reply(void *arg, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    download_t *d = arg;
    d->call = NULL;
    if (!http_has_started(d->r->http)) {
        api_fail(d->r, ERR_PROTOCOL, "the sandbox ended the download without beginning it");
    } else if (d->left > 0) {
        api_stream_abort(d->r); /* the file shrank meanwhile: the client must not take this for the whole */
    } else {
        api_stream_end(d->r);
    }
}

static void download_on_error(void *arg, const err_t *err)
{
    download_t *d = arg;
    d->call = NULL;
    if (http_has_started(d->r->http)) {
        api_stream_abort(d->r);
    } else {
        api_reply_error(d->r, err);
    }
}

static void download_on_writable(api_request_t *r)
{
    download_t *d = r->state;
    size_t len = d->unconsumed;
    d->unconsumed = 0;
    if (d->call && len > 0) {
        call_consumed(d->call, len);
    }
}

static void download_on_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    download_stop(r->state);
    free(r->state);
}

/* Puts the Range header into the request and starts the call. False after the error was replied. */
static bool download_call(download_t *d)
{
    static const call_events_t events = {.on_reply = download_on_reply,
                                         .on_error = download_on_error,
                                         .on_head = download_on_head,
                                         .on_chunk = download_on_chunk};
    api_request_t *r = d->r;
    auto_err err_t *e = NULL;
    struct file_get_request request;
    auto_buf buf_t encoded = r->encoded; /* the request points into it */
    buf_init(&r->encoded, encoded.max);
    if (proto_decode(MSG_file_get_request, &request, encoded.data, encoded.len, &e)) {
        api_reply_error(r, e);
        return false;
    }
    const char *range = http_header(r->http, "range");
    if (d->is_restarted) {
        request.offset = 0;
        request.length = 0;
    } else if (range) {
        d->has_range = parse_range(range, &request.offset, &request.length);
    }
    memset(&request.has, 0, sizeof request.has);
    if (proto_encode(MSG_file_get_request, &request, &r->encoded, &e)) {
        api_reply_error(r, e);
        return false;
    }
    d->call = tool_start(r, 0, 0, &events, d);
    return d->call != NULL;
}

void file_get(api_request_t *r)
{
    download_t *d = mem_alloc(sizeof *d);
    d->r = r;
    r->state = d;
    r->on_writable = download_on_writable;
    r->on_close = download_on_close;
    download_call(d);
}

/* ---- upload ---- */

typedef struct upload {
    api_request_t *r;
    call_t *call;
    buf_t stash; /* came from the client, not yet taken by the call */
    bool is_body_done;
    bool is_end_sent;
} upload_t;

/* Hands on what the call takes. The last byte is kept back until it is known to be the last, so that END travels with
 * it. */
static void upload_pump(upload_t *u)
{
    size_t ready = u->is_body_done ? u->stash.len : u->stash.len - (u->stash.len > 0);
    if (!u->call || u->is_end_sent) {
        return;
    }
    if (ready > 0 || u->is_body_done) {
        size_t taken = call_send_chunk(u->call, CHANNEL_DATA, u->stash.data, ready, u->is_body_done);
        u->is_end_sent = u->is_body_done && taken == ready;
        buf_consume(&u->stash, taken);
    }
    http_pause_body(u->r->http, u->stash.len > 1 && !u->is_body_done);
}

static void upload_on_body(api_request_t *r, const uint8_t *bytes, size_t len)
{
    upload_t *u = r->state;
    buf_append(&u->stash, bytes, len);
    if (buf_failed(&u->stash)) {
        api_fail(r, ERR_OVERLOADED, "the upload outran the sandbox");
        return;
    }
    int64_t length = http_content_length(r->http);
    u->is_body_done = length >= 0 && r->body_seen == (uint64_t)length;
    upload_pump(u);
}

static void upload_on_body_end(api_request_t *r)
{
    upload_t *u = r->state;
    u->is_body_done = true;
    upload_pump(u);
}

static void upload_on_window(void *arg)
{
    upload_pump(arg);
}

static void upload_on_reply(void *arg, const uint8_t *body, size_t len)
{
    upload_t *u = arg;
    u->call = NULL;
    if (!u->is_end_sent) {
        api_fail(u->r, ERR_PROTOCOL, "the sandbox ended the upload before all bytes were sent");
        return;
    }
    api_reply_message(u->r, u->r->route->status, u->r->route->reply, body, len, 0);
}

static void upload_on_error(void *arg, const err_t *err)
{
    upload_t *u = arg;
    u->call = NULL;
    api_reply_error(u->r, err);
}

static void upload_on_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    upload_t *u = r->state;
    if (u->call) {
        call_cancel(u->call);
    }
    buf_free(&u->stash);
    free(u);
}

void file_put(api_request_t *r)
{
    static const call_events_t events = {
        .on_reply = upload_on_reply, .on_error = upload_on_error, .on_window = upload_on_window};
    auto_err err_t *e = NULL;
    json_t *query = api_query_object(r, &e);
    int64_t length = http_content_length(r->http);
    if (query) {
        json_object_set_new(query, "size", json_integer(http_has_body(r->http) ? length : 0));
    }
    int result = query ? api_encode_request(r, query, &e) : -1;
    json_decref(query);
    if (result) {
        api_reply_error(r, e);
        return;
    }
    upload_t *u = mem_alloc(sizeof *u);
    u->r = r;
    buf_init(&u->stash, 0);
    u->call = tool_start(r, 0, 0, &events, u);
    if (!u->call) {
        free(u);
        return;
    }
    r->state = u;
    r->on_body = upload_on_body;
    r->on_body_end = upload_on_body_end;
    r->on_close = upload_on_close;
}

/* ---- watch ---- */

typedef struct watch {
    api_request_t *r;
    call_t *call;
    buf_t json;
} watch_t;

/* HEAD says that the watch stands; an error before it still gets its status. */
static void watch_on_head(void *arg, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    api_sse_start(((watch_t *)arg)->r);
}

static void watch_on_event(void *arg, const uint8_t *body, size_t len)
{
    watch_t *w = arg;
    auto_err err_t *e = NULL;
    json_writer_t writer;
    buf_reset(&w->json);
    json_writer_init(&writer, &w->json);
    if (proto_to_json(MSG_file_event, body, len, 0, &writer, &e) == 0) {
        api_sse_start(w->r);
        api_sse_event(w->r, "change", NULL, (const char *)w->json.data, w->json.len);
    }
}

static void watch_on_error(void *arg, const err_t *err)
{
    watch_t *w = arg;
    w->call = NULL;
    if (!w->r->is_sse) {
        api_reply_error(w->r, err);
        return;
    }
    buf_reset(&w->json);
    api_error_json(err, &w->json);
    api_sse_event(w->r, "error", NULL, buf_cstr(&w->json), w->json.len);
    api_sse_end(w->r);
}

static void watch_on_reply(void *arg, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    watch_t *w = arg;
    w->call = NULL;
    api_sse_start(w->r);
    api_sse_end(w->r);
}

static void watch_on_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    watch_t *w = r->state;
    if (w->call) {
        call_cancel(w->call);
    }
    buf_free(&w->json);
    free(w);
}

void file_watch(api_request_t *r)
{
    static const call_events_t events = {
        .on_reply = watch_on_reply, .on_error = watch_on_error, .on_head = watch_on_head, .on_event = watch_on_event};
    watch_t *w = mem_alloc(sizeof *w);
    w->r = r;
    buf_init(&w->json, 0);
    r->state = w;
    r->on_close = watch_on_close;
    w->call = tool_start(r, 0, 0, &events, w);
}
