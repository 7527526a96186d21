/* SPDX-License-Identifier: Apache-2.0
 *
 * workspace create, list, show, delete.
 */
#include "cli/cli.h"

#include "cli/progress.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WORKSPACES "/api/v1/agent/workspaces"
#define SERVER_WAIT_MAX_S 60
#define POLL_US 200000

static const cli_column_t list_columns[] = {
    {"ID", "id"},
    {"STATUS", "status"},
    {"PROVIDER", "provider"},
    {"IMAGE", "image"},
    {"TYPE", "container_type"},
    {"SESSION", "agent_session_id"},
    {"CREATED", "created_at"},
    {"LAST USED", "last_used_at"},
};

static const cli_column_t show_fields[] = {
    {"id", "id"},
    {"status", "status"},
    {"reason", "failure_reason"},
    {"provider", "provider"},
    {"image", "image"},
    {"type", "container_type"},
    {"lifecycle", "lifecycle"},
    {"network", "network"},
    {"cpu", "resource_limits.cpu"},
    {"memory", "resource_limits.memory"},
    {"disk", "resource_limits.disk"},
    {"session", "agent_session_id"},
    {"repository", "repository_url"},
    {"branch", "branch"},
    {"created", "created_at"},
    {"last used", "last_used_at"},
    {"expires", "expires_at"},
    {"warnings", "warnings"},
    {"metadata", "metadata"},
};

int cli_env_object(cli_t *c, json_t *body, err_t **e)
{
    json_t *env = json_object();
    size_t at = 0;
    const char *pair;
    while ((pair = cli_option_next(c, "env", &at)) != NULL) {
        const char *equals = strchr(pair, '=');
        if (equals == NULL || equals == pair) {
            json_decref(env);
            return cli_refuse(c, e, "--env must be NAME=value, not '%s'", pair);
        }
        auto_free char *name = mem_strndup(pair, (size_t)(equals - pair));
        json_object_set_new(env, name, json_string(equals + 1));
    }
    if (json_object_size(env) > 0) {
        json_object_set_new(body, "env", env);
    } else {
        json_decref(env);
    }
    return 0;
}

void cli_limits_object(const cli_t *c, json_t *body)
{
    json_t *limits = json_object();
    cli_set_text(c, limits, "cpu", "cpu");
    cli_set_text(c, limits, "memory", "memory");
    cli_set_text(c, limits, "disk", "disk");
    if (json_object_size(limits) > 0) {
        json_object_set(body, "resource_limits", limits);
    }
    json_decref(limits);
}

static json_t *make_create_body(cli_t *c, err_t **e)
{
    json_t *body = json_object();
    json_object_set_new(body, "container_type", json_string("agent_workspace"));
    cli_set_text(c, body, "type", "container_type");
    cli_set_text(c, body, "provider", "provider");
    cli_set_text(c, body, "image", "image");
    cli_set_text(c, body, "network", "network");
    cli_set_text(c, body, "repository", "repository_url");
    cli_set_text(c, body, "branch", "branch");
    cli_set_text(c, body, "mode", "deployment_mode");
    cli_set_text(c, body, "session", "agent_session_id");
    cli_limits_object(c, body);
    if (cli_option(c, "cold") != NULL) {
        json_object_set_new(body, "warm_start", json_false());
    }
    if (cli_set_json(c, body, "metadata", "metadata", e) != 0 ||
        cli_set_json(c, body, "mcp-config", "mcp_config", e) != 0 || cli_env_object(c, body, e) != 0) {
        json_decref(body);
        return NULL;
    }
    return body;
}

static const char *status_of(const json_t *workspace)
{
    const char *status = json_string_value(json_object_get(workspace, "status"));
    return status != NULL ? status : "";
}

/* Asks until it is no longer `creating` or the time is up; replaces *workspace. */
static int wait_ready(cli_t *c, json_t **workspace, uint64_t deadline_ms, err_t **e)
{
    const char *id = json_string_value(json_object_get(*workspace, "id"));
    auto_free char *path = mem_printf(WORKSPACES "/%s", id != NULL ? id : "");
    progress_t progress;
    progress_init(&progress, c->command->doc, -1);
    int done = 0;
    while (done == 0 && strcmp(status_of(*workspace), "creating") == 0) {
        if (clock_monotonic_ms() >= deadline_ms) {
            done =
                err_set(e, ERR_DEADLINE_EXCEEDED, "workspace %s is still being created; see `emergent workspace show`",
                        path + sizeof(WORKSPACES));
            break;
        }
        usleep(POLL_US);
        progress_tick(&progress);
        json_t *now = NULL;
        done = cli_call(c, "GET", path, NULL, &now, e);
        if (done == 0) {
            json_decref(*workspace);
            *workspace = now;
        }
    }
    progress_end(&progress);
    return done;
}

