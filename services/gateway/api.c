/* SPDX-License-Identifier: Apache-2.0
 *
 * The gate every REST request passes: request id, route, auth, scope, workspace, body limit – all before the first byte
 * of the body is read – then the body, its JSON, its schema, and the handler. Ends with log, audit and metrics.
 */
#include "services/gateway/api_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"
#include "services/gateway/audit.h"
#include "services/gateway/json_guard.h"
#include "services/gateway/tools.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char API_PREFIX[] = "/api/v1/agent/";

static api_request_t *request_new(gateway_t *gw, http_request_t *http)
{
    api_t *api = gw->api;
    api_request_t *r = api->spare;
    if (r) {
        api->spare = r->next;
        api->spare_count--;
        buf_t encoded = r->encoded, body = r->body, scratch = r->scratch;
        memset(r, 0, sizeof *r);
        r->encoded = encoded;
        r->body = body;
        r->scratch = scratch;
    } else {
        r = mem_alloc(sizeof *r);
        buf_init(&r->encoded, 2 * CALL_MESSAGE_MAX);
        buf_init(&r->body, 2 * CALL_MESSAGE_MAX);
        buf_init(&r->scratch, 0);
    }
    r->gw = gw;
    r->http = http;
    r->started_us = clock_monotonic_us();
    http_set_data(http, r);
    return r;
}

static void release_buffer(buf_t *b)
{
    if (b->cap > API_BUFFER_KEEP) {
        size_t max = b->max;
        buf_free(b);
        buf_init(b, max);
    } else {
        buf_reset(b);
    }
}

static void release_body(api_request_t *r)
{
    r->gw->api->body_bytes -= r->body.len;
    release_buffer(&r->body);
}

/* The handler has what it needs: a call that runs for minutes must not hold its request three times over. */
static void release_input(api_request_t *r)
{
    json_decref(r->json);
    r->json = NULL;
    if (r->encoded.cap > API_BUFFER_KEEP) {
        release_buffer(&r->encoded);
    }
}

static void request_free(api_request_t *r)
{
    api_t *api = r->gw->api;
    json_decref(r->json);
    free(r->audit);
    free(r->param_storage);
    release_buffer(&r->encoded);
    release_body(r);
    release_buffer(&r->scratch);
    if (api->spare_count >= API_SPARE_MAX) {
        buf_free(&r->encoded);
        buf_free(&r->body);
        buf_free(&r->scratch);
        free(r);
        return;
    }
    r->next = api->spare;
    api->spare = r;
    api->spare_count++;
}

/* X-Request-Id is taken over when it cannot harm a log or a header. */
static void take_request_id(api_request_t *r)
{
    random_bytes(r->trace.bytes, sizeof r->trace.bytes);
    const char *given = http_header(r->http, "x-request-id");
    size_t len = given ? strlen(given) : 0;
    bool is_good = len > 0 && len < sizeof r->request_id;
    for (size_t i = 0; is_good && i < len; i++) {
        is_good = isalnum((unsigned char)given[i]) || strchr("._-", given[i]);
    }
    if (is_good) {
        memcpy(r->request_id, given, len + 1);
    } else {
        hex_encode(r->request_id, r->trace.bytes, sizeof r->trace.bytes);
    }
}

static bool find_route(api_request_t *r)
{
    char allow[64];
    const char *path = http_path(r->http);
    size_t size = strlen(path) + 1; /* a parameter and its NUL never take more than they and their slash do there */
    r->param_storage = mem_alloc(size);
    r->route = route_match(http_method(r->http), path, r->params, r->param_storage, size, allow, sizeof allow);
    bool is_off =
        !r->gw->daemon.config.enable_agent_workspaces && strncmp(path, API_PREFIX, sizeof API_PREFIX - 1) == 0;
    if (r->route && !is_off) {
        return true;
    }
    r->route = NULL;
    if (allow[0] && !is_off) {
        http_add_header(r->http, "Allow", allow);
        api_fail(r, ERR_METHOD_NOT_ALLOWED, "Method Not Allowed");
    } else {
        api_fail(r, ERR_NOT_FOUND, "Not Found");
    }
    return false;
}

static bool pass_auth(api_request_t *r)
{
    if (r->route->scope == SCOPE_NONE) {
        return true;
    }
    auto_err err_t *e = NULL;
    if (auth_check(r->gw, r->http, &r->caller, &e)) {
        api_reply_error(r, e);
        return false;
    }
    bool needs_write = r->route->scope == SCOPE_WRITE;
    if (needs_write ? !r->caller.can_write : !r->caller.can_read) {
        err_set(&e, ERR_FORBIDDEN, "Insufficient permissions");
        err_set_details(e, needs_write ? "{\"missing\":[\"admin:write\"]}" : "{\"missing\":[\"admin:read\"]}");
        api_reply_error(r, e);
        return false;
    }
    return true;
}

