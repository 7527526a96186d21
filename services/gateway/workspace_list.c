// SPDX-License-Identifier: Apache-2.0
/* GET …/workspaces: a bare array, newest first, filters by query; `limit` and `cursor` by query, X-Next-Cursor and
 * X-Total-Count by header. */
#include "services/gateway/workspaces_internal.h"

#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"

#include <inttypes.h>
#include <stdio.h>

#define LIST_MAX 1000

typedef struct filter {
    const char *owner;
    const char *container_type, *provider;
    bool has_status;
    enum workspace_status status;
    char session[UUID_TEXT_SIZE];
    uint64_t limit;
    int64_t cursor_ms; /* -1: from the newest */
    char cursor_id[UUID_TEXT_SIZE];
} filter_t;

/* A cursor names the last workspace shown: base64 of "<created_at ms>.<id>". Opaque to clients, hostile here. */
bool list_cursor_parse(const char *text, int64_t *created_at_ms, char id_text[UUID_TEXT_SIZE])
{
    auto_buf buf_t plain = {.max = 128};
    if (!base64_decode(&plain, text, strlen(text)) || buf_failed(&plain))
        return false;
    char copy[128];
    snprintf(copy, sizeof(copy), "%s", buf_cstr(&plain));
    char *dot = strchr(copy, '.');
    uuid16_t id;
    if (strlen(copy) != plain.len || dot == NULL || !uuid16_parse(&id, dot + 1))
        return false;
    *dot = '\0';
    uuid16_format(&id, id_text);
    return text_to_i64(copy, created_at_ms) && *created_at_ms >= 0;
}

void list_cursor_add(api_request_t *r, int64_t created_at_ms, const char *id_text)
{
    char plain[96];
    int len = snprintf(plain, sizeof(plain), "%" PRId64 ".%s", created_at_ms, id_text);
    auto_buf buf_t text = {0};
    base64_encode(&text, plain, (size_t)len);
    for (size_t i = 0; i < text.len; i++) { /* safe in a URL as it is */
        uint8_t *c = &text.data[i];
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    }
    while (text.len > 0 && text.data[text.len - 1] == '=')
        buf_truncate(&text, text.len - 1);
    http_add_header(r->http, "X-Next-Cursor", buf_cstr(&text));
}

static const char *query(const api_request_t *r, const char *name)
{
    const char *value = http_query(r->http, name);
    return value == NULL || value[0] == '\0' ? NULL : value;
}

static int parse_filter(const api_request_t *r, filter_t *f, err_t **e)
{
    *f = (filter_t){.owner = r->caller.owner, .limit = LIST_MAX, .cursor_ms = -1};
    f->container_type = query(r, "container_type");
    f->provider = query(r, "provider");
    const char *status = query(r, "status"), *session = query(r, "agent_session_id");
    const char *limit = query(r, "limit"), *cursor = query(r, "cursor");
    uuid16_t id;
    if (f->container_type != NULL && strcmp(f->container_type, "agent_workspace") != 0 &&
        strcmp(f->container_type, "mcp_server") != 0)
        return err_set(e, ERR_BAD_REQUEST, "container_type must be 'agent_workspace' or 'mcp_server'");
    if (f->provider != NULL && !orchestrator_is_provider(f->provider))
        return err_set(e, ERR_BAD_REQUEST, "provider must be one of %s", orchestrator_provider_names());
    f->has_status = status != NULL;
    if (status != NULL && !workspace_status_parse(status, &f->status))
        return err_set(e, ERR_BAD_REQUEST, "status must be one of creating, ready, stopping, stopped, error");
    if (session != NULL && !uuid16_parse(&id, session))
        return err_set(e, ERR_BAD_REQUEST, "agent_session_id must be a UUID");
    if (session != NULL)
        uuid16_format(&id, f->session);
    if (limit != NULL && (!text_to_u64(limit, &f->limit) || f->limit == 0 || f->limit > LIST_MAX))
        return err_set(e, ERR_BAD_REQUEST, "limit must be a whole number from 1 to %d", LIST_MAX);
    if (cursor != NULL && !list_cursor_parse(cursor, &f->cursor_ms, f->cursor_id))
        return err_set(e, ERR_BAD_REQUEST, "cursor must be taken from X-Next-Cursor of an earlier reply");
    return 0;
}

static bool matches(const filter_t *f, const workspace_t *ws)
{
    const workspace_row_t *row = &ws->row;
    return ws->is_committed && strcmp(row->owner, f->owner) == 0 &&
           (f->container_type == NULL || strcmp(row->container_type, f->container_type) == 0) &&
           (f->provider == NULL || strcmp(row->provider, f->provider) == 0) &&
           (!f->has_status || row->status == f->status) &&
           (f->session[0] == '\0' || (row->agent_session_id != NULL && strcmp(row->agent_session_id, f->session) == 0));
}

/* Rows are newest first: is it beyond the cursor? */
static bool is_after_cursor(const filter_t *f, const workspace_t *ws)
{
    if (f->cursor_ms < 0 || ws->row.created_at_ms < f->cursor_ms)
        return true;
    return ws->row.created_at_ms == f->cursor_ms && strcmp(ws->row.id_text, f->cursor_id) < 0;
}

static int write_workspace(const workspace_t *ws, json_writer_t *w, err_t **e)
{
    auto_buf buf_t encoded = {0};
    if (workspace_encode(ws, &encoded, e) != 0)
        return -1;
    return proto_to_json(MSG_workspace, encoded.data, encoded.len, 0, w, e);
}

void workspace_list(api_request_t *r)
{
    filter_t f;
    auto_err err_t *e = NULL;
    auto_buf buf_t json = {0};
    if (parse_filter(r, &f, &e) != 0) {
        api_reply_error(r, e);
        return;
    }
    json_writer_t w;
    json_writer_init(&w, &json);
    json_write_open_array(&w);
    size_t total = 0, shown = 0;
    const workspace_t *last = NULL;
    bool has_more = false;
    for (const workspace_t *ws = r->gw->workspaces->newest; ws != NULL; ws = ws->older) {
        if (!matches(&f, ws))
            continue;
        total++;
        if (!is_after_cursor(&f, ws))
            continue;
        has_more = last != NULL && shown == f.limit;
        if (has_more)
            continue;
        if (write_workspace(ws, &w, &e) != 0) {
            api_reply_error(r, e);
            return;
        }
        last = ws;
        shown++;
    }
    json_write_close_array(&w);
    char text[24];
    snprintf(text, sizeof(text), "%zu", total);
    http_add_header(r->http, "X-Total-Count", text);
    if (has_more)
        list_cursor_add(r, last->row.created_at_ms, last->row.id_text);
    api_reply_json(r, 200, &json);
}
