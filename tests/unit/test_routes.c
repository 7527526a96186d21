/* SPDX-License-Identifier: Apache-2.0
 *
 * The route table: what matches what, and what every row must have.
 */
// LINK: services/gateway/routes.c services/gateway/audit_request.c tests/unit/gateway_handlers.c
#include "services/gateway/api_internal.h"
#include "services/gateway/audit.h"

#include "common/mem.h"

#include <criterion/criterion.h>
#include <string.h>

#define WS "/api/v1/agent/workspaces"

workspace_row_t *workspaces_find(gateway_t *gw, const char *id_text, const caller_t *caller, err_t **e)
{
    (void)gw, (void)caller;
    err_set(e, ERR_NOT_FOUND, "workspace '%s' not found", id_text);
    return NULL;
}

void audit_add(gateway_t *gw, const audit_fields_t *fields)
{
    (void)gw, (void)fields;
}

static const char *params[2];
static char storage[256], allow[64];

static const route_t *match(const char *method, const char *path)
{
    return route_match(method, path, params, storage, sizeof storage, allow, sizeof allow);
}

TestSuite(routes, .timeout = 10);

Test(routes, a_path_finds_its_row_and_its_parameters)
{
    const route_t *route = match("GET", WS "/abc/processes/17/output");
    cr_assert(route && route->verb == VERB_process_output);
    cr_assert_str_eq(params[0], "abc");
    cr_assert_str_eq(params[1], "17");
}

Test(routes, every_row_is_found_by_its_own_pattern)
{
    const route_t *route;
    for (size_t i = 0; (route = api_route_at(i)); i++) {
        cr_assert_eq(match(route->method, route->path), route, "%s %s", route->method, route->path);
        cr_assert_eq(route_index(route), i);
    }
    cr_assert_gt(route_count(), 30);
}

Test(routes, unknown_paths_and_wrong_methods_differ)
{
    static const struct {
        const char *method, *path, *allow;
    } rows[] = {
        {"GET", "/nothing", ""},
        {"GET", WS "x", ""},
        {"GET", WS "/", ""},
        {"GET", WS "//files", ""},
        {"POST", WS "/a/bash/x", ""},
        {"GET", WS "/a/bash", "POST"},
        {"HEAD", WS "/a/bash", "POST"},
        {"POST", WS "/a", "GET, HEAD, DELETE, PATCH"},
        {"DELETE", WS "/providers", "GET, HEAD"},
        {"PATCH", WS "/a/files", "GET, HEAD, PUT, DELETE"},
        {"OPTIONS", WS, "POST, GET, HEAD"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        cr_assert_null(match(rows[i].method, rows[i].path), "%s %s", rows[i].method, rows[i].path);
        cr_assert_str_eq(allow, rows[i].allow, "%s %s", rows[i].method, rows[i].path);
    }
}

Test(routes, head_is_served_wherever_get_is)
{
    const route_t *route = match("HEAD", "/health");
    cr_assert(route && strcmp(route->method, "GET") == 0);
}

Test(routes, a_static_segment_wins_over_a_parameter)
{
    cr_assert_eq(match("GET", WS "/providers")->handler, workspace_providers);
    cr_assert_eq(match("POST", WS "/from-snapshot")->handler, workspace_from_snapshot);
}

Test(routes, an_overlong_parameter_matches_nothing)
{
    char path[400];
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = 0;
    memcpy(path, WS "/", sizeof WS);
    cr_assert_null(match("GET", path));
}

Test(routes, every_row_fits_its_messages_and_scope)
{
    const route_t *route;
    for (size_t i = 0; (route = api_route_at(i)); i++) {
        cr_assert(route->handler && route->doc && route->status >= 200, "%s", route->path);
        bool is_get = strcmp(route->method, "GET") == 0;
        cr_assert(!is_get || route->body == BODY_NONE, "%s", route->path);
        cr_assert(is_get || route->scope == SCOPE_WRITE, "%s %s changes something", route->method, route->path);
        const verb_row_t *verb = route->verb ? verb_row(route->verb) : NULL;
        if (verb) {
            cr_assert_eq(route->request, verb->request, "%s", route->path);
            bool is_special = route->handler == file_watch || verb->reply == MSG_empty;
            cr_assert(is_special || route->reply == verb->reply, "%s", route->path);
        }
    }
}

/* No route gives a terminal, and no message of a route asks for one. */
Test(routes, nothing_offers_a_terminal)
{
    const route_t *route;
    for (size_t i = 0; (route = api_route_at(i)); i++) {
        cr_assert_not(strstr(route->path, "pty") || strstr(route->path, "tty") || strstr(route->path, "terminal"));
        const proto_desc_t *desc = proto_desc(route->request);
        for (size_t f = 0; desc && f < desc->field_count; f++) {
            cr_assert_not(strstr(desc->fields[f].name, "tty") || strstr(desc->fields[f].name, "pty"));
        }
    }
}

static const char *operation(const char *method, const char *path)
{
    const char *name = audit_operation(match(method, path));
    return name == NULL ? "" : name;
}

Test(routes, whatever_touches_a_workspace_or_changes_something_is_audited)
{
    const route_t *route;
    for (size_t i = 0; (route = api_route_at(i)); i++) {
        bool is_of_workspace = strncmp(route->path, WS "/:id", strlen(WS "/:id")) == 0;
        if (is_of_workspace || route->scope == SCOPE_WRITE || route->verb != 0) {
            cr_expect_not_null(audit_operation(route), "%s %s", route->method, route->path);
        }
        if (route->scope == SCOPE_NONE) {
            cr_expect_null(audit_operation(route), "%s %s", route->method, route->path);
        }
    }
    cr_expect_null(audit_operation(NULL));
}

Test(routes, operations_have_names_a_person_can_filter_by)
{
    cr_expect_str_eq(operation("POST", WS), "create");
    cr_expect_str_eq(operation("DELETE", WS "/a"), "delete");
    cr_expect_str_eq(operation("GET", WS "/a"), "show");
    cr_expect_str_eq(operation("POST", WS "/a/bash"), "bash");
    cr_expect_str_eq(operation("POST", WS "/a/exec"), "bash");
    cr_expect_str_eq(operation("PUT", WS "/a/files"), "file_put");
    cr_expect_str_eq(operation("GET", WS "/a/events"), "events");
    cr_expect_str_eq(operation("GET", WS "/a/audit"), "audit");
    cr_expect_str_eq(operation("POST", "/api/v1/admin/api-keys"), "api_key_create");
    cr_expect_str_eq(operation("GET", WS), "");
    cr_expect_str_eq(operation("GET", "/metrics"), "");
}
