/* SPDX-License-Identifier: Apache-2.0
 *
 * OpenAPI 3.1 of the REST API, made from the route table and the message tables: nothing in it is written twice.
 */
#include "services/gateway/api_internal.h"

#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define MESSAGE_IDS_MAX 1024

static void pair(json_writer_t *w, const char *key, const char *value)
{
    json_write_key(w, key);
    json_write_str(w, value);
}

static void open_key(json_writer_t *w, const char *key)
{
    json_write_key(w, key);
    json_write_open_object(w);
}

/* "/a/:id/b" → "/a/{id}/b" */
static void openapi_path(const char *path, char *out, size_t size)
{
    size_t n = 0;
    bool is_param = false;
    for (; *path && n + 3 < size; path++) {
        if (is_param && *path == '/') {
            out[n++] = '}';
            is_param = false;
        }
        if (*path == ':') {
            out[n++] = '{';
            is_param = true;
        } else {
            out[n++] = *path;
        }
    }
    if (is_param) {
        out[n++] = '}';
    }
    out[n] = 0;
}

/* "get_api_v1_agent_workspaces_id": unique because path and method are. */
static void operation_id(const route_t *route, char *out, size_t size)
{
    size_t n = 0;
    for (const char *m = route->method; *m && n + 1 < size; m++) {
        out[n++] = (char)tolower((unsigned char)*m);
    }
    for (const char *p = route->path; *p && n + 1 < size; p++) {
        if (isalnum((unsigned char)*p)) {
            out[n++] = *p;
        } else if (n > 0 && out[n - 1] != '_') {
            out[n++] = '_';
        }
    }
    out[n] = 0;
}

static void write_ref(json_writer_t *w, unsigned msg_id)
{
    auto_free char *ref = mem_printf("#/components/schemas/%s", proto_desc(msg_id)->name);
    json_write_open_object(w);
    pair(w, "$ref", ref);
    json_write_close_object(w);
}

static void write_parameter(json_writer_t *w, const char *name, const char *in, const char *type, const char *doc,
                            bool is_required)
{
    json_write_open_object(w);
    pair(w, "name", name);
    pair(w, "in", in);
    json_write_key(w, "required");
    json_write_bool(w, is_required);
    if (doc) {
        pair(w, "description", doc);
    }
    open_key(w, "schema");
    pair(w, "type", type);
    if (strcmp(name, "id") == 0 && strcmp(in, "path") == 0) {
        pair(w, "format", "uuid");
    }
    json_write_close_object(w);
    json_write_close_object(w);
}

static void write_query_parameters(const route_t *route, json_writer_t *w)
{
    const proto_desc_t *desc = proto_desc(route->request);
    for (size_t i = 0; desc && i < desc->field_count; i++) {
        const proto_field_t *f = &desc->fields[i];
        bool is_path = strcmp(f->name, "process_id") == 0 && strstr(route->path, "/:pid");
        if ((f->flags & PROTO_HIDE) || is_path || (route->body == BODY_STREAM && strcmp(f->name, "size") == 0)) {
            continue;
        }
        const char *type = f->kind == PROTO_BOOL                                                  ? "boolean"
                           : f->kind == PROTO_U32 || f->kind == PROTO_U64 || f->kind == PROTO_I64 ? "integer"
                                                                                                  : "string";
        write_parameter(w, f->name, "query", type, f->doc, f->flags & PROTO_REQ);
    }
}

#define AUDIT_QUERY(handler)                                                                             \
    {handler, "operation", "string", "only these, such as bash or create"},                              \
        {handler, "status", "string", "only with this HTTP status, such as 404, or class, such as 4xx"}, \
        {handler, "from", "string", "not before this time, RFC 3339"},                                   \
        {handler, "to", "string", "before this time, RFC 3339"},                                         \
        {handler, "agent_session_id", "string", "only of this session"},                                 \
        {handler, "limit", "integer", "most rows, 1 to 1000; default 100"},                              \
    {                                                                                                    \
        handler, "cursor", "string", "X-Next-Cursor of the reply before"                                 \
    }

/* Parameters of routes whose query is not a message. */
static const struct {
    void (*handler)(api_request_t *r);
    const char *name, *type, *doc;
} QUERY[] = {
    {workspace_create, "wait", "integer", "answer when it is ready, after at most so many seconds (0 to 60)"},
    {workspace_list, "container_type", "string", "only these: agent_workspace or mcp_server"},
    {workspace_list, "provider", "string", "only of this provider"},
    {workspace_list, "status", "string", "only these: creating, ready, stopping, stopped or error"},
    {workspace_list, "agent_session_id", "string", "only those attached to this session"},
    {workspace_list, "limit", "integer", "most rows, 1 to 1000; X-Total-Count tells how many there are"},
    {workspace_from_snapshot, "wait", "integer", "answer after so many seconds at most, 1 to 60, ready or not"},
    {snapshot_list, "workspace_id", "string", "only those taken of this workspace"},
    {snapshot_list, "provider", "string", "only of this provider"},
    {snapshot_list, "status", "string", "only these: creating, ready, error or deleting"},
    {snapshot_list, "limit", "integer", "most rows, 1 to 1000; X-Total-Count tells how many there are"},
    {snapshot_list, "cursor", "string", "X-Next-Cursor of the reply before"},
    {workspace_list, "cursor", "string", "X-Next-Cursor of the reply before"},
    {workspace_assignments, "limit", "integer", "most rows, 1 to 1000; default 100"},
    {workspace_assignments, "cursor", "string", "X-Next-Cursor of the reply before"},
    AUDIT_QUERY(audit_list_workspace),
    AUDIT_QUERY(audit_list),
    {audit_list, "all_owners", "boolean", "true: the lines of every owner, chain by chain; standalone key only"},
};

