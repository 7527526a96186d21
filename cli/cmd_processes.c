/* SPDX-License-Identifier: Apache-2.0
 *
 * workspace ps, logs, kill: the background processes of a workspace.
 */
#include "cli/follow.h"

#include "common/clock.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RECONNECTS_MAX 10 /* in a row without a single event */
#define RECONNECT_US 300000

static const cli_column_t process_columns[] = {
    {"PROCESS", "process_id"},
    {"PID", "pid"},
    {"STATE", "state"},
    {"EXIT", "exit_code"},
    {"STARTED", "*time:started_at_ms"},
    {"TREE", "process_count"},
    {"TAG", "tag"},
    {"COMMAND", "command"},
};

int cli_workspace_ps(cli_t *c, err_t **e)
{
    auto_free char *path = cli_workspace_path(c, "/processes");
    json_t *reply = NULL;
    if (cli_call(c, "GET", path, NULL, &reply, e) != 0) {
        return -1;
    }
    if (c->is_json) {
        cli_print_json(reply);
    } else {
        cli_print_table(json_object_get(reply, "processes"), process_columns, COUNT_OF(process_columns));
    }
    json_decref(reply);
    return CLI_OK;
}

static char *process_path(const cli_t *c, const char *rest)
{
    auto_buf buf_t part;
    buf_init(&part, 0);
    buf_append_str(&part, "/processes/");
    client_escape(&part, c->args[1]);
    buf_append_str(&part, rest);
    return cli_workspace_path(c, buf_cstr(&part));
}

/* Follows until the end; a broken connection is taken up again where it broke, so nothing is lost or shown twice. */
static int follow_output(cli_t *c, err_t **e)
{
    auto_free char *path = process_path(c, "/output?output_encoding=base64");
    follow_t f = {0};
    int done;
    for (int tries = 0;; tries++) {
        client_request_t request = {.method = "GET", .path = path};
        done = follow_request(c, &f, &request, e);
        bool may_retry = done != 0 && err_code(*e) == ERR_PROVIDER_UNAVAILABLE && !client_is_interrupted();
        tries = f.is_progressed ? 0 : tries;
        if (!may_retry || tries >= RECONNECTS_MAX) {
            break;
        }
        err_free(e);
        usleep(RECONNECT_US);
    }
    int code = done == 0 ? follow_exit_code(f.result) : -1;
    follow_free(&f);
    return code;
}

/* All there is now, page by page. */
static int print_output(cli_t *c, err_t **e)
{
    json_int_t out_at = 0;
    json_int_t err_at = 0;
    for (;;) {
        auto_free char *query =
            mem_printf("/output?output_encoding=base64&limit=1048576&stdout_offset=%" JSON_INTEGER_FORMAT
                       "&stderr_offset=%" JSON_INTEGER_FORMAT,
                       out_at, err_at);
        auto_free char *path = process_path(c, query);
        json_t *reply = NULL;
        if (cli_call(c, "GET", path, NULL, &reply, e) != 0) {
            return -1;
        }
        auto_buf buf_t out;
        auto_buf buf_t errors;
        buf_init(&out, 0);
        buf_init(&errors, 0);
        cli_get_bytes(reply, "stdout", &out);
        cli_get_bytes(reply, "stderr", &errors);
        out_at = json_integer_value(json_object_get(reply, "stdout_next"));
        err_at = json_integer_value(json_object_get(reply, "stderr_next"));
        json_decref(reply);
        if (out.len == 0 && errors.len == 0) {
            return CLI_OK;
        }
        if (cli_write(STDOUT_FILENO, out.data, out.len, e) != 0 ||
            cli_write(STDERR_FILENO, errors.data, errors.len, e) != 0) {
            return -1;
        }
    }
}

int cli_workspace_logs(cli_t *c, err_t **e)
{
    return cli_option(c, "follow") != NULL ? follow_output(c, e) : print_output(c, e);
}

int cli_workspace_kill(cli_t *c, err_t **e)
{
    const char *signal_name = cli_option(c, "signal");
    json_t *body = json_object();
    json_object_set_new(body, "signal", json_string(signal_name != NULL ? signal_name : "SIGTERM"));
    json_object_set_new(body, "tree", json_boolean(cli_option(c, "only-first") == NULL));
    auto_free char *path = process_path(c, "/signal");
    json_t *reply = NULL;
    if (cli_call(c, "POST", path, body, &reply, e) != 0) {
        return -1;
    }
    json_decref(reply);
    return CLI_OK;
}