static void invalid_body(api_request_t *r, const char *reason, const json_error_t *at)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t details;
    buf_init(&details, 4096);
    json_writer_t w;
    json_writer_init(&w, &details);
    json_write_open_object(&w);
    json_write_key(&w, "reason");
    json_write_str(&w, reason);
    if (at) {
        json_write_key(&w, "position");
        json_write_int(&w, at->position);
        json_write_key(&w, "line");
        json_write_int(&w, at->line);
        json_write_key(&w, "column");
        json_write_int(&w, at->column);
    }
    json_write_close_object(&w);
    err_set(&e, ERR_BAD_REQUEST, "invalid request body");
    err_set_details(e, buf_cstr(&details));
    api_reply_error(r, e);
}

static bool is_json_type(const char *type)
{
    size_t len = type ? strcspn(type, "; \t") : 0;
    return (len == 16 && strncasecmp(type, "application/json", len) == 0) ||
           (len > 17 && strncasecmp(type, "application/", 12) == 0 && strncasecmp(type + len - 5, "+json", 5) == 0);
}

/* What the head tells about the body. */
static bool pass_body_head(api_request_t *r)
{
    if (r->route->body == BODY_NONE && http_has_body(r->http)) {
        api_fail(r, ERR_BAD_REQUEST, "%s %s takes no request body", r->route->method, http_path(r->http));
        return false;
    }
    int64_t length = http_content_length(r->http);
    if (length > 0 && (uint64_t)length > r->route->body_max) {
        api_fail(r, ERR_PAYLOAD_TOO_LARGE, "the request body of %lld bytes is over the limit of %llu bytes",
                 (long long)length, (unsigned long long)r->route->body_max);
        return false;
    }
    if (r->route->body == BODY_JSON && http_has_body(r->http) && !is_json_type(http_header(r->http, "content-type"))) {
        invalid_body(r, "Content-Type must be application/json", NULL);
        return false;
    }
    return true;
}

workspace_row_t *api_ready_workspace(api_request_t *r, fabric_peer_t **peer)
{
    auto_err err_t *e = NULL;
    workspace_row_t *ws = workspaces_find(r->gw, r->params[0], &r->caller, &e);
    if (ws && !r->workspace[0]) {
        api_note_workspace(r, ws);
    }
    enum workspace_admission admission = ws ? workspaces_admit(ws, &e) : WORKSPACE_REFUSED;
    if (admission == WORKSPACE_WAKES && peer) { /* it was stopped since the gate let the request through */
        err_set(&e, ERR_OVERLOADED, "the workspace is being resumed; retry in a moment");
    }
    if (admission == WORKSPACE_REFUSED || (admission == WORKSPACE_WAKES && peer)) {
        ws = NULL;
    }
    if (ws && peer) {
        *peer = workspaces_peer(r->gw, ws, &e);
        ws = *peer ? ws : NULL;
    }
    if (!ws) {
        api_reply_error(r, e);
    }
    return ws;
}

/* A workspace that was stopped because nobody used it comes back first; `then` goes on. False: nothing to wait for. */
static bool wait_for_workspace(api_request_t *r, route_fn then)
{
    auto_err err_t *e = NULL;
    workspace_row_t *ws = r->route->verb ? workspaces_find(r->gw, r->params[0], &r->caller, &e) : NULL;
    if (!ws || workspaces_admit(ws, &e) != WORKSPACE_WAKES) {
        return false; /* what is wrong with it the handler finds, too */
    }
    workspaces_wake(ws, r, then);
    return true;
}

static void run_stream(api_request_t *r)
{
    r->route->handler(r);
    http_pause_body(r->http, false);
}

static void start_stream(api_request_t *r)
{
    if (!wait_for_workspace(r, run_stream)) {
        r->route->handler(r);
    } else if (!r->is_replied) {
        http_pause_body(r->http, true); /* the body stays with the client until there is somebody to take it */
    }
}

static void on_headers(void *arg, http_request_t *http)
{
    api_request_t *r = request_new(arg, http);
    take_request_id(r);
    http_set_body_max(http, UINT64_MAX); /* the gate counts itself, for an answer with the request's id */
    if (!find_route(r) || !pass_auth(r)) {
        return;
    }
    if (r->route->verb && !api_ready_workspace(r, NULL)) {
        return;
    }
    audit_take_workspace(r);
    if (!pass_body_head(r)) {
        return;
    }
    if (r->route->body == BODY_STREAM) {
        start_stream(r);
    } else if (r->route->body == BODY_JSON) {
        http_set_body_time(http, API_BODY_MS);
    }
}

