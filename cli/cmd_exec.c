/* SPDX-License-Identifier: Apache-2.0
 *
 * workspace exec: the command's output as it comes, its exit code as ours.
 */
#include "cli/follow.h"

#include "common/mem.h"
#include "common/text.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STDIN_MAX ((size_t)32 << 20) /* as bash_request.stdin */

/* One argument is shell text as it stands; several are quoted, so that the shell sees exactly these words. */
static char *make_command(const cli_t *c)
{
    if (c->arg_count == 2) {
        return mem_strdup(c->args[1]);
    }
    buf_t out;
    buf_init(&out, 0);
    for (int i = 1; i < c->arg_count; i++) {
        buf_append_str(&out, i > 1 ? " '" : "'");
        for (const char *s = c->args[i]; *s != '\0'; s++) {
            if (*s == '\'') {
                buf_append_str(&out, "'\\''");
            } else {
                buf_append_byte(&out, (uint8_t)*s);
            }
        }
        buf_append_byte(&out, '\'');
    }
    return buf_steal(&out);
}

static int set_timeout(cli_t *c, json_t *body, err_t **e)
{
    int64_t seconds;
    if (cli_option_int(c, "timeout", 0, &seconds, e) != 0) {
        return -1;
    }
    if (seconds > 0) {
        json_object_set_new(body, "timeout_ms", json_integer(seconds * 1000));
    }
    return 0;
}

static json_t *make_body(cli_t *c, err_t **e)
{
    json_t *body = json_object();
    auto_free char *command = make_command(c);
    json_object_set_new(body, "command", json_string(command));
    const char *names[][2] = {{"workdir", "workdir"}, {"user", "user"}};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const char *value = cli_option(c, names[i][0]);
        if (value != NULL) {
            json_object_set_new(body, names[i][1], json_string(value));
        }
    }
    if (cli_option(c, "background") != NULL) {
        json_object_set_new(body, "run_in_background", json_true());
    }
    bool is_good =
        json_object_get(body, "command") != NULL && set_timeout(c, body, e) == 0 && cli_env_object(c, body, e) == 0;
    if (is_good && cli_option(c, "stdin") != NULL) {
        auto_buf buf_t input;
        buf_init(&input, 0);
        is_good = cli_read_all("-", STDIN_MAX, &input, e) == 0;
        if (is_good) {
            cli_set_bytes(body, "stdin", input.data != NULL ? (const void *)input.data : "", input.len);
        }
    }
    if (!is_good) {
        if (*e == NULL) {
            err_set(e, ERR_BAD_REQUEST, "the command must be UTF-8 text");
        }
        json_decref(body);
        return NULL;
    }
    return body;
}

/* Without streaming: the reply as JSON, or the process id of a background command. */
static int run_unary(cli_t *c, const char *path, json_t *body, err_t **e)
{
    json_t *reply = NULL;
    if (cli_call(c, "POST", path, body, &reply, e) != 0) {
        return -1;
    }
    int code = follow_exit_code(reply);
    if (c->is_json) {
        cli_print_json(reply);
    } else {
        printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(json_object_get(reply, "process_id")));
    }
    json_decref(reply);
    return code;
}

static void tell_about(const json_t *result)
{
    size_t i;
    json_t *warning;
    json_array_foreach(json_object_get(result, "warnings"), i, warning)
    {
        cli_say("emergent: %s", json_string_value(warning));
    }
    if (json_is_true(json_object_get(result, "timed_out"))) {
        fputs("emergent: the command was killed at its timeout; --timeout gives it longer\n", stderr);
    }
    json_int_t left = json_integer_value(json_object_get(result, "process_id"));
    if (left > 0) {
        fprintf(
            stderr,
            "emergent: the command left processes running; see `emergent workspace ps` (process %" JSON_INTEGER_FORMAT
            ")\n",
            left);
    }
}

int cli_workspace_exec(cli_t *c, err_t **e)
{
    auto_free char *path = cli_workspace_path(c, "/bash");
    json_t *body = make_body(c, e);
    if (body == NULL) {
        return -1;
    }
    if (c->is_json || cli_option(c, "background") != NULL) {
        return run_unary(c, path, body, e);
    }
    json_object_set_new(body, "output_encoding", json_string("base64"));
    auto_free char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    follow_t f = {0};
    client_request_t request = {.method = "POST", .path = path, .body = text, .body_len = strlen(text)};
    int done = follow_request(c, &f, &request, e);
    if (done == 0) {
        tell_about(f.result);
        done = follow_exit_code(f.result);
    }
    follow_free(&f);
    return done;
}
