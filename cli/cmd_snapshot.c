/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot create, list, show, delete, restore.
 */
#include "cli/cli.h"

#include "common/mem.h"

#include <stdio.h>

#define SNAPSHOTS "/api/v1/agent/snapshots"

static const cli_column_t list_columns[] = {
    {"ID", "snapshot_id"},          {"STATUS", "status"},      {"NAME", "name"},
    {"WORKSPACE", "workspace_id"},  {"PROVIDER", "provider"},  {"SIZE", "*bytes:size_bytes"},
    {"PROCESSES", "has_processes"}, {"CREATED", "created_at"}, {"EXPIRES", "expires_at"},
};

static const cli_column_t show_fields[] = {
    {"id", "snapshot_id"},
    {"status", "status"},
    {"reason", "failure_reason"},
    {"name", "name"},
    {"description", "description"},
    {"workspace", "workspace_id"},
    {"provider", "provider"},
    {"image", "image"},
    {"network", "network"},
    {"cpu", "resource_limits.cpu"},
    {"memory", "resource_limits.memory"},
    {"disk", "resource_limits.disk"},
    {"size", "*bytes:size_bytes"},
    {"processes", "has_processes"},
    {"stall (ms)", "stall_ms"},
    {"created", "created_at"},
    {"expires", "expires_at"},
    {"warnings", "warnings"},
};

static char *snapshot_path(const char *id)
{
    buf_t path;
    buf_init(&path, 0);
    buf_append_str(&path, SNAPSHOTS "/");
    client_escape(&path, id);
    return buf_steal(&path);
}

/* What was made: its id, or all of it as JSON. */
static void print_made(const cli_t *c, const json_t *made, const char *key)
{
    const char *id = json_string_value(json_object_get(made, key));
    if (c->is_json) {
        cli_print_json(made);
    } else {
        printf("%s\n", id != NULL ? id : "");
        cli_say_warnings(made);
    }
}

int cli_snapshot_create(cli_t *c, err_t **e)
{
    json_t *body = json_object(), *made = NULL;
    cli_set_text(c, body, "name", "name");
    cli_set_text(c, body, "description", "description");
    cli_set_switch(c, body, "without-processes", "without_processes");
    if (cli_set_int(c, body, "ttl", "ttl_seconds", e) != 0) {
        json_decref(body);
        return -1;
    }
    auto_free char *path = cli_workspace_path(c, "/snapshot");
    if (cli_call(c, "POST", path, body, &made, e) != 0) {
        return -1;
    }
    print_made(c, made, "snapshot_id");
    json_decref(made);
    return CLI_OK;
}

int cli_snapshot_list(cli_t *c, err_t **e)
{
    static const char *const filters[][2] = {
        {"workspace", "workspace_id"}, {"provider", "provider"}, {"status", "status"}, {"limit", "limit"}};
    auto_buf buf_t path;
    buf_init(&path, 0);
    buf_append_str(&path, SNAPSHOTS);
    for (size_t i = 0; i < COUNT_OF(filters); i++) {
        if (cli_option(c, filters[i][0]) != NULL) {
            cli_query(&path, filters[i][1], cli_option(c, filters[i][0]));
        }
    }
    json_t *rows = NULL, *row;
    size_t i;
    if (cli_call(c, "GET", buf_cstr(&path), NULL, &rows, e) != 0) {
        return -1;
    }
    if (cli_option(c, "quiet") != NULL) {
        json_array_foreach(rows, i, row)
        {
            const char *id = json_string_value(json_object_get(row, "snapshot_id"));
            printf("%s\n", id != NULL ? id : "");
        }
    } else if (c->is_json) {
        cli_print_json(rows);
    } else {
        cli_print_table(rows, list_columns, COUNT_OF(list_columns));
    }
    json_decref(rows);
    return CLI_OK;
}

int cli_snapshot_show(cli_t *c, err_t **e)
{
    auto_free char *path = snapshot_path(c->args[0]);
    json_t *snapshot = NULL;
    if (cli_call(c, "GET", path, NULL, &snapshot, e) != 0) {
        return -1;
    }
    if (c->is_json) {
        cli_print_json(snapshot);
    } else {
        cli_print_fields(snapshot, show_fields, COUNT_OF(show_fields));
    }
    json_decref(snapshot);
    return CLI_OK;
}

int cli_snapshot_delete(cli_t *c, err_t **e)
{
    for (int i = 0; i < c->arg_count; i++) {
        auto_free char *path = snapshot_path(c->args[i]);
        json_t *reply = NULL;
        if (cli_call(c, "DELETE", path, NULL, &reply, e) != 0) {
            return -1;
        }
        json_decref(reply);
    }
    return CLI_OK;
}

int cli_snapshot_restore(cli_t *c, err_t **e)
{
    json_t *body = json_object(), *made = NULL;
    json_object_set_new(body, "snapshot_id", json_string(c->args[0]));
    cli_set_text(c, body, "provider", "provider");
    cli_set_text(c, body, "session", "agent_session_id");
    cli_set_text(c, body, "mode", "deployment_mode");
    cli_limits_object(c, body);
    if (cli_set_json(c, body, "metadata", "metadata", e) != 0 || cli_env_object(c, body, e) != 0) {
        json_decref(body);
        return -1;
    }
    if (cli_call(c, "POST", "/api/v1/agent/workspaces/from-snapshot", body, &made, e) != 0) {
        return -1;
    }
    print_made(c, made, "id");
    json_decref(made);
    return CLI_OK;
}