static void collect(api_request_t *r, const uint8_t *bytes, size_t len)
{
    api_t *api = r->gw->api;
    if (r->body.len + len > API_BODY_SHARE && api->body_bytes + len > api->body_bytes_max) {
        api_fail(r, ERR_OVERLOADED, "too many large requests are being received; retry in a moment");
        return;
    }
    size_t before = r->body.len;
    buf_append(&r->body, bytes, len);
    api->body_bytes += r->body.len - before;
    if (buf_failed(&r->body)) {
        api_fail(r, ERR_PAYLOAD_TOO_LARGE, "the request body is too large");
    }
}

static void on_body(http_request_t *http, const uint8_t *bytes, size_t len)
{
    api_request_t *r = http_data(http);
    r->body_seen += len;
    if (r->body_seen > r->route->body_max) {
        api_fail(r, ERR_PAYLOAD_TOO_LARGE, "the request body is over the limit of %llu bytes",
                 (unsigned long long)r->route->body_max);
    } else if (r->on_body) {
        r->on_body(r, bytes, len);
    } else {
        collect(r, bytes, len);
    }
}

static bool parse_body(api_request_t *r)
{
    size_t len = r->body.len;
    if (len == 0) {
        r->json = json_object();
        return true;
    }
    json_error_t at;
    const char *refusal = json_guard((const char *)r->body.data, len);
    if (refusal) {
        invalid_body(r, refusal, NULL);
        return false;
    }
    /* NUL in strings is let through here so that the schema names the field. */
    r->json = json_loadb((const char *)r->body.data, len, JSON_ALLOW_NUL, &at);
    if (!r->json) {
        invalid_body(r, at.text, &at);
        return false;
    }
    release_body(r);
    if (!json_is_object(r->json)) {
        invalid_body(r, "the body must be a JSON object", NULL);
        return false;
    }
    return true;
}

static json_t *query_value(const proto_field_t *field, const char *value, json_t *old, err_t **e)
{
    uint64_t u;
    int64_t i;
    switch (field->kind) {
    case PROTO_U32:
    case PROTO_U64:
    case PROTO_I64:
        if (text_to_i64(value, &i)) {
            return json_integer(i);
        }
        if (text_to_u64(value, &u)) {
            return json_real((double)u); /* beyond what JSON integers hold here: refused by the row */
        }
        err_set(e, ERR_BAD_REQUEST, "%s must be a whole number", field->name);
        return NULL;
    case PROTO_BOOL:
        if (strcmp(value, "true") == 0 || strcmp(value, "1") == 0 || value[0] == 0) {
            return json_true();
        }
        if (strcmp(value, "false") == 0 || strcmp(value, "0") == 0) {
            return json_false();
        }
        err_set(e, ERR_BAD_REQUEST, "%s must be true or false", field->name);
        return NULL;
    case PROTO_LIST: {
        json_t *list = old ? json_incref(old) : json_array();
        json_array_append_new(list, json_string(value));
        return list;
    }
    default: {
        json_t *text = json_string(value);
        if (!text) {
            err_set(e, ERR_BAD_REQUEST, "%s must be valid UTF-8", field->name);
        }
        return text;
    }
    }
}

json_t *api_query_object(api_request_t *r, err_t **e)
{
    const proto_desc_t *desc = proto_desc(r->route->request);
    json_t *object = json_object();
    const char *name, *value;
    for (size_t i = 0; http_query_at(r->http, i, &name, &value); i++) {
        const proto_field_t *field = NULL;
        for (size_t f = 0; desc && f < desc->field_count && !field; f++) {
            field = strcmp(desc->fields[f].name, name) == 0 ? &desc->fields[f] : NULL;
        }
        json_t *old = json_object_get(object, name);
        if (old && !(field && field->kind == PROTO_LIST)) {
            continue; /* the first one wins */
        }
        json_t *converted = field ? query_value(field, value, old, e) : json_true();
        if (!converted) {
            json_decref(object);
            return NULL;
        }
        json_object_set_new(object, name, converted); /* names that are no UTF-8 are dropped */
    }
    return object;
}

static void tell_unknown(api_request_t *r, buf_t *unknown)
{
    if (unknown->len == 0) {
        return;
    }
    for (size_t i = 0; i < unknown->len; i++) {
        if (unknown->data[i] < 0x20 || unknown->data[i] > 0x7e) {
            unknown->data[i] = '?';
        }
    }
    http_add_header(r->http, "X-Unknown-Fields", buf_cstr(unknown));
}

int api_encode_request(api_request_t *r, const json_t *object, err_t **e)
{
    auto_buf buf_t unknown;
    buf_init(&unknown, 1024);
    buf_reset(&r->encoded);
    if (proto_from_json(r->route->request, object, &r->encoded, &unknown, e)) {
        return -1;
    }
    tell_unknown(r, &unknown);
    return 0;
}

