/* SPDX-License-Identifier: Apache-2.0
 *
 * Tool calls: REST body → encoded request → one call to the agent → REST reply. A client that hangs up cancels the
 * call, unless it sent an Idempotency-Key: then the call runs on, so that its repetition finds the result.
 */
#include "services/gateway/tools.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"
#include "services/gateway/idempotency.h"

#include <string.h>

#define AUDIT_VALUE_MAX 120
#define AUDIT_MAX 1024

typedef struct tool {
    api_request_t *r; /* NULL: the client is gone and the call runs on */
    call_t *call;
    gateway_t *gw;
    uint64_t idempotent_id;
    unsigned json_flags;
} tool_t;

static void audit_text(buf_t *out, const char *name, const char *value)
{
    size_t len = strcspn(value, "\r\n"); /* a here-document's content stays out */
    const char *host = strstr(value, "://");
    if (host &&
        host < value + len) { /* a URL's user, password, query and fragment may be secrets, in a refused one too */
        host += 3;
        size_t query = strcspn(host, "?#\r\n");
        const char *at = memrchr(host, '@', query); /* in a path, too: who did not escape a password's '/' meant it */
        buf_printf(out, "%s%s=\"%.*s", out->len ? " " : "", name, (int)(host - value), value);
        len = (size_t)(host - value) + query;
        if (at) {
            buf_append_str(out, "***");
            host = at;
        }
        len -= (size_t)(host - value);
        value = host;
    } else {
        buf_printf(out, "%s%s=\"", out->len ? " " : "", name);
    }
    size_t cut = utf8_cut(value, len, AUDIT_VALUE_MAX);
    buf_printf(out, "%.*s%s\"", (int)cut, value, value[cut] ? "…" : "");
}

static void audit_field(buf_t *out, const proto_field_t *f, const char *at)
{
    const char *space = out->len ? " " : "";
    switch (f->kind) {
    case PROTO_STR:
        audit_text(out, f->name, *(const char *const *)(const void *)at);
        break;
    case PROTO_U32:
        buf_printf(out, "%s%s=%u", space, f->name, *(const uint32_t *)(const void *)at);
        break;
    case PROTO_U64:
        buf_printf(out, "%s%s=%llu", space, f->name, (unsigned long long)*(const uint64_t *)(const void *)at);
        break;
    case PROTO_I64:
        buf_printf(out, "%s%s=%lld", space, f->name, (long long)*(const int64_t *)(const void *)at);
        break;
    case PROTO_BOOL:
        buf_printf(out, "%s%s=%s", space, f->name, *(const bool *)(const void *)at ? "true" : "false");
        break;
    case PROTO_BULK:
        buf_printf(out, "%s%s=<%zu bytes>", space, f->name, ((const proto_bytes_t *)(const void *)at)->len);
        break;
    case PROTO_LIST:
    case PROTO_MAP:
    case PROTO_MSGS:
        buf_printf(out, "%s%s=<%u>", space, f->name, ((const proto_list_t *)(const void *)at)->count);
        break;
    case PROTO_JSON:
    case PROTO_MSG:
        break;
    }
}

void tool_note_request(api_request_t *r)
{
    if (r->audit) {
        return;
    }
    const proto_desc_t *desc = proto_desc(r->route->request);
    auto_err err_t *e = NULL;
    auto_free char *msg = desc ? mem_alloc(desc->size) : NULL;
    if (!msg || proto_decode(desc->id, msg, r->encoded.data, r->encoded.len, &e)) {
        return;
    }
    auto_buf buf_t out;
    buf_init(&out, AUDIT_MAX);
    for (size_t i = 0; i < desc->field_count && !buf_failed(&out); i++) {
        const proto_field_t *f = &desc->fields[i];
        if (!msg[i] || f->flags & PROTO_HIDE) {
            continue;
        }
        if (!(f->flags & PROTO_SECRET)) {
            audit_field(&out, f, msg + f->offset);
        } else if (f->kind == PROTO_STR) { /* S-067: that there was one and how long, never what it says */
            buf_printf(&out, "%s%s=<%zu bytes>", out.len ? " " : "", f->name,
                       strlen(*(const char *const *)(const void *)(msg + f->offset)));
        }
    }
    r->audit = out.len ? mem_strndup((const char *)out.data, out.len) : mem_strdup("");
}

