/* SPDX-License-Identifier: Apache-2.0
 *
 * A command's output as server-sent events: `stdout` and `stderr` {"offset", "data"} (or "data_base64"), then `result`
 * (the reply without output) or `error`. The id of each event is "<stdout offset>:<stderr offset>" of the next byte, so
 * that Last-Event-ID on …/processes/:pid/output loses and repeats nothing. A character split between two chunks is kept
 * until it is whole.
 */
#include "services/gateway/tools.h"

#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"

#include <stdio.h>
#include <string.h>

typedef struct track {
    uint64_t next; /* offset of the first byte not sent on */
    uint8_t carry[4];
    size_t carried;
} track_t;

typedef struct output_stream {
    api_request_t *r;
    call_t *call;
    track_t tracks[2]; /* stdout, stderr */
    size_t unconsumed; /* granted again when the client takes bytes */
    bool is_base64;
    buf_t data, json;
} output_stream_t;

static const char *const event_names[] = {"stdout", "stderr"};

/* Bytes at the end that begin a character whose rest may follow. */
static size_t incomplete_tail(const uint8_t *bytes, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        uint8_t b = bytes[len - back];
        if ((b & 0xc0) == 0x80) {
            continue;
        }
        size_t need = b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : b >= 0xc0 ? 2 : 1;
        return need > back && b < 0xf5 ? back : 0;
    }
    return 0;
}

/* Sends what s->data holds as one event; false when the client is slow. */
static bool send_data(output_stream_t *s, unsigned which, uint64_t offset)
{
    char id[48];
    json_writer_t w;
    buf_reset(&s->json);
    json_writer_init(&w, &s->json);
    json_write_open_object(&w);
    json_write_key(&w, "offset");
    json_write_uint(&w, offset);
    if (s->is_base64) {
        json_write_key(&w, "data_base64");
        json_write_base64(&w, s->data.data, s->data.len);
    } else {
        json_write_key(&w, "data");
        if (!json_write_strn(&w, s->data.data, s->data.len)) {
            json_write_key(&w, "data_lossy");
            json_write_bool(&w, true);
        }
    }
    json_write_close_object(&w);
    s->tracks[which].next = offset + s->data.len;
    snprintf(id, sizeof id, "%llu:%llu", (unsigned long long)s->tracks[0].next, (unsigned long long)s->tracks[1].next);
    return api_sse_event(s->r, event_names[which], id, (const char *)s->json.data, s->json.len);
}

static bool flush_carry(output_stream_t *s, unsigned which)
{
    track_t *t = &s->tracks[which];
    if (t->carried == 0) {
        return true;
    }
    buf_reset(&s->data);
    buf_append(&s->data, t->carry, t->carried);
    t->carried = 0;
    return send_data(s, which, t->next);
}

static void on_chunk(void *arg, enum envelope_channel channel, uint64_t offset, const uint8_t *bytes, size_t len,
                     bool is_end)
{
    output_stream_t *s = arg;
    if (channel != CHANNEL_STDOUT && channel != CHANNEL_STDERR) {
        call_consumed(s->call, len);
        return;
    }
    unsigned which = channel == CHANNEL_STDERR;
    track_t *t = &s->tracks[which];
    bool is_fast = true;
    if (offset != t->next + t->carried) { /* older output was dropped inside: what was kept of it ends here */
        is_fast = flush_carry(s, which);
        t->next = offset;
    }
    buf_reset(&s->data);
    buf_append(&s->data, t->carry, t->carried);
    buf_append(&s->data, bytes, len);
    size_t keep = is_end || s->is_base64 ? 0 : incomplete_tail(s->data.data, s->data.len);
    memcpy(t->carry, s->data.data ? s->data.data + s->data.len - keep : t->carry, keep);
    t->carried = keep;
    buf_truncate(&s->data, s->data.len - keep);
    if (s->data.len > 0) {
        is_fast = send_data(s, which, t->next) && is_fast;
    }
    if (is_fast && s->unconsumed == 0) {
        call_consumed(s->call, len);
    } else {
        s->unconsumed += len;
    }
}

static void on_writable(api_request_t *r)
{
    output_stream_t *s = r->state;
    size_t len = s->unconsumed;
    s->unconsumed = 0;
    if (s->call && len > 0) {
        call_consumed(s->call, len);
    }
}

/* The reply's JSON without what was streamed. */
static void send_result(output_stream_t *s, const uint8_t *body, size_t len)
{
    static const char *const streamed[] = {"stdout", "stderr", "stdout_lossy", "stderr_lossy"};
    auto_err err_t *e = NULL;
    json_writer_t w;
    buf_reset(&s->json);
    json_writer_init(&w, &s->json);
    if (proto_to_json(s->r->route->reply, body, len, 0, &w, &e)) {
        err_wrap_code(&e, ERR_PROTOCOL, "the sandbox's answer is malformed");
        buf_reset(&s->json);
        api_error_json(e, &s->json);
        api_sse_event(s->r, "error", NULL, buf_cstr(&s->json), s->json.len);
        return;
    }
    json_t *object = json_loadb((const char *)s->json.data, s->json.len, JSON_ALLOW_NUL, NULL);
    for (size_t i = 0; i < COUNT_OF(streamed); i++) {
        json_object_del(object, streamed[i]);
    }
    auto_free char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (text) {
        api_sse_event(s->r, "result", NULL, text, strlen(text));
    }
}

static void on_reply(void *arg, const uint8_t *body, size_t len)
{
    output_stream_t *s = arg;
    s->call = NULL;
    flush_carry(s, 0);
    flush_carry(s, 1);
    send_result(s, body, len);
    api_sse_end(s->r);
}

static void on_error(void *arg, const err_t *err)
{
    output_stream_t *s = arg;
    s->call = NULL;
    buf_reset(&s->json);
    api_error_json(err, &s->json);
    snprintf(s->r->error_code, sizeof s->r->error_code, "%s", err_code_name(err_code(err)));
    snprintf(s->r->error_text, sizeof s->r->error_text, "%s", err_message(err));
    api_sse_event(s->r, "error", NULL, buf_cstr(&s->json), s->json.len);
    api_sse_end(s->r);
}

static void on_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    output_stream_t *s = r->state;
    if (s->call) {
        call_cancel(s->call);
    }
    buf_free(&s->data);
    buf_free(&s->json);
    free(s);
}

void output_stream_start(api_request_t *r, uint32_t deadline_ms, uint64_t stdout_offset, uint64_t stderr_offset,
                         bool is_base64)
{
    static const call_events_t events = {.on_reply = on_reply, .on_error = on_error, .on_chunk = on_chunk};
    output_stream_t *s = mem_alloc(sizeof *s);
    s->r = r;
    s->is_base64 = is_base64;
    s->tracks[0].next = stdout_offset;
    s->tracks[1].next = stderr_offset;
    buf_init(&s->data, 0);
    buf_init(&s->json, 0);
    s->call = tool_start(r, deadline_ms, 0, &events, s);
    if (!s->call) {
        free(s);
        return;
    }
    r->state = s;
    r->on_writable = on_writable;
    r->on_close = on_close;
    api_sse_start(r);
}
