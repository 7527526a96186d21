// SPDX-License-Identifier: Apache-2.0
/* A finished request as a line of the audit. What a route is called there: its verb, else a row of NAMES, else the last
 * word of its path; so that a new route below a workspace cannot be forgotten. */
#include "services/gateway/api_internal.h"
#include "services/gateway/audit.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <stdio.h>
#include <string.h>

#define WS "/api/v1/agent/workspaces"
#define ONE_WS WS "/:id"
#define NAME_MAX_BYTES 64
#define ID_MAX 64

static const struct {
    const char *method, *path, *name; /* name NULL = not audited */
} NAMES[] = {
    {"POST", WS, "create"},
    {"POST", WS "/from-snapshot", "create_from_snapshot"},
    {"GET", ONE_WS, "show"},
    {"DELETE", ONE_WS, "delete"},
    {"PATCH", ONE_WS, "update"},
    {"GET", "/api/v1/agent/snapshots", "snapshot_list"},
    {"GET", "/api/v1/agent/snapshots/:id", "snapshot_show"},
    {"DELETE", "/api/v1/agent/snapshots/:id", "snapshot_delete"},
    {"GET", "/api/v1/agent/audit", "audit"},
    {"GET", "/api/v1/admin/api-keys", "api_key_list"},
    {"POST", "/api/v1/admin/api-keys", "api_key_create"},
    {"DELETE", "/api/v1/admin/api-keys/:id", "api_key_delete"},
    {"GET", "/api/v1/admin/warm-pools", "warm_pools"},
    {"PUT", "/api/v1/admin/warm-pools", "warm_pools_set"},
    {"DELETE", "/api/v1/admin/warm-pools", "warm_pools_reset"},
};

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* "…/:id/tool-x" → "tool_x" */
static const char *last_word(const char *path, char *name, size_t size)
{
    const char *at = strrchr(path, '/');
    snprintf(name, size, "%s", at == NULL ? path : at + 1);
    for (char *c = name; *c != '\0'; c++)
        if (*c == '-')
            *c = '_';
    return name;
}

static const char *find_name(const route_t *route, char *name, size_t size)
{
    if (route->verb != 0) {
        const verb_row_t *verb = verb_row(route->verb);
        snprintf(name, size, "%s", verb->name);
        return name;
    }
    for (size_t i = 0; i < COUNT_OF(NAMES); i++)
        if (strcmp(NAMES[i].method, route->method) == 0 && strcmp(NAMES[i].path, route->path) == 0)
            return NAMES[i].name;
    bool is_of_workspace = starts_with(route->path, ONE_WS "/");
    bool is_change = route->scope == SCOPE_WRITE;
    return is_of_workspace || is_change ? last_word(route->path, name, size) : NULL;
}

const char *audit_operation(const route_t *route)
{
    static char(*names)[NAME_MAX_BYTES]; /* by route_index(), made once for the life of the process */
    if (route == NULL)
        return NULL;
    if (names == NULL) {
        names = mem_alloc_array(route_count(), sizeof(*names));
        for (size_t i = 0; i < route_count(); i++) {
            char made[NAME_MAX_BYTES];
            const char *name = find_name(api_route_at(i), made, sizeof(made));
            snprintf(names[i], sizeof(names[i]), "%s", name == NULL ? "" : name);
        }
    }
    const char *name = names[route_index(route)];
    return name[0] == '\0' ? NULL : name;
}

/* Tools do it themselves (api_ready_workspace). It is done at the head of a request: at its end a destroyed one is
 * gone. One that the caller cannot see leaves no trace in somebody's history. */
void audit_take_workspace(api_request_t *r)
{
    if (r->route->verb != 0 || r->params[0] == NULL || !starts_with(r->route->path, ONE_WS))
        return;
    auto_err err_t *ignored = NULL;
    const workspace_row_t *ws = workspaces_find(r->gw, r->params[0], &r->caller, &ignored);
    if (ws != NULL)
        api_note_workspace(r, ws);
}

/* What was asked; the id of something that is no workspace of this caller belongs to it. */
static const char *summary_of(const api_request_t *r, char *text, size_t size)
{
    const char *rest = r->audit == NULL ? "" : r->audit;
    if (r->params[0] == NULL || r->workspace[0] != '\0')
        return rest;
    const char *id = r->params[0];
    size_t len = strcspn(id, "\r\n\"");
    snprintf(text, size, "id=\"%.*s\"%s%s", (int)utf8_cut(id, len, ID_MAX), id, rest[0] == '\0' ? "" : " ", rest);
    return text;
}

static const char *or_dash(const char *text)
{
    return text[0] == '\0' ? "-" : text;
}

static void write_log(const api_request_t *r, const log_ctx_t *ctx, const char *operation, const char *summary,
                      unsigned long long ms)
{
    bool is_ok = r->status < 400, is_tool = r->route->verb != 0;
    log_write(is_ok ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, ctx,
              "audit: %s operation %s %s=%s workspace=%s session=%s caller=%s status=%d duration_ms=%llu "
              "request={%s}%s%s%s%s",
              is_tool ? "tool" : "lifecycle", is_ok ? "completed" : "failed", is_tool ? "tool" : "operation", operation,
              or_dash(r->workspace), or_dash(r->session), or_dash(r->caller.name), r->status, ms, summary,
              is_ok ? "" : " error=", is_ok ? "" : r->error_code, is_ok ? "" : ": ", is_ok ? "" : r->error_text);
}

/* A request of nobody (401) is in the log only: strangers must not fill the database. */
static void add_line(api_request_t *r, const char *operation, const char *summary, uint64_t ms)
{
    bool is_ok = r->status < 400;
    if (r->caller.owner[0] == '\0')
        return;
    audit_add(r->gw, &(audit_fields_t){
                         .owner = r->caller.owner,
                         .workspace_id = r->workspace,
                         .operation = operation,
                         .method = r->route->method,
                         .status = r->status,
                         .duration_ms = ms,
                         .caller = r->caller.name,
                         .session = r->session,
                         .request_id = r->request_id,
                         .summary = summary,
                         .error_code = is_ok ? NULL : r->error_code,
                         .error = is_ok ? NULL : r->error_text,
                     });
}

void audit_request(api_request_t *r, uint64_t duration_us)
{
    const char *operation = audit_operation(r->route);
    unsigned long long ms = duration_us / 1000;
    bool is_logged = operation != NULL ? log_is_on(LOG_LEVEL_WARN) : log_is_on(LOG_LEVEL_DEBUG);
    char trace[33] = "", text[1200];
    log_ctx_t ctx = {.trace = trace, .sandbox = r->workspace[0] ? r->workspace : NULL, .request = r->request_id};
    if (is_logged)
        hex_encode(trace, r->trace.bytes, sizeof r->trace.bytes);
    if (operation == NULL) {
        if (is_logged)
            log_write(LOG_LEVEL_DEBUG, &ctx, "%s %s %d %llu ms", r->route ? r->route->method : "-",
                      r->route ? r->route->path : "unknown path", r->status, ms);
        return;
    }
    const char *summary = summary_of(r, text, sizeof(text));
    if (is_logged)
        write_log(r, &ctx, operation, summary, ms);
    add_line(r, operation, summary, ms);
}