static void write_own_query(const route_t *route, json_writer_t *w)
{
    for (size_t i = 0; i < COUNT_OF(QUERY); i++) {
        if (QUERY[i].handler == route->handler) {
            write_parameter(w, QUERY[i].name, "query", QUERY[i].type, QUERY[i].doc, false);
        }
    }
}

static void write_parameters(const route_t *route, json_writer_t *w)
{
    json_write_key(w, "parameters");
    json_write_open_array(w);
    if (strstr(route->path, "/:id")) {
        write_parameter(w, "id", "path", "string", NULL, true);
    }
    if (strstr(route->path, "/:pid")) {
        write_parameter(w, "pid", "path", "integer", "the process", true);
    }
    if (route->body != BODY_JSON) {
        write_query_parameters(route, w);
    }
    write_own_query(route, w);
    bool is_create = route->request == MSG_workspace_create || route->request == MSG_workspace_from_snapshot ||
                     route->request == MSG_workspace_snapshot || route->request == MSG_workspace_fork;
    bool is_kept_call = route->verb && strcmp(route->method, "GET") != 0 && route->body != BODY_STREAM;
    if (is_create || is_kept_call) { /* an upload is repeated as it is: the file is the same afterwards */
        write_parameter(w, "Idempotency-Key", "header", "string",
                        "a repeated call with the same key is answered from the first", false);
    }
    json_write_close_array(w);
}

static void write_request_body(const route_t *route, json_writer_t *w)
{
    if (route->body == BODY_NONE) {
        return;
    }
    open_key(w, "requestBody");
    open_key(w, "content");
    open_key(w, route->body == BODY_STREAM ? "application/octet-stream" : "application/json");
    json_write_key(w, "schema");
    if (route->body == BODY_JSON && route->request) {
        write_ref(w, route->request);
    } else {
        json_write_open_object(w);
        if (route->body == BODY_JSON) {
            pair(w, "type", "object");
        }
        json_write_close_object(w);
    }
    json_write_close_object(w);
    json_write_close_object(w);
    json_write_close_object(w);
}

static bool is_sse_only(const route_t *route)
{
    return route->handler == file_watch || route->handler == workspace_events;
}

static bool replies_with_array(const route_t *route)
{
    static void (*const LISTS[])(api_request_t * r) = {
        workspace_list, workspace_providers, snapshot_list, workspace_assignments, audit_list, audit_list_workspace};
    for (size_t i = 0; i < COUNT_OF(LISTS); i++) {
        if (route->handler == LISTS[i]) {
            return true;
        }
    }
    return false;
}

static void write_content(const route_t *route, json_writer_t *w)
{
    const char *type = route->handler == file_get         ? "application/octet-stream"
                       : route->handler == system_metrics ? "text/plain"
                                                          : "application/json";
    open_key(w, "content");
    if (!is_sse_only(route)) {
        open_key(w, type);
        if (replies_with_array(route)) {
            open_key(w, "schema");
            pair(w, "type", "array");
            json_write_key(w, "items");
            write_ref(w, route->reply);
            json_write_close_object(w);
        } else if (route->reply) {
            json_write_key(w, "schema");
            write_ref(w, route->reply);
        }
        json_write_close_object(w);
    }
    if (is_sse_only(route) || route->handler == tool_bash || route->handler == process_output) {
        open_key(w, "text/event-stream");
        json_write_close_object(w);
    }
    json_write_close_object(w);
}

static void write_responses(const route_t *route, json_writer_t *w)
{
    char status[8];
    snprintf(status, sizeof status, "%d", route->status);
    open_key(w, "responses");
    open_key(w, status);
    pair(w, "description", "success");
    if (route->status != 204) {
        write_content(route, w);
    }
    json_write_close_object(w);
    open_key(w, "default");
    pair(w, "$ref", "#/components/responses/error");
    json_write_close_object(w);
    json_write_close_object(w);
}

