// SPDX-License-Identifier: Apache-2.0
#include "proto/proto_json.h"

#include "common/mem.h"
#include "proto/messages.h"
#include "proto/verbs.h"

#include <criterion/criterion.h>

static buf_t out;
static buf_t unknown;
static err_t *e;

static void start(void)
{
    buf_init(&out, 0);
    buf_init(&unknown, 0);
    e = NULL;
}

static void stop(void)
{
    buf_free(&out);
    buf_free(&unknown);
    err_free(&e);
}

TestSuite(proto_json, .init = start, .fini = stop, .timeout = 20);

static int from_json(unsigned id, const char *text)
{
    json_t *object = json_loads(text, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
    cr_assert_not_null(object, "%s", text);
    int result = proto_from_json(id, object, &out, &unknown, &e);
    json_decref(object);
    return result;
}

/* The message as JSON text; "" if that failed. */
static char *to_json(unsigned id, const buf_t *bytes, unsigned flags)
{
    auto_buf buf_t text;
    json_writer_t w;
    buf_init(&text, 0);
    json_writer_init(&w, &text);
    if (proto_to_json(id, bytes->data, bytes->len, flags, &w, &e) != 0)
        cr_assert_eq(text.len, 0);
    return buf_steal(&text);
}

Test(proto_json, a_body_becomes_a_message)
{
    struct bash_request request;
    proto_iter_t it;
    const char *key, *value;
    cr_assert_eq(from_json(MSG_bash_request, "{\"command\":\"ls\",\"timeout_ms\":5,\"env\":{\"A\":\"1\",\"B\":\"\"},"
                                             "\"stdin\":\"\\u00fc\",\"run_in_background\":true,\"user\":null}"),
                 0, "%s", err_message(e));
    cr_assert_eq(proto_decode(MSG_bash_request, &request, out.data, out.len, &e), 0, "%s", err_message(e));
    cr_assert_str_eq(request.command, "ls");
    cr_assert_eq(request.timeout_ms, 5);
    cr_assert(request.run_in_background);
    cr_assert_null(request.user);
    cr_assert_arr_eq(request.stdin.data, "\xc3\xbc", 2);
    it = proto_iter_map(&request.env);
    cr_assert(proto_iter_str(&it, &key) && proto_iter_str(&it, &value));
    cr_assert_str_eq(key, "A");
    cr_assert_str_eq(value, "1");
}

Test(proto_json, base64_gives_bytes_that_are_not_text)
{
    struct edit_request request;
    cr_assert_eq(from_json(MSG_edit_request,
                           "{\"file_path\":\"f\",\"old_string_base64\":\"/wA=\",\"new_string_base64\":\"AP8=\"}"),
                 0);
    cr_assert_eq(proto_decode(MSG_edit_request, &request, out.data, out.len, &e), 0);
    cr_assert_eq(request.old_string.len, 2);
    cr_assert_arr_eq(request.old_string.data, "\xff\0", 2);
    cr_assert_arr_eq(request.new_string.data, "\0\xff", 2);
}

Test(proto_json, empty_base64_is_present_and_empty)
{
    struct write_request request;
    cr_assert_eq(from_json(MSG_write_request, "{\"file_path\":\"f\",\"content_base64\":\"\"}"), 0);
    cr_assert_eq(proto_decode(MSG_write_request, &request, out.data, out.len, &e), 0);
    cr_assert(request.has.content);
    cr_assert_eq(request.content.len, 0);
}

Test(proto_json, a_nul_is_fine_in_bytes)
{
    struct write_request request;
    cr_assert_eq(from_json(MSG_write_request, "{\"file_path\":\"f\",\"content\":\"a\\u0000b\"}"), 0);
    cr_assert_eq(proto_decode(MSG_write_request, &request, out.data, out.len, &e), 0);
    cr_assert_eq(request.content.len, 3);
}

Test(proto_json, bad_bodies_are_refused_in_words)
{
    static const struct {
        unsigned id;
        const char *json;
        const char *message;
    } rows[] = {
        {MSG_bash_request, "[]", "the body must be a JSON object"},
        {MSG_bash_request, "\"x\"", "the body must be a JSON object"},
        {MSG_bash_request, "{}", "command is required"},
        {MSG_bash_request, "{\"command\":null}", "command is required"},
        {MSG_bash_request, "{\"command\":\"\"}", "command is required"},
        {MSG_bash_request, "{\"Command\":\"x\"}", "command is required"},
        {MSG_bash_request, "{\"command\":5}", "command must be a string"},
        {MSG_bash_request, "{\"command\":[\"x\"]}", "command must be a string"},
        {MSG_bash_request, "{\"command\":\"a\\u0000b\"}", "command must not contain NUL characters"},
        {MSG_bash_request, "{\"command\":\"x\",\"timeout_ms\":\"5\"}", "timeout_ms must be a whole number"},
        {MSG_bash_request, "{\"command\":\"x\",\"timeout_ms\":1.5}", "timeout_ms must be a whole number"},
        {MSG_bash_request, "{\"command\":\"x\",\"timeout_ms\":86400001}", "timeout_ms must not be above 86400000"},
        {MSG_bash_request, "{\"command\":\"x\",\"timeout_ms\":-86400001}", "timeout_ms must not be below -86400000"},
        {MSG_bash_request, "{\"command\":\"x\",\"run_in_background\":1}", "run_in_background must be true or false"},
        {MSG_bash_request, "{\"command\":\"x\",\"env\":[]}", "env must be an object of strings"},
        {MSG_bash_request, "{\"command\":\"x\",\"env\":{\"A\":1}}", "env must be an object of strings"},
        {MSG_bash_request, "{\"command\":\"x\",\"env\":{\"A\":\"a\\u0000\"}}", "env must not contain NUL characters"},
        {MSG_bash_request, "{\"command\":\"x\",\"output_encoding\":\"latin1\"}",
         "output_encoding must be one of: utf-8 base64"},
        {MSG_bash_request, "{\"command\":\"x\",\"stdin\":7}", "stdin must be a string"},
        {MSG_bash_request, "{\"command\":\"x\",\"stdin\":\"a\",\"stdin_base64\":\"YQ==\"}",
         "give either stdin or stdin_base64, not both"},
        {MSG_bash_request, "{\"command\":\"x\",\"stdin_base64\":\"a b\"}", "stdin is not valid base64"},
        {MSG_edit_request, "{\"file_path\":\"f\"}", "old_string is required"},
        {MSG_edit_request, "{\"file_path\":\"f\",\"old_string\":\"\"}", "old_string is required"},
        {MSG_edit_request, "{\"file_path\":\"f\",\"old_string_base64\":\"\"}", "old_string is required"},
        {MSG_write_request, "{\"file_path\":\"f\",\"mode\":-1}", "mode must not be negative"},
        {MSG_write_request, "{\"file_path\":\"f\",\"mode\":4096}", "mode must not be above 4095"},
        {MSG_git_request, "{\"action\":\"add\",\"files\":\"x\"}", "files must be an array of strings"},
        {MSG_git_request, "{\"action\":\"add\",\"files\":[\"x\",null]}", "files must be an array of strings"},
        {MSG_process_start_request, "{}", "argv is required"},
        {MSG_process_signal_request, "{\"process_id\":4294967296,\"signal\":\"TERM\"}",
         "process_id must not be above 4294967295"},
        {MSG_workspace_create, "{\"resource_limits\":[]}", "resource_limits must be an object"},
        {MSG_workspace_create, "{\"resource_limits\":{\"cpu\":2}}", "resource_limits.cpu must be a string"},
        {MSG_workspace_create, "{\"resource_limits\":{\"cpu\":\"12345678901234567\"}}",
         "resource_limits.cpu is longer than 16 bytes"},
        {MSG_workspace_create, "{\"metadata\":\"x\"}", "metadata must be an object"},
        {MSG_workspace_create, "{\"env\":{\"SECRET\":5}}", "env must be an object of strings"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        buf_reset(&out);
        cr_expect_eq(from_json(rows[i].id, rows[i].json), -1, "%s", rows[i].json);
        cr_expect_str_eq(err_message(e), rows[i].message);
        cr_expect_eq(err_code(e), ERR_BAD_REQUEST);
        cr_expect_eq(out.len, 0);
        err_free(&e);
    }
}

Test(proto_json, an_empty_choice_is_an_absent_one)
{
    struct workspace_create create;
    cr_assert_eq(from_json(MSG_workspace_create, "{\"network\":\"\",\"deployment_mode\":\"\",\"image\":\"\"}"), 0);
    cr_assert_eq(proto_decode(MSG_workspace_create, &create, out.data, out.len, &e), 0);
    cr_assert_null(create.network);
    cr_assert_null(create.deployment_mode);
    cr_assert_str_eq(create.image, "");
}

Test(proto_json, limits_of_lists_maps_and_json_are_told)
{
    json_t *object = json_pack("{s:s, s:o, s:o}", "action", "add", "files", json_array(), "x", json_object());
    json_t *files = json_object_get(object, "files");
    for (int i = 0; i < 4097; i++)
        json_array_append_new(files, json_string("f"));
    cr_assert_eq(proto_from_json(MSG_git_request, object, &out, NULL, &e), -1);
    cr_assert_str_eq(err_message(e), "files has more than 4096 elements");
    err_free(&e);
    auto_free char *longest = mem_alloc(20001);
    memset(longest, 'x', 20000);
    json_array_clear(files);
    json_array_append_new(files, json_string(longest));
    cr_assert_eq(proto_from_json(MSG_git_request, object, &out, NULL, &e), -1);
    cr_assert_str_eq(err_message(e), "files has an element longer than 8192 bytes");
    json_decref(object);
    err_free(&e);
    object = json_pack("{s:{s:s}}", "metadata", "k", longest);
    cr_assert_eq(proto_from_json(MSG_workspace_create, object, &out, NULL, &e), -1);
    cr_assert_str_eq(err_message(e), "metadata is longer than 16384 bytes of JSON");
    json_decref(object);
}

Test(proto_json, unknown_fields_are_skipped_and_named)
{
    cr_assert_eq(
        from_json(
            MSG_bash_request,
            "{\"command\":\"x\",\"foo\":1,\"stream\":true,\"a,b\\n\":2,\"stdin_base64\":\"\",\"command_base64\":\"\"}"),
        0, "%s", err_message(e));
    cr_assert_str_eq(buf_cstr(&unknown), "foo,stream,a?b?,command_base64", "hidden fields are unknown too");
    buf_reset(&unknown);
    cr_assert_eq(from_json(MSG_workspace_create,
                           "{\"resource_limits\":{\"gpu\":\"1\"},\"1\":0,\"2\":0,\"3\":0,\"4\":0,\"5\":0,\"6\":0,"
                           "\"7\":0,\"8\":0,\"9\":0,\"10\":0,\"11\":0}"),
                 0);
    cr_assert_str_eq(buf_cstr(&unknown), "resource_limits.gpu,1,2,3,4,5,6,7,8,9");
}

Test(proto_json, a_reply_becomes_a_body_in_row_order)
{
    struct bash_reply reply = {.stdout = {"out\n", 4}, .exit_code = -1, .duration_ms = 12, .timed_out = true};
    cr_assert_eq(proto_encode(MSG_bash_reply, &reply, &out, &e), 0);
    auto_free char *text = to_json(MSG_bash_reply, &out, 0);
    cr_assert_str_eq(
        text, "{\"stdout\":\"out\\n\",\"stderr\":\"\",\"exit_code\":-1,\"duration_ms\":12,\"stdout_total_bytes\":0,"
              "\"stderr_total_bytes\":0,\"timed_out\":true}");
}

Test(proto_json, bytes_that_are_no_text_are_marked_or_encoded)
{
    struct bash_reply reply = {.stdout = {"a\xff", 2}};
    cr_assert_eq(proto_encode(MSG_bash_reply, &reply, &out, &e), 0);
    auto_free char *text = to_json(MSG_bash_reply, &out, 0);
    cr_assert_eq(strncmp(text, "{\"stdout\":\"a\xef\xbf\xbd\",\"stdout_lossy\":true,\"stderr\":\"\",", 48), 0, "%s",
                 text);
    auto_free char *base64 = to_json(MSG_bash_reply, &out, PROTO_JSON_BASE64);
    cr_assert_eq(strncmp(base64, "{\"stdout_base64\":\"Yf8=\",\"stderr_base64\":\"\",", 43), 0, "%s", base64);
}

Test(proto_json, absent_fields_have_their_empty_forms)
{
    struct workspace none = {.id = NULL};
    struct sandbox_list_reply list = {.has = {true}};
    cr_assert_eq(proto_encode(MSG_workspace, &none, &out, &e), 0);
    auto_free char *text = to_json(MSG_workspace, &out, 0);
    cr_assert_str_eq(text, "{\"id\":\"\",\"container_type\":\"\",\"provider\":\"\",\"provider_workspace_id\":\"\","
                           "\"deployment_mode\":\"\","
                           "\"lifecycle\":\"\",\"status\":\"\",\"created_at\":\"\",\"last_used_at\":\"\"}");
    buf_reset(&out);
    cr_assert_eq(proto_encode(MSG_sandbox_list_reply, &list, &out, &e), 0);
    auto_free char *empty = to_json(MSG_sandbox_list_reply, &out, 0);
    cr_assert_str_eq(empty, "{\"sandboxes\":[]}");
}

Test(proto_json, nested_messages_lists_and_maps)
{
    auto_buf buf_t sandboxes, labels;
    buf_init(&sandboxes, 0);
    buf_init(&labels, 0);
    proto_list_add_str(&labels, "owner");
    proto_list_add_str(&labels, "a\"b");
    struct sandbox_info info = {.id = "i", .state = "ready", .labels = proto_list_of(1, &labels)};
    cr_assert_eq(proto_list_add_msg(&sandboxes, MSG_sandbox_info, &info, &e), 0);
    struct sandbox_list_reply reply = {.sandboxes = proto_list_of(1, &sandboxes)};
    cr_assert_eq(proto_encode(MSG_sandbox_list_reply, &reply, &out, &e), 0);
    auto_free char *text = to_json(MSG_sandbox_list_reply, &out, 0);
    cr_assert_str_eq(
        text, "{\"sandboxes\":[{\"id\":\"i\",\"state\":\"ready\",\"image\":\"\",\"labels\":{\"owner\":\"a\\\"b\"},"
              "\"created_at_ms\":0,\"reason\":\"\"}]}");
}

Test(proto_json, json_from_a_sandbox_cannot_break_out)
{
    static const char *const rows[][2] = {
        {"{\"a\": 1}", "{\"code\":\"c\",\"message\":\"m\",\"details\":{\"a\":1}}"},
        {"{}\n\ndata: x", "{\"code\":\"c\",\"message\":\"m\"}"},
        {"1},\"admin\":true,\"x\":{", "{\"code\":\"c\",\"message\":\"m\"}"},
        {"{\"a\":\n\n1}", "{\"code\":\"c\",\"message\":\"m\",\"details\":{\"a\":1}}"},
        {"", "{\"code\":\"c\",\"message\":\"m\"}"},
        {"{\"a\":\"\\u0000\"}", "{\"code\":\"c\",\"message\":\"m\",\"details\":{\"a\":\"\\u0000\"}}"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct error error = {.code = "c", .message = "m", .details = rows[i][0]};
        buf_reset(&out);
        cr_assert_eq(proto_encode(MSG_error, &error, &out, &e), 0);
        auto_free char *text = to_json(MSG_error, &out, 0);
        cr_expect_str_eq(text, rows[i][1]);
    }
}

Test(proto_json, a_bad_reply_is_the_peers_fault)
{
    buf_append(&out, "\x91\x05zzz", 5);
    auto_free char *text = to_json(MSG_bash_reply, &out, 0);
    cr_assert_str_eq(text, "");
    cr_assert_eq(err_code(e), ERR_PROTOCOL);
}

Test(proto_json, fields_join_an_open_object)
{
    auto_buf buf_t text;
    json_writer_t w;
    struct process_ref ref = {.process_id = 7};
    buf_init(&text, 0);
    json_writer_init(&w, &text);
    cr_assert_eq(proto_encode(MSG_process_ref, &ref, &out, &e), 0);
    json_write_open_object(&w);
    json_write_key(&w, "before");
    json_write_bool(&w, true);
    cr_assert_eq(proto_to_json_fields(MSG_process_ref, out.data, out.len, 0, &w, &e), 0);
    json_write_key(&w, "after");
    json_write_bool(&w, true);
    json_write_close_object(&w);
    cr_assert_str_eq(buf_cstr(&text), "{\"before\":true,\"process_id\":7,\"after\":true}");
}

static json_t *schema(unsigned id, bool is_request)
{
    auto_buf buf_t text;
    json_writer_t w;
    buf_init(&text, 0);
    json_writer_init(&w, &text);
    proto_json_schema(id, is_request, &w);
    json_t *object = json_loads(buf_cstr(&text), JSON_REJECT_DUPLICATES, NULL);
    cr_assert_not_null(object, "%s", buf_cstr(&text));
    return object;
}

Test(proto_json, schemas_say_what_is_required_and_allowed)
{
    json_t *request = schema(MSG_edit_request, true);
    json_t *reply = schema(MSG_bash_reply, false);
    json_t *create = schema(MSG_workspace_create, true);
    auto_free char *required = json_dumps(json_object_get(request, "required"), JSON_COMPACT);
    auto_free char *either = json_dumps(json_object_get(request, "allOf"), JSON_COMPACT);
    cr_assert_str_eq(required, "[\"file_path\"]");
    cr_assert_str_eq(either, "[{\"oneOf\":[{\"required\":[\"old_string\"]},{\"required\":[\"old_string_base64\"]}]}]");
    cr_assert_not_null(json_object_get(json_object_get(request, "properties"), "new_string_base64"));
    cr_assert_not_null(json_object_get(json_object_get(reply, "properties"), "stdout_lossy"));
    auto_free char *network =
        json_dumps(json_object_get(json_object_get(create, "properties"), "network"), JSON_COMPACT);
    cr_assert_not_null(strstr(network, "\"enum\":[\"none\",\"full\"]"));
    auto_free char *limits =
        json_dumps(json_object_get(json_object_get(create, "properties"), "resource_limits"), JSON_COMPACT);
    cr_assert_not_null(strstr(limits, "#/components/schemas/resource_limits"));
    json_decref(request);
    json_decref(reply);
    json_decref(create);
}

Test(proto_json, every_message_has_valid_schemas_without_hidden_fields)
{
    for (size_t i = 0; i < proto_desc_count(); i++) {
        const proto_desc_t *d = proto_desc_at(i);
        for (int is_request = 0; is_request < 2; is_request++) {
            json_t *object = schema(d->id, is_request);
            for (size_t j = 0; j < d->field_count; j++) {
                bool is_shown = json_object_get(json_object_get(object, "properties"), d->fields[j].name) != NULL;
                cr_expect_eq(is_shown, !(d->fields[j].flags & PROTO_HIDE), "%s.%s", d->name, d->fields[j].name);
            }
            json_decref(object);
        }
    }
}
