/* SPDX-License-Identifier: Apache-2.0
 *
 * workspace read, write, edit, glob, grep, git.
 */
#include "cli/cli.h"

#include "common/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CONTENT_MAX ((size_t)32 << 20) /* as MAX_CONTENT of the tools */

/* Options that are fields of the same meaning. */
static void set_texts(const cli_t *c, json_t *body, const char *const pairs[][2], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *value = cli_option(c, pairs[i][0]);
        if (value != NULL) {
            json_object_set_new(body, pairs[i][1], json_string(value));
        }
    }
}

static void set_switch(const cli_t *c, json_t *body, const char *option, const char *field)
{
    if (cli_option(c, option) != NULL) {
        json_object_set_new(body, field, json_true());
    }
}

static int set_int(cli_t *c, json_t *body, const char *option, err_t **e)
{
    int64_t value;
    if (cli_option_int(c, option, 0, &value, e) != 0) {
        return -1;
    }
    if (cli_option(c, option) != NULL) {
        json_object_set_new(body, option, json_integer(value));
    }
    return 0;
}

/* Steals body. NULL + *e on failure; with --json the reply is printed already. */
static json_t *call_tool(cli_t *c, const char *tool, json_t *body, err_t **e)
{
    auto_free char *rest = mem_printf("/%s", tool);
    auto_free char *path = cli_workspace_path(c, rest);
    json_t *reply = NULL;
    if (cli_call(c, "POST", path, body, &reply, e) != 0) {
        return NULL;
    }
    if (c->is_json) {
        cli_print_json(reply);
    }
    return reply;
}

static void warn_cut(const json_t *reply, const char *how)
{
    if (json_is_true(json_object_get(reply, "truncated"))) {
        fprintf(stderr, "emergent: the result was cut; %s\n", how);
    }
}

int cli_workspace_read(cli_t *c, err_t **e)
{
    json_t *body = json_object();
    json_object_set_new(body, "file_path", json_string(c->args[1]));
    if (set_int(c, body, "offset", e) != 0 || set_int(c, body, "limit", e) != 0) {
        json_decref(body);
        return -1;
    }
    if (cli_option(c, "raw") != NULL) {
        json_object_set_new(body, "output_encoding", json_string("base64"));
    }
    json_t *reply = call_tool(c, "read", body, e);
    if (reply == NULL) {
        return -1;
    }
    int done = CLI_OK;
    if (!c->is_json) {
        auto_buf buf_t content;
        buf_init(&content, 0);
        cli_get_bytes(reply, "content", &content);
        if (cli_option(c, "raw") == NULL && content.len > 0 && content.data[content.len - 1] != '\n') {
            buf_append_byte(&content, '\n');
        }
        done = cli_write(STDOUT_FILENO, content.data, content.len, e);
        if (json_is_true(json_object_get(reply, "truncated"))) {
            fprintf(stderr, "emergent: cut; go on with --offset %" JSON_INTEGER_FORMAT "\n",
                    json_integer_value(json_object_get(reply, "next_offset")));
        }
    }
    json_decref(reply);
    return done;
}

/* Text of --<name>, or the content of the file named by --<name>-file. */
static int text_or_file(cli_t *c, const char *name, json_t *body, const char *field, err_t **e)
{
    auto_free char *file_option = mem_printf("%s-file", name);
    const char *text = cli_option(c, name);
    const char *file = cli_option(c, file_option);
    auto_buf buf_t content;
    buf_init(&content, 0);
    if (text != NULL && file != NULL) {
        return cli_refuse(c, e, "--%s and --%s exclude each other", name, file_option);
    }
    if (text != NULL) {
        buf_append_str(&content, text);
    } else if (file != NULL && cli_read_all(file, CONTENT_MAX, &content, e) != 0) {
        return -1;
    } else if (file == NULL) {
        return 0;
    }
    cli_set_bytes(body, field, content.data != NULL ? (const void *)content.data : "", content.len);
    return 0;
}

int cli_workspace_write(cli_t *c, err_t **e)
{
    json_t *body = json_object();
    json_object_set_new(body, "file_path", json_string(c->args[1]));
    int done = text_or_file(c, "content", body, "content", e);
    if (done == 0 && cli_option(c, "content") == NULL && cli_option(c, "content-file") == NULL) {
        auto_buf buf_t content;
        buf_init(&content, 0);
        done = cli_read_all("-", CONTENT_MAX, &content, e);
        cli_set_bytes(body, "content", content.data != NULL ? (const void *)content.data : "", content.len);
    }
    if (done != 0) {
        json_decref(body);
        return -1;
    }
    set_switch(c, body, "sync", "sync");
    json_t *reply = call_tool(c, "write", body, e);
    if (reply == NULL) {
        return -1;
    }
    if (!c->is_json) {
        printf("%" JSON_INTEGER_FORMAT " bytes\n", json_integer_value(json_object_get(reply, "bytes_written")));
    }
    json_decref(reply);
    return CLI_OK;
}