void cli_say_warnings(const json_t *object)
{
    size_t i;
    json_t *warning;
    json_array_foreach(json_object_get(object, "warnings"), i, warning)
    {
        cli_say("warning: %s", json_string_value(warning));
    }
}

int cli_workspace_create(cli_t *c, err_t **e)
{
    int64_t wait_s;
    if (cli_option_int(c, "wait", 120, &wait_s, e) != 0) {
        return -1;
    }
    wait_s = cli_option(c, "no-wait") != NULL || wait_s < 0 ? 0 : wait_s;
    json_t *body = make_create_body(c, e);
    if (body == NULL) {
        return -1;
    }
    int64_t server_wait_s = wait_s < SERVER_WAIT_MAX_S ? wait_s : SERVER_WAIT_MAX_S;
    auto_free char *path = mem_printf(WORKSPACES "?wait=%" PRId64, server_wait_s);
    uint64_t deadline_ms = clock_monotonic_ms() + (uint64_t)wait_s * 1000;
    json_t *workspace = NULL;
    int done = cli_call(c, "POST", path, body, &workspace, e);
    if (done == 0 && wait_s > 0) {
        done = wait_ready(c, &workspace, deadline_ms, e);
    }
    if (done == 0 && c->is_json) {
        cli_print_json(workspace);
    } else if (done == 0) {
        const char *id = json_string_value(json_object_get(workspace, "id"));
        printf("%s\n", id != NULL ? id : "");
        cli_say_warnings(workspace);
    }
    if (done == 0 && strcmp(status_of(workspace), "error") == 0) {
        const char *reason = json_string_value(json_object_get(workspace, "failure_reason"));
        done = err_set(e, ERR_SANDBOX_FAILED, "the workspace could not be made: %s",
                       reason != NULL ? reason : "no reason was given");
    }
    json_decref(workspace);
    return done;
}

int cli_workspace_list(cli_t *c, err_t **e)
{
    static const char *const filters[][2] = {{"status", "status"},
                                             {"provider", "provider"},
                                             {"type", "container_type"},
                                             {"session", "agent_session_id"},
                                             {"limit", "limit"}};
    auto_buf buf_t path;
    buf_init(&path, 0);
    buf_append_str(&path, WORKSPACES);
    for (size_t i = 0; i < COUNT_OF(filters); i++) {
        const char *value = cli_option(c, filters[i][0]);
        if (value != NULL) {
            cli_query(&path, filters[i][1], value);
        }
    }
    json_t *rows = NULL;
    if (cli_call(c, "GET", buf_cstr(&path), NULL, &rows, e) != 0) {
        return -1;
    }
    if (cli_option(c, "quiet") != NULL) {
        size_t i;
        json_t *row;
        json_array_foreach(rows, i, row)
        {
            const char *id = json_string_value(json_object_get(row, "id"));
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

void cli_print_workspace(const cli_t *c, const json_t *workspace)
{
    if (c->is_json) {
        cli_print_json(workspace);
    } else {
        cli_print_fields(workspace, show_fields, COUNT_OF(show_fields));
    }
}

int cli_workspace_show(cli_t *c, err_t **e)
{
    auto_free char *path = cli_workspace_path(c, "");
    json_t *workspace = NULL;
    if (cli_call(c, "GET", path, NULL, &workspace, e) != 0) {
        return -1;
    }
    cli_print_workspace(c, workspace);
    json_decref(workspace);
    return CLI_OK;
}

int cli_workspace_delete(cli_t *c, err_t **e)
{
    char **all = c->args;
    int count = c->arg_count;
    for (int i = 0; i < count; i++) {
        c->args = all + i;
        auto_free char *path = cli_workspace_path(c, cli_option(c, "force") != NULL ? "?force=true" : "");
        c->args = all;
        json_t *reply = NULL;
        if (cli_call(c, "DELETE", path, NULL, &reply, e) != 0) {
            return -1;
        }
        json_decref(reply);
    }
    return CLI_OK;
}
