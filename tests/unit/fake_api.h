/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of the gateway's state without its HTTP side: a request is a struct, a reply is what it holds afterwards.
 */
#ifndef EW_TESTS_FAKE_API_H
#define EW_TESTS_FAKE_API_H

#include "common/mem.h"
#include "proto/proto_json.h"
#include "services/gateway/gateway.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <strings.h>

#define FAKE_PAIRS 8

struct http_request {
    const char *headers[FAKE_PAIRS][2];
    const char *query[FAKE_PAIRS][2];
    char next_cursor[128];
    char total[32];
};

typedef struct fake_request {
    api_request_t r; /* first */
    http_request_t http;
    int status; /* 0 = no reply yet */
    char *body;
    json_t *json; /* of the body */
    buf_t events; /* SSE: "<event> <data>\n" … */
    bool is_ended;
} fake_request_t;

static inline const char *fake_pair(const char *const pairs[FAKE_PAIRS][2], const char *name)
{
    for (size_t i = 0; i < FAKE_PAIRS; i++)
        if (pairs[i][0] != NULL && strcasecmp(pairs[i][0], name) == 0)
            return pairs[i][1];
    return NULL;
}

const char *http_header(const http_request_t *r, const char *name)
{
    return fake_pair(r->headers, name);
}

const char *http_query(const http_request_t *r, const char *name)
{
    return fake_pair(r->query, name);
}

void http_add_header(http_request_t *r, const char *name, const char *value)
{
    if (strcmp(name, "X-Next-Cursor") == 0)
        snprintf(r->next_cursor, sizeof(r->next_cursor), "%s", value);
    if (strcmp(name, "X-Total-Count") == 0)
        snprintf(r->total, sizeof(r->total), "%s", value);
}

static inline void fake_reply(api_request_t *r, int status, char *body)
{
    fake_request_t *f = (fake_request_t *)r;
    cr_assert_eq(f->status, 0, "a request was answered twice");
    f->status = status;
    f->body = body;
    f->json = body == NULL ? NULL : json_loads(body, 0, NULL);
    if (r->on_close != NULL)
        r->on_close(r, false);
}

void api_reply_error(api_request_t *r, const err_t *err)
{
    cr_assert_not_null(err);
    fake_reply(r, err_code_http(err_code(err)), mem_strdup(err_message(err)));
}

void api_fail(api_request_t *r, enum err_code code, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fake_reply(r, err_code_http(code), mem_strdup(text));
}

void api_reply_message(api_request_t *r, int status, unsigned msg_id, const void *encoded, size_t len,
                       unsigned json_flags)
{
    buf_t out = {0};
    json_writer_t w;
    json_writer_init(&w, &out);
    auto_err err_t *e = NULL;
    cr_assert_eq(proto_to_json(msg_id, encoded, len, json_flags, &w, &e), 0, "%s", err_message(e));
    fake_reply(r, status, buf_steal(&out));
}

void api_reply_json(api_request_t *r, int status, buf_t *json)
{
    fake_reply(r, status, buf_steal(json));
}

void api_reply_empty(api_request_t *r, int status)
{
    fake_reply(r, status, NULL);
}

void api_sse_start(api_request_t *r)
{
    (void)r;
}

bool api_sse_event(api_request_t *r, const char *event, const char *id, const char *data, size_t len)
{
    (void)id;
    buf_printf(&((fake_request_t *)r)->events, "%s %.*s\n", event, (int)len, data);
    return true;
}

void api_sse_end(api_request_t *r)
{
    ((fake_request_t *)r)->is_ended = true;
    if (r->on_close != NULL)
        r->on_close(r, false);
}

static inline fake_request_t *fake_request_new(gateway_t *gw, const char *owner)
{
    fake_request_t *f = mem_alloc(sizeof(*f));
    f->r.gw = gw;
    f->r.http = &f->http;
    f->r.caller = (caller_t){.can_read = true, .can_write = true, .is_operator = strcmp(owner, "standalone") == 0};
    snprintf(f->r.caller.owner, sizeof(f->r.caller.owner), "%s", owner);
    return f;
}

static inline void fake_request_free(fake_request_t *f)
{
    if (f->status == 0 && !f->is_ended && f->r.on_close != NULL)
        f->r.on_close(&f->r, true); /* the client hangs up */
    json_decref(f->json);
    json_decref(f->r.json);
    free(f->r.audit);
    buf_free(&f->r.encoded);
    buf_free(&f->events);
    free(f->body);
    free(f);
}

static inline const char *fake_text(const fake_request_t *f, const char *field)
{
    const char *text = json_string_value(json_object_get(f->json, field));
    return text == NULL ? "" : text;
}

#endif
