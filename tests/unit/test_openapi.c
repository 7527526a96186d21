/* SPDX-License-Identifier: Apache-2.0
 *
 * The OpenAPI document against the route table: same operations, and every reference leads somewhere.
 */
// LINK: services/gateway/routes.c services/gateway/openapi.c tests/unit/gateway_handlers.c
#include "services/gateway/api_internal.h"

#include "common/mem.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <string.h>

static json_t *document;

static void set_up(void)
{
    buf_t text;
    json_error_t at;
    buf_init(&text, 0);
    openapi_write(&text);
    document = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &at);
    cr_assert(document, "%s at %d", at.text, at.position);
    buf_free(&text);
}

static void tear_down(void)
{
    json_decref(document);
}

TestSuite(openapi, .init = set_up, .fini = tear_down, .timeout = 10);

Test(openapi, it_is_a_3_1_document)
{
    cr_assert_str_eq(json_string_value(json_object_get(document, "openapi")), "3.1.0");
}

static void braces(const char *path, char *out, size_t size)
{
    size_t n = 0;
    for (const char *at = path; *at && n + 3 < size;) {
        if (*at != ':') {
            out[n++] = *at++;
            continue;
        }
        out[n++] = '{';
        for (at++; *at && *at != '/';) {
            out[n++] = *at++;
        }
        out[n++] = '}';
    }
    out[n] = 0;
}

Test(openapi, every_route_is_an_operation_and_nothing_else_is)
{
    const route_t *route;
    size_t routes = 0, operations = 0;
    json_t *paths = json_object_get(document, "paths"), *item, *operation;
    const char *key, *method_key;
    for (; (route = api_route_at(routes)); routes++) {
        char path[256], method[8] = "";
        braces(route->path, path, sizeof path);
        for (size_t i = 0; route->method[i]; i++) {
            method[i] = (char)tolower((unsigned char)route->method[i]);
        }
        json_t *found = json_object_get(json_object_get(paths, path), method);
        cr_assert(found, "%s %s", method, path);
        cr_assert_str_eq(json_string_value(json_object_get(found, "summary")), route->doc);
        bool is_open = json_array_size(json_object_get(found, "security")) == 0 && json_object_get(found, "security");
        cr_assert_eq(is_open, route->scope == SCOPE_NONE);
        cr_assert_eq(json_object_get(found, "requestBody") != NULL, route->body != BODY_NONE);
    }
    json_object_foreach(paths, key, item)
    {
        json_object_foreach(item, method_key, operation)
        {
            operations++;
        }
    }
    cr_assert_eq(operations, routes);
}

Test(openapi, path_parameters_are_declared_and_operation_ids_are_unique)
{
    json_t *paths = json_object_get(document, "paths"), *item, *operation, *parameter, *ids = json_object();
    const char *key, *method;
    json_object_foreach(paths, key, item)
    {
        json_object_foreach(item, method, operation)
        {
            size_t i, declared = 0, expected = 0;
            for (const char *at = key; (at = strchr(at, '{')); at++) {
                expected++;
            }
            json_array_foreach(json_object_get(operation, "parameters"), i, parameter)
            {
                declared += strcmp(json_string_value(json_object_get(parameter, "in")), "path") == 0;
            }
            cr_assert_eq(declared, expected, "%s", key);
            const char *id = json_string_value(json_object_get(operation, "operationId"));
            cr_assert_null(json_object_get(ids, id), "%s", id);
            json_object_set_new(ids, id, json_true());
        }
    }
    json_decref(ids);
}

static bool has_parameter(const char *path, const char *method, const char *name)
{
    json_t *item = json_object_get(json_object_get(document, "paths"), path), *parameter;
    size_t i;
    json_array_foreach(json_object_get(json_object_get(item, method), "parameters"), i, parameter)
    {
        if (strcmp(json_string_value(json_object_get(parameter, "name")), name) == 0) {
            return true;
        }
    }
    return false;
}

Test(openapi, query_parameters_are_declared)
{
    static const char *filters[] = {"container_type", "provider", "status", "agent_session_id", "limit", "cursor"};
    for (size_t i = 0; i < COUNT_OF(filters); i++) {
        cr_assert(has_parameter("/api/v1/agent/workspaces", "get", filters[i]), "%s", filters[i]);
    }
    cr_assert(has_parameter("/api/v1/agent/workspaces", "post", "wait"));
    cr_assert(has_parameter("/api/v1/agent/workspaces/{id}/files", "get", "path"));
    static const char *pages[] = {"/api/v1/agent/workspaces/{id}/assignments", "/api/v1/agent/workspaces/{id}/audit",
                                  "/api/v1/agent/audit", "/api/v1/agent/snapshots"};
    for (size_t i = 0; i < COUNT_OF(pages); i++) {
        cr_assert(has_parameter(pages[i], "get", "limit") && has_parameter(pages[i], "get", "cursor"), "%s", pages[i]);
    }
    static const char *audit[] = {"operation", "status", "from", "to", "agent_session_id"};
    for (size_t i = 0; i < COUNT_OF(audit); i++) {
        cr_assert(has_parameter(pages[1], "get", audit[i]) && has_parameter(pages[2], "get", audit[i]), "%s", audit[i]);
    }
    cr_assert(has_parameter("/api/v1/agent/audit", "get", "all_owners"));
}

/* A list is an array of its message, as it is sent. */
Test(openapi, lists_are_arrays)
{
    static const char *lists[] = {"/api/v1/agent/workspaces",
                                  "/api/v1/agent/workspaces/providers",
                                  "/api/v1/agent/workspaces/{id}/assignments",
                                  "/api/v1/agent/workspaces/{id}/audit",
                                  "/api/v1/agent/audit",
                                  "/api/v1/agent/snapshots"};
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        json_t *path = json_object_get(json_object_get(document, "paths"), lists[i]), *schema = NULL;
        cr_assert_eq(json_unpack(path, "{s:{s:{s:{s:{s:{s:o}}}}}}", "get", "responses", "200", "content",
                                 "application/json", "schema", &schema),
                     0, "%s", lists[i]);
        const char *type = json_string_value(json_object_get(schema, "type"));
        cr_assert(type && strcmp(type, "array") == 0, "%s", lists[i]);
    }
}

static void check_refs(const json_t *node)
{
    json_t *schemas = json_object_get(json_object_get(document, "components"), "schemas"), *child;
    const char *key, prefix[] = "#/components/schemas/";
    size_t i;
    if (json_is_array(node)) {
        json_array_foreach(node, i, child)
        {
            check_refs(child);
        }
    }
    json_object_foreach((json_t *)(uintptr_t)node, key, child)
    {
        const char *ref = strcmp(key, "$ref") == 0 ? json_string_value(child) : NULL;
        if (ref && strncmp(ref, prefix, sizeof prefix - 1) == 0) {
            cr_assert(json_object_get(schemas, ref + sizeof prefix - 1), "%s", ref);
        }
        check_refs(child);
    }
}

Test(openapi, every_reference_leads_to_a_schema)
{
    check_refs(document);
    cr_assert(json_object_get(json_object_get(json_object_get(document, "components"), "schemas"), "bash_request"));
}