/* Path parameter :pid stands for the field process_id. */
static int add_process_id(api_request_t *r, err_t **e)
{
    uint64_t id;
    if (!r->params[1]) {
        return 0;
    }
    if (!text_to_u64(r->params[1], &id) || id > UINT32_MAX) {
        return err_set(e, ERR_BAD_REQUEST, "invalid process id format");
    }
    json_object_set_new(r->json, "process_id", json_integer((json_int_t)id));
    return 0;
}

static void run_handler(api_request_t *r)
{
    if (r->route->request) {
        tool_note_request(r);
    }
    r->route->handler(r);
    release_input(r);
}

static void on_end(http_request_t *http)
{
    api_request_t *r = http_data(http);
    if (r->route->body == BODY_STREAM) {
        if (r->on_body_end) {
            r->on_body_end(r);
        }
        return;
    }
    auto_err err_t *e = NULL;
    if (r->route->body == BODY_JSON && !parse_body(r)) {
        return;
    }
    if (r->route->body == BODY_NONE && r->route->request && !(r->json = api_query_object(r, &e))) {
        api_reply_error(r, e);
        return;
    }
    if (r->route->request && (add_process_id(r, &e) || api_encode_request(r, r->json, &e))) {
        api_reply_error(r, e);
        return;
    }
    if (!wait_for_workspace(r, run_handler)) {
        run_handler(r);
    }
}

static void on_writable(http_request_t *http)
{
    api_request_t *r = http_data(http);
    if (r->on_writable) {
        r->on_writable(r);
    }
}

static void on_close(http_request_t *http, bool is_hangup)
{
    api_request_t *r = http_data(http);
    if (r->is_sse) {
        if (r->next) {
            r->next->link = r->link;
        }
        *r->link = r->next;
        r->gw->api->stream_count--;
    }
    if (r->on_close) {
        r->on_close(r, is_hangup);
    }
    if (!r->status || (is_hangup && !r->is_replied)) {
        r->status = is_hangup ? err_code_http(ERR_CANCELLED) : 400; /* 400: the HTTP layer refused the body */
        snprintf(r->error_code, sizeof r->error_code, "%s", err_code_name(is_hangup ? ERR_CANCELLED : ERR_BAD_REQUEST));
        snprintf(r->error_text, sizeof r->error_text, "%s", is_hangup ? "the client hung up" : "malformed body");
    }
    uint64_t duration_us = clock_monotonic_us() - r->started_us;
    if (r->gw->metrics) {
        metrics_request(r->gw->metrics, r->route, r->status, duration_us);
    }
    audit_request(r, duration_us);
    request_free(r);
}

const http_handlers_t *api_http_handlers(void)
{
    static const http_handlers_t handlers = {.on_headers = on_headers,
                                             .on_body = on_body,
                                             .on_end = on_end,
                                             .on_writable = on_writable,
                                             .on_close = on_close};
    return &handlers;
}

/* A comment now and then keeps proxies and NAT tables from forgetting quiet streams, and finds clients that are gone.
 */
static void on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    api_t *api = arg;
    for (api_request_t *r = api->streams, *next; r; r = next) {
        next = r->next;
        http_reply_chunk(r->http, ": \n\n", 4);
    }
}

int api_open(gateway_t *gw, err_t **e)
{
    api_t *api = gw->api = mem_alloc(sizeof *api);
    api->gw = gw;
    api->body_bytes_max = API_BODIES_MAX;
    buf_init(&api->event, 0);
    buf_init(&api->openapi, 0);
    api->heartbeat = event_new(gw->daemon.base, -1, EV_PERSIST, on_heartbeat, api);
    if (!api->heartbeat) {
        api_close(gw);
        return err_set(e, ERR_INTERNAL, "cannot make the heartbeat timer of event streams");
    }
    struct timeval tv = {.tv_sec = API_SSE_HEARTBEAT_S};
    evtimer_add(api->heartbeat, &tv);
    return 0;
}

void api_drain(gateway_t *gw)
{
    for (api_request_t *r = gw->api->streams, *next; r; r = next) {
        next = r->next;
        if (r->route->verb != VERB_bash) { /* a command ends by itself; the others follow something */
            api_sse_end(r);
        }
    }
}

void api_close(gateway_t *gw)
{
    api_t *api = gw->api;
    if (!api) {
        return;
    }
    gw->api = NULL;
    while (api->spare) {
        api_request_t *r = api->spare;
        api->spare = r->next;
        buf_free(&r->encoded);
        buf_free(&r->body);
        buf_free(&r->scratch);
        free(r);
    }
    if (api->heartbeat) {
        event_free(api->heartbeat);
    }
    buf_free(&api->event);
    buf_free(&api->openapi);
    free(api);
}