static void write_operation(const route_t *route, json_writer_t *w)
{
    char method[8], id[160];
    size_t n = 0;
    for (; route->method[n] && n + 1 < sizeof method; n++) {
        method[n] = (char)tolower((unsigned char)route->method[n]);
    }
    method[n] = 0;
    operation_id(route, id, sizeof id);
    open_key(w, method);
    pair(w, "operationId", id);
    pair(w, "summary", route->doc);
    if (route->scope == SCOPE_NONE) {
        json_write_key(w, "security");
        json_write_open_array(w);
        json_write_close_array(w);
    } else {
        pair(w, "x-scope", route->scope == SCOPE_WRITE ? "admin:write" : "admin:read");
    }
    write_parameters(route, w);
    write_request_body(route, w);
    write_responses(route, w);
    json_write_close_object(w);
}

static void write_paths(json_writer_t *w)
{
    const route_t *route, *other;
    char path[256];
    open_key(w, "paths");
    for (size_t i = 0; (route = api_route_at(i)); i++) {
        bool is_first = true;
        for (size_t j = 0; j < i && is_first; j++) {
            is_first = strcmp(api_route_at(j)->path, route->path) != 0;
        }
        if (!is_first) {
            continue;
        }
        openapi_path(route->path, path, sizeof path);
        open_key(w, path);
        for (size_t j = i; (other = api_route_at(j)); j++) {
            if (strcmp(other->path, route->path) == 0) {
                write_operation(other, w);
            }
        }
        json_write_close_object(w);
    }
    json_write_close_object(w);
}

/* Marks a message and all that it nests. */
static void mark(unsigned msg_id, uint8_t *marks, uint8_t value, unsigned depth)
{
    const proto_desc_t *desc = proto_desc(msg_id);
    if (!desc || msg_id >= MESSAGE_IDS_MAX || marks[msg_id] || depth > PROTO_DEPTH_MAX) {
        return;
    }
    marks[msg_id] = value;
    for (size_t i = 0; i < desc->field_count; i++) {
        const proto_field_t *f = &desc->fields[i];
        const proto_desc_t *nested =
            f->kind == PROTO_MSG || f->kind == PROTO_MSGS ? proto_desc_by_name(f->extra) : NULL;
        if (nested && !(f->flags & PROTO_HIDE)) {
            mark(nested->id, marks, value, depth + 1);
        }
    }
}

static void write_error_parts(json_writer_t *w)
{
    static const char schema[] = "{\"type\":\"object\",\"required\":[\"error\"],\"properties\":{\"error\":{\"type\":"
                                 "\"object\",\"required\":[\"code\",\"message\"],"
                                 "\"properties\":{\"code\":{\"type\":\"string\"},\"message\":{\"type\":\"string\"},"
                                 "\"details\":{\"type\":\"object\"}}}}}";
    open_key(w, "responses");
    open_key(w, "error");
    pair(w, "description", "what failed, why, and what to do");
    open_key(w, "content");
    open_key(w, "application/json");
    json_write_key(w, "schema");
    json_write_raw(w, schema, sizeof schema - 1);
    json_write_close_object(w);
    json_write_close_object(w);
    json_write_close_object(w);
    json_write_close_object(w);
}

static void write_components(json_writer_t *w)
{
    static const char security[] = "{\"apiKey\":{\"type\":\"apiKey\",\"in\":\"header\",\"name\":\"X-API-Key\"},"
                                   "\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\"}}";
    uint8_t marks[MESSAGE_IDS_MAX] = {0}; /* 1 as a reply, 2 as a request */
    const route_t *route;
    for (size_t i = 0; (route = api_route_at(i)); i++) {
        if (route->body == BODY_JSON) {
            mark(route->request, marks, 2, 0);
        }
    }
    for (size_t i = 0; (route = api_route_at(i)); i++) {
        mark(route->reply, marks, 1, 0);
    }
    open_key(w, "components");
    json_write_key(w, "securitySchemes");
    json_write_raw(w, security, sizeof security - 1);
    write_error_parts(w);
    open_key(w, "schemas");
    for (unsigned id = 0; id < MESSAGE_IDS_MAX; id++) {
        if (marks[id]) {
            json_write_key(w, proto_desc(id)->name);
            proto_json_schema(id, marks[id] == 2, w);
        }
    }
    json_write_close_object(w);
    json_write_close_object(w);
}

void openapi_write(buf_t *out)
{
    static const char security[] = "[{\"apiKey\":[]},{\"bearer\":[]}]";
    json_writer_t w;
    json_writer_init(&w, out);
    json_write_open_object(&w);
    pair(&w, "openapi", "3.1.0");
    open_key(&w, "info");
    pair(&w, "title", "Emergent Workspaces");
    pair(&w, "version", EW_VERSION);
    pair(&w, "description", "Isolated, stateful workspaces for AI agents.");
    open_key(&w, "license");
    pair(&w, "name", "Apache-2.0");
    pair(&w, "identifier", "Apache-2.0");
    json_write_close_object(&w);
    json_write_close_object(&w);
    json_write_key(&w, "security");
    json_write_raw(&w, security, sizeof security - 1);
    write_paths(&w);
    write_components(&w);
    json_write_close_object(&w);
}
