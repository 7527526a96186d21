// SPDX-License-Identifier: Apache-2.0
#include "common/json_writer.h"

#include "common/mem.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>

static buf_t out;
static json_writer_t w;

static void start(void)
{
    buf_init(&out, 0);
    json_writer_init(&w, &out);
}

static void stop(void)
{
    buf_free(&out);
}

TestSuite(json_writer, .init = start, .fini = stop, .timeout = 10);

Test(json_writer, puts_the_commas)
{
    json_write_open_object(&w);
    json_write_key(&w, "a");
    json_write_int(&w, -1);
    json_write_key(&w, "b");
    json_write_open_array(&w);
    json_write_bool(&w, true);
    json_write_null(&w);
    json_write_open_object(&w);
    json_write_close_object(&w);
    json_write_str(&w, NULL);
    json_write_uint(&w, UINT64_MAX);
    json_write_close_array(&w);
    json_write_key(&w, "c");
    json_write_raw(&w, "{\"d\":[]}", 8);
    json_write_key(&w, "e");
    json_write_base64(&w, "foo", 3);
    json_write_close_object(&w);
    cr_assert_str_eq(buf_cstr(&out), "{\"a\":-1,\"b\":[true,null,{},null,18446744073709551615],\"c\":{\"d\":[]},"
                                     "\"e\":\"Zm9v\"}");
}

Test(json_writer, escapes_every_byte_so_that_it_reads_back)
{
    char all[128];
    for (int i = 0; i < 128; i++)
        all[i] = (char)i;
    cr_assert(json_write_strn(&w, all, sizeof all));
    auto_buf buf_t copy;
    buf_init(&copy, 0);
    buf_append_byte(&copy, '[');
    buf_append(&copy, out.data, out.len);
    buf_append_byte(&copy, ']');
    json_t *back = json_loads(buf_cstr(&copy), JSON_ALLOW_NUL, NULL);
    cr_assert_not_null(back);
    const json_t *item = json_array_get(back, 0);
    cr_assert_eq(json_string_length(item), sizeof all);
    cr_assert_arr_eq(json_string_value(item), all, sizeof all);
    json_decref(back);
}

Test(json_writer, escapes_at_every_distance_from_a_word)
{
    static const char needs[] = {'"', '\\', '\n', 0x1f, 0x01};
    for (size_t len = 1; len < 40; len++)
        for (size_t at = 0; at < len; at++) {
            char text[40];
            memset(text, 0x20 + (int)(len % 2) * 0x5f,
                   len); /* the plain bytes nearest to those that need one: space and DEL */
            text[at] = needs[(len + at) % sizeof needs];
            buf_reset(&out);
            json_writer_init(&w, &out);
            json_write_strn(&w, text, len);
            cr_expect(out.len == len + 3 || out.len == len + 7, "len %zu at %zu", len, at);
        }
}

Test(json_writer, repairs_invalid_utf8_and_says_so)
{
    cr_assert_not(json_write_strn(&w, "a\xff\xe2\x82z\x80", 6));
    cr_assert_str_eq(buf_cstr(&out), "\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\"");
}

Test(json_writer, takes_an_empty_string_without_bytes)
{
    cr_assert(json_write_strn(&w, NULL, 0));
    cr_assert_str_eq(buf_cstr(&out), "\"\"");
}

Test(json_writer, escapes_keys_too)
{
    json_write_open_object(&w);
    json_write_key(&w, "a\"\n");
    json_write_null(&w);
    json_write_close_object(&w);
    cr_assert_str_eq(buf_cstr(&out), "{\"a\\\"\\n\":null}");
}

Test(json_writer, writes_the_shortest_double)
{
    static const struct {
        double value;
        const char *text;
    } rows[] = {
        {0.1, "0.1"},       {1.0 / 3, "0.3333333333333333"}, {1e300, "1e+300"}, {-0.5, "-0.5"}, {3, "3"}, {NAN, "null"},
        {-INFINITY, "null"}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        buf_reset(&out);
        json_writer_init(&w, &out);
        json_write_double(&w, rows[i].value);
        cr_expect_str_eq(buf_cstr(&out), rows[i].text);
    }
}

Test(json_writer, a_value_where_a_key_is_due_aborts, .signal = SIGABRT)
{
    json_write_open_object(&w);
    json_write_int(&w, 1);
}

Test(json_writer, a_key_in_an_array_aborts, .signal = SIGABRT)
{
    json_write_open_array(&w);
    json_write_key(&w, "a");
}

Test(json_writer, closing_the_wrong_kind_aborts, .signal = SIGABRT)
{
    json_write_open_array(&w);
    json_write_close_object(&w);
}

Test(json_writer, closing_after_a_key_aborts, .signal = SIGABRT)
{
    json_write_open_object(&w);
    json_write_key(&w, "a");
    json_write_close_object(&w);
}

Test(json_writer, a_second_value_aborts, .signal = SIGABRT)
{
    json_write_int(&w, 1);
    json_write_int(&w, 2);
}

Test(json_writer, too_many_levels_abort, .signal = SIGABRT)
{
    for (int i = 0; i < JSON_WRITER_DEPTH_MAX; i++)
        json_write_open_array(&w);
}

Test(json_writer, a_full_buffer_is_seen_at_the_end)
{
    buf_free(&out);
    buf_init(&out, 10);
    json_write_str(&w, "0123456789");
    cr_assert(buf_failed(&out));
}
