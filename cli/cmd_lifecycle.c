/* SPDX-License-Identifier: Apache-2.0
 *
 * workspace stop, resume, attach, detach, fork, set, sessions.
 */
#include "cli/cli.h"

#include "common/mem.h"

#include <stdio.h>

static const cli_column_t session_columns[] = {
    {"SESSION", "agent_session_id"},    {"ATTACHED", "attached_at"}, {"DETACHED", "detached_at"}, {"REASON", "reason"},
    {"DETACH REASON", "detach_reason"},
};

/* Sends it (body stolen) and prints the workspace as it is afterwards. */
static int change(cli_t *c, const char *method, const char *rest, json_t *body, err_t **e)
{
    auto_free char *path = cli_workspace_path(c, rest);
    json_t *workspace = NULL;
    if (cli_call(c, method, path, body, &workspace, e) != 0) {
        return -1;
    }
    if (!c->is_json) {
        cli_say_warnings(workspace);
    }
    if (json_is_object(workspace)) {
        cli_print_workspace(c, workspace);
    }
    json_decref(workspace);
    return CLI_OK;
}

int cli_workspace_stop(cli_t *c, err_t **e)
{
    json_t *body = json_object();
    cli_set_switch(c, body, "without-processes", "without_processes");
    return change(c, "POST", "/stop", body, e);
}

int cli_workspace_resume(cli_t *c, err_t **e)
{
    return change(c, "POST", "/resume", NULL, e);
}

int cli_workspace_attach(cli_t *c, err_t **e)
{
    json_t *body = json_object();
    json_object_set_new(body, "agent_session_id", json_string(c->args[1]));
    cli_set_text(c, body, "reason", "reason");
    return change(c, "POST", "/attach", body, e);
}

int cli_workspace_detach(cli_t *c, err_t **e)
{
    json_t *body = json_object();
    cli_set_text(c, body, "session", "agent_session_id");
    cli_set_text(c, body, "reason", "reason");
    return change(c, "POST", "/detach", body, e);
}

int cli_workspace_set(cli_t *c, err_t **e)
{
    json_t *body = json_object();
    if (cli_set_int(c, body, "ttl", "ttl_seconds", e) != 0 || cli_set_json(c, body, "metadata", "metadata", e) != 0) {
        json_decref(body);
        return -1;
    }
    if (json_object_size(body) == 0) {
        json_decref(body);
        return cli_refuse(c, e, "there is nothing to set: give --ttl or --metadata");
    }
    return change(c, "PATCH", "", body, e);
}

int cli_workspace_fork(cli_t *c, err_t **e)
{
    json_t *body = json_object(), *reply = NULL;
    cli_set_switch(c, body, "without-processes", "without_processes");
    if (cli_set_int(c, body, "count", "count", e) != 0 || cli_set_json(c, body, "metadata", "metadata", e) != 0 ||
        cli_env_object(c, body, e) != 0) {
        json_decref(body);
        return -1;
    }
    auto_free char *path = cli_workspace_path(c, "/fork");
    if (cli_call(c, "POST", path, body, &reply, e) != 0) {
        return -1;
    }
    size_t i;
    json_t *workspace;
    json_array_foreach(json_object_get(reply, "workspaces"), i, workspace)
    {
        const char *id = json_string_value(json_object_get(workspace, "id"));
        if (!c->is_json) {
            printf("%s\n", id != NULL ? id : "");
            cli_say_warnings(workspace);
        }
    }
    if (c->is_json) {
        cli_print_json(reply);
    }
    json_decref(reply);
    return CLI_OK;
}

int cli_workspace_sessions(cli_t *c, err_t **e)
{
    auto_free char *plain = cli_workspace_path(c, "/assignments");
    auto_buf buf_t path;
    buf_init(&path, 0);
    buf_append_str(&path, plain);
    if (cli_option(c, "limit") != NULL) {
        cli_query(&path, "limit", cli_option(c, "limit"));
    }
    json_t *rows = NULL;
    if (cli_call(c, "GET", buf_cstr(&path), NULL, &rows, e) != 0) {
        return -1;
    }
    if (c->is_json) {
        cli_print_json(rows);
    } else {
        cli_print_table(rows, session_columns, COUNT_OF(session_columns));
    }
    json_decref(rows);
    return CLI_OK;
}
