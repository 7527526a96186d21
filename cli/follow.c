/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/follow.h"

#include "cli/sse.h"
#include "common/mem.h"

#include <string.h>
#include <unistd.h>

void follow_free(follow_t *f)
{
    json_decref(f->result);
    err_free(&f->error);
    free(f->last_id);
    *f = (follow_t){0};
}

static void take_output(follow_t *f, const json_t *data, int fd)
{
    auto_buf buf_t bytes;
    buf_init(&bytes, 0);
    cli_get_bytes(data, "data", &bytes);
    cli_write(fd, bytes.data, bytes.len, &f->error);
}

static void take_error(follow_t *f, const json_t *data)
{
    const json_t *inner = json_object_get(data, "error");
    inner = inner != NULL ? inner : data;
    const char *code = json_string_value(json_object_get(inner, "code"));
    const char *message = json_string_value(json_object_get(inner, "message"));
    err_set(&f->error, code != NULL ? err_code_from_name(code) : ERR_PROTOCOL, "%s",
            message != NULL ? message : "the call failed");
}

static bool on_event(void *arg, const char *event, const char *id, const char *data, size_t len)
{
    follow_t *f = arg;
    json_t *json = json_loadb(data, len, JSON_ALLOW_NUL, NULL);
    f->is_progressed = true;
    if (id[0] != '\0') {
        free(f->last_id);
        f->last_id = mem_strdup(id);
    }
    if (strcmp(event, "stdout") == 0) {
        take_output(f, json, STDOUT_FILENO);
    } else if (strcmp(event, "stderr") == 0) {
        take_output(f, json, STDERR_FILENO);
    } else if (strcmp(event, "result") == 0) {
        json_decref(f->result);
        f->result = json_incref(json);
    } else if (strcmp(event, "error") == 0) {
        take_error(f, json);
    }
    json_decref(json);
    return f->error == NULL && f->result == NULL;
}

static bool on_bytes(void *arg, const void *bytes, size_t len)
{
    return sse_feed(arg, bytes, len);
}

int follow_request(cli_t *c, follow_t *f, const client_request_t *request, err_t **e)
{
    sse_t parser;
    client_reply_t reply;
    sse_init(&parser, on_event, f);
    f->is_progressed = false;
    client_request_t streamed = *request;
    streamed.accept = "text/event-stream";
    streamed.on_bytes = on_bytes;
    streamed.arg = &parser;
    streamed.last_event_id = f->last_id;
    int done = client_perform(c->client, &streamed, &reply, e);
    if (done == 0 && f->error != NULL) {
        *e = STEAL_PTR(f->error);
        done = -1;
    } else if (done == 0 && f->result == NULL) {
        done = err_set(e, ERR_PROVIDER_UNAVAILABLE, "the stream ended before the command did");
    }
    buf_free(&reply.body);
    sse_free(&parser);
    return done;
}

int follow_exit_code(const json_t *result)
{
    if (json_is_true(json_object_get(result, "timed_out"))) {
        return CLI_TIMED_OUT;
    }
    return (int)(json_integer_value(json_object_get(result, "exit_code")) & 0xff);
}
