/* SPDX-License-Identifier: Apache-2.0 */
// LINK: services/gateway/json_guard.c
#include "services/gateway/json_guard.h"

#include "common/buf.h"

#include <criterion/criterion.h>
#include <string.h>

static const char *guard(const char *text)
{
    return json_guard(text, strlen(text));
}

static const char *guard_repeated(const char *head, const char *part, size_t times)
{
    auto_buf buf_t text;
    buf_init(&text, 0);
    buf_append_str(&text, head);
    for (size_t i = 0; i < times; i++) {
        buf_append_str(&text, part);
    }
    return guard(buf_cstr(&text));
}

Test(json_guard, ordinary_bodies_pass)
{
    cr_assert_null(guard("{\"command\":\"true\",\"env\":{\"A\":\"b\"}}"));
    cr_assert_null(guard(""));
    cr_assert_null(guard("not json"));
    cr_assert_null(guard_repeated("[", "\"a\",", JSON_GUARD_VALUES_MAX - 1));
    cr_assert_null(guard_repeated("", "[", JSON_GUARD_DEPTH_MAX));
}

Test(json_guard, bombs_are_refused)
{
    cr_assert_str_eq(guard_repeated("", "[", JSON_GUARD_DEPTH_MAX + 1), "nested too deeply");
    cr_assert_str_eq(guard_repeated("", "{\"a\":", JSON_GUARD_DEPTH_MAX + 1), "nested too deeply");
    cr_assert_str_eq(guard_repeated("[", "[],", JSON_GUARD_VALUES_MAX), "too many values");
    cr_assert_str_eq(guard_repeated("[", "0,", JSON_GUARD_VALUES_MAX + 1), "too many values");
    cr_assert_str_eq(guard_repeated("{", "\"a\":{},", JSON_GUARD_VALUES_MAX), "too many values");
}

Test(json_guard, what_stands_in_a_string_does_not_count)
{
    cr_assert_null(guard_repeated("{\"a\":\"", "[,{", JSON_GUARD_VALUES_MAX));
    cr_assert_null(guard_repeated("{\"a\":\"\\\"", "[", JSON_GUARD_VALUES_MAX), "an escaped quote ends nothing");
    cr_assert_null(guard_repeated("{\"a\":\"\\\\\\\"", "[", JSON_GUARD_VALUES_MAX));
    cr_assert_not_null(guard_repeated("{\"a\":\"\\\\\"", "[", JSON_GUARD_VALUES_MAX), "an escaped backslash is none");
    cr_assert_not_null(guard_repeated("{\"a\":\"\"", "[", JSON_GUARD_VALUES_MAX));
    cr_assert_null(guard("\""));
    cr_assert_null(guard("\"\\"));
    cr_assert_null(guard("\"\\\""));
}