int cli_workspace_edit(cli_t *c, err_t **e)
{
    static const char *const texts[][2] = {{"expect-sha256", "expected_sha256"}};
    json_t *body = json_object();
    json_object_set_new(body, "file_path", json_string(c->args[1]));
    if (text_or_file(c, "old", body, "old_string", e) != 0 || text_or_file(c, "new", body, "new_string", e) != 0) {
        json_decref(body);
        return -1;
    }
    set_switch(c, body, "all", "replace_all");
    set_texts(c, body, texts, COUNT_OF(texts));
    json_t *reply = call_tool(c, "edit", body, e);
    if (reply == NULL) {
        return -1;
    }
    if (!c->is_json) {
        printf("%" JSON_INTEGER_FORMAT " replaced\n", json_integer_value(json_object_get(reply, "replacements")));
    }
    json_decref(reply);
    return CLI_OK;
}

int cli_workspace_glob(cli_t *c, err_t **e)
{
    static const char *const texts[][2] = {{"path", "path"}};
    json_t *body = json_object();
    json_object_set_new(body, "pattern", json_string(c->args[1]));
    set_texts(c, body, texts, COUNT_OF(texts));
    set_switch(c, body, "git", "include_git");
    if (set_int(c, body, "limit", e) != 0) {
        json_decref(body);
        return -1;
    }
    json_t *reply = call_tool(c, "glob", body, e);
    if (reply == NULL) {
        return -1;
    }
    size_t i;
    json_t *match;
    json_array_foreach(json_object_get(reply, "matches"), i, match)
    {
        if (!c->is_json) {
            printf("%s\n", json_string_value(match));
        }
    }
    warn_cut(reply, "raise --limit or narrow the pattern");
    json_decref(reply);
    return CLI_OK;
}

/* As grep: exit code 1 when nothing matches. */
int cli_workspace_grep(cli_t *c, err_t **e)
{
    static const char *const texts[][2] = {{"path", "path"}, {"include", "include"}};
    json_t *body = json_object();
    json_object_set_new(body, "pattern", json_string(c->args[1]));
    set_texts(c, body, texts, COUNT_OF(texts));
    set_switch(c, body, "git", "include_git");
    set_switch(c, body, "ignore-case", "ignore_case");
    if (set_int(c, body, "limit", e) != 0) {
        json_decref(body);
        return -1;
    }
    json_t *reply = call_tool(c, "grep", body, e);
    if (reply == NULL) {
        return -1;
    }
    const json_t *matches = json_object_get(reply, "matches");
    size_t i;
    json_t *match;
    json_array_foreach(matches, i, match)
    {
        if (!c->is_json) {
            const char *path = json_string_value(json_object_get(match, "file_path"));
            const char *line = json_string_value(json_object_get(match, "line"));
            printf("%s:%" JSON_INTEGER_FORMAT ":%s\n", path != NULL ? path : "",
                   json_integer_value(json_object_get(match, "line_number")), line != NULL ? line : "");
        }
    }
    int code = json_array_size(matches) > 0 ? CLI_OK : CLI_FAILED;
    warn_cut(reply, "raise --limit or narrow the pattern");
    json_decref(reply);
    return code;
}

int cli_workspace_git(cli_t *c, err_t **e)
{
    static const char *const texts[][2] = {{"message", "message"},         {"branch", "branch"},
                                           {"workdir", "workdir"},         {"user", "user"},
                                           {"author-name", "author_name"}, {"author-email", "author_email"}};
    json_t *body = json_object();
    json_object_set_new(body, "action", json_string(c->args[1]));
    set_texts(c, body, texts, COUNT_OF(texts));
    if (set_int(c, body, "limit", e) != 0) {
        json_decref(body);
        return -1;
    }
    if (c->arg_count > 2) {
        json_t *files = json_array();
        for (int i = 2; i < c->arg_count; i++) {
            json_array_append_new(files, json_string(c->args[i]));
        }
        json_object_set_new(body, "files", files);
    }
    json_t *reply = call_tool(c, "git", body, e);
    if (reply == NULL) {
        return -1;
    }
    int code = (int)(json_integer_value(json_object_get(reply, "exit_code")) & 0xff);
    if (!c->is_json) {
        auto_buf buf_t out;
        auto_buf buf_t errors;
        buf_init(&out, 0);
        buf_init(&errors, 0);
        cli_get_bytes(reply, "output", &out);
        cli_get_bytes(reply, "stderr", &errors);
        if (cli_write(STDOUT_FILENO, out.data, out.len, e) != 0 ||
            cli_write(STDERR_FILENO, errors.data, errors.len, e) != 0) {
            code = -1;
        }
    }
    json_decref(reply);
    return code;
}
