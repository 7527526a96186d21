/* SPDX-License-Identifier: Apache-2.0
 *
 * What the commands share: JSON calls, paths, reading and writing.
 */
#include "cli/cli.h"

#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READ_STEP ((size_t)64 << 10)

int cli_call(cli_t *c, const char *method, const char *path, json_t *body, json_t **reply, err_t **e)
{
    auto_free char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    client_request_t request = {
        .method = method, .path = path, .body = text, .body_len = text != NULL ? strlen(text) : 0};
    request.label = c->command->doc;
    client_reply_t answer;
    *reply = NULL;
    int done = client_perform(c->client, &request, &answer, e);
    if (done == 0 && client_unknown_fields(c->client)[0] != '\0') {
        cli_say("emergent: the gateway does not know these fields and skipped them: %s",
                client_unknown_fields(c->client));
    }
    if (done == 0 && answer.body.len > 0) {
        json_error_t why;
        *reply = json_loadb(buf_cstr(&answer.body), answer.body.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
        if (*reply == NULL) {
            done = err_set(e, ERR_PROTOCOL, "the gateway's answer is not JSON: %s", why.text);
        }
    }
    buf_free(&answer.body);
    return done;
}

char *cli_workspace_path(const cli_t *c, const char *rest)
{
    buf_t path;
    buf_init(&path, 0);
    buf_append_str(&path, "/api/v1/agent/workspaces/");
    client_escape(&path, c->args[0]);
    buf_append_str(&path, rest);
    return buf_steal(&path);
}

void cli_query(buf_t *path, const char *name, const char *value)
{
    buf_append_byte(path, strchr(buf_cstr(path), '?') == NULL ? '?' : '&');
    buf_append_str(path, name);
    buf_append_byte(path, '=');
    client_escape(path, value);
}

void cli_print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    putchar('\n');
}

void cli_say(const char *fmt, ...)
{
    auto_buf buf_t safe;
    va_list args;
    char *text = NULL;
    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    if (len < 0) {
        return;
    }
    buf_init(&safe, 0);
    cli_append_safe(&safe, text, (size_t)len, (size_t)len);
    fprintf(stderr, "%s\n", buf_cstr(&safe));
    free(text);
}

int cli_write(int fd, const void *bytes, size_t len, err_t **e)
{
    const char *at = bytes;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR && !client_is_interrupted()) {
            continue;
        }
        if (n < 0 && errno == EPIPE) {
            _exit(CLI_BROKEN_PIPE); /* closes the connection too, which cancels the call */
        }
        if (n < 0) {
            return err_set_errno(e, ERR_INTERNAL, errno, "the output could not be written");
        }
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int cli_read_all(const char *path, size_t max, buf_t *out, err_t **e)
{
    auto_close int opened = -1;
    int fd = STDIN_FILENO;
    if (strcmp(path, "-") != 0) {
        opened = open(path, O_RDONLY | O_CLOEXEC);
        if (opened < 0) {
            return err_set_errno(e, ERR_BAD_REQUEST, errno, "%s could not be opened", path);
        }
        fd = opened;
    }
    for (;;) {
        uint8_t *room = buf_reserve(out, READ_STEP);
        if (room == NULL) {
            return err_set(e, ERR_PAYLOAD_TOO_LARGE, "%s is too large", path);
        }
        ssize_t n = read(fd, room, READ_STEP);
        if (n == 0) {
            return 0;
        }
        if (n < 0 && errno == EINTR && !client_is_interrupted()) {
            continue;
        }
        if (n < 0) {
            return err_set_errno(e, ERR_BAD_REQUEST, errno, "%s could not be read", path);
        }
        buf_commit(out, (size_t)n);
        if (out->len > max) {
            return err_set(e, ERR_PAYLOAD_TOO_LARGE, "%s is larger than %zu bytes; use `emergent workspace cp`", path,
                           max);
        }
    }
}

void cli_set_bytes(json_t *object, const char *key, const void *bytes, size_t len)
{
    if (utf8_is_valid(bytes, len) && memchr(bytes, 0, len) == NULL) {
        json_object_set_new(object, key, json_stringn(bytes, len));
        return;
    }
    auto_buf buf_t text;
    auto_free char *name = mem_printf("%s_base64", key);
    buf_init(&text, 0);
    base64_encode(&text, bytes, len);
    json_object_set_new(object, name, json_stringn(buf_cstr(&text), text.len));
}

void cli_get_bytes(const json_t *object, const char *key, buf_t *out)
{
    auto_free char *name = mem_printf("%s_base64", key);
    const json_t *encoded = json_object_get(object, name);
    const json_t *plain = json_object_get(object, key);
    if (json_is_string(encoded)) {
        base64_decode(out, json_string_value(encoded), json_string_length(encoded));
    } else if (json_is_string(plain)) {
        buf_append(out, json_string_value(plain), json_string_length(plain));
    }
}