uint32_t tool_deadline(const api_request_t *r, const char *field, int64_t standard)
{
    json_t *value = r->json ? json_object_get(r->json, field) : NULL;
    int64_t ms = json_is_integer(value) ? json_integer_value(value) : 0;
    if (ms <= 0 || ms > MAX_TIMEOUT_MS) {
        ms = standard;
    }
    return (uint32_t)ms + TOOL_GRACE_MS;
}

call_t *tool_start(api_request_t *r, uint32_t deadline_ms, uint64_t call_id, const call_events_t *events, void *arg)
{
    fabric_peer_t *peer = NULL;
    workspace_row_t *ws = api_ready_workspace(r, &peer);
    if (!ws) {
        return NULL;
    }
    auto_err err_t *e = NULL;
    workspaces_touch(r->gw, ws);
    tool_note_request(r);
    call_options_t options = {
        .sandbox = ws->id, .trace = r->trace, .call_id = call_id, .deadline_ms = deadline_ms, .is_kept = call_id != 0};
    call_t *call = call_start(r->gw->calls, peer, (enum verb)r->route->verb, &options, r->encoded.data, r->encoded.len,
                              events, arg, &e);
    if (!call) {
        api_reply_error(r, e);
    }
    return call;
}

static void tool_over(tool_t *t)
{
    t->call = NULL;
    idempotency_done(t->gw->idempotency, t->idempotent_id);
    if (!t->r) {
        free(t); /* else on_close frees it */
    }
}

static void tool_on_reply(void *arg, const uint8_t *body, size_t len)
{
    tool_t *t = arg;
    api_request_t *r = t->r;
    if (r && r->route->reply) {
        api_reply_message(r, r->route->status, r->route->reply, body, len, t->json_flags);
    } else if (r) {
        api_reply_empty(r, r->route->status);
    }
    tool_over(t);
}

static void tool_on_error(void *arg, const err_t *err)
{
    tool_t *t = arg;
    if (t->r) {
        api_reply_error(t->r, err);
    }
    tool_over(t);
}

static void tool_on_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    tool_t *t = r->state;
    t->r = NULL;
    if (t->call && t->idempotent_id) {
        return; /* tool_over frees it */
    }
    if (t->call) {
        call_cancel(t->call);
    }
    free(t);
}

static const call_events_t tool_events = {.on_reply = tool_on_reply, .on_error = tool_on_error};

static bool wants_base64(const api_request_t *r)
{
    const char *encoding = json_string_value(json_object_get(r->json, "output_encoding"));
    return encoding && strcmp(encoding, "base64") == 0;
}

static uint32_t deadline_of(const api_request_t *r)
{
    switch (r->route->verb) {
    case VERB_bash:
    case VERB_process_wait:
        return tool_deadline(r, "timeout_ms", TOOL_TIMEOUT_DEFAULT_MS);
    default:
        return TOOL_DEADLINE_MS;
    }
}

void tool_call(api_request_t *r)
{
    auto_err err_t *e = NULL;
    uint64_t call_id = 0;
    if (idempotency_begin(r, &call_id, &e)) {
        api_reply_error(r, e);
        return;
    }
    tool_t *t = mem_alloc(sizeof *t);
    t->r = r;
    t->gw = r->gw;
    t->idempotent_id = call_id;
    t->json_flags = wants_base64(r) ? PROTO_JSON_BASE64 : 0;
    call_t *call = tool_start(r, deadline_of(r), call_id, &tool_events, t);
    if (!call) {
        idempotency_done(r->gw->idempotency, call_id);
        free(t);
        return;
    }
    t->call = call;
    r->state = t;
    r->on_close = tool_on_close;
}

void tool_bash(api_request_t *r)
{
    if (!api_wants_sse(r) || json_is_true(json_object_get(r->json, "run_in_background"))) {
        tool_call(r);
        return;
    }
    auto_err err_t *e = NULL;
    if (http_header(r->http, "idempotency-key")) { /* a repetition has no stream to answer with */
        api_fail(r, ERR_BAD_REQUEST, "Idempotency-Key does not go with text/event-stream");
        return;
    }
    struct bash_request request;
    auto_buf buf_t encoded = r->encoded; /* the request points into it */
    buf_init(&r->encoded, encoded.max);
    if (proto_decode(MSG_bash_request, &request, encoded.data, encoded.len, &e)) {
        api_reply_error(r, e);
        return;
    }
    request.stream = true;
    if (proto_encode(MSG_bash_request, &request, &r->encoded, &e)) {
        api_reply_error(r, e);
        return;
    }
    output_stream_start(r, deadline_of(r), 0, 0, wants_base64(r));
}
