// SPDX-License-Identifier: Apache-2.0
#include "common/buf.h"

#include "common/mem.h"

#include <criterion/criterion.h>
#include <signal.h>

Test(buf, appends_and_lends_text, .timeout = 10)
{
    auto_buf buf_t b;
    buf_init(&b, 0);
    buf_append_str(&b, "one ");
    buf_printf(&b, "%d", 2);
    buf_append_byte(&b, '!');
    cr_assert_str_eq(buf_cstr(&b), "one 2!");
    cr_assert_eq(b.len, 6);
    cr_assert_not(buf_failed(&b));
}

Test(buf, empty_buffer_is_the_empty_text, .timeout = 10)
{
    auto_buf buf_t b;
    buf_init(&b, 0);
    cr_assert_str_eq(buf_cstr(&b), "");
    auto_free char *text = buf_steal(&b);
    cr_assert_str_eq(text, "");
    buf_consume(&b, 5);
    buf_truncate(&b, 5);
    buf_append(&b, NULL, 0);
    cr_assert_eq(b.len, 0);
}

Test(buf, keeps_its_content_and_fails_at_the_maximum, .timeout = 10)
{
    auto_buf buf_t b;
    buf_init(&b, 10);
    buf_append_str(&b, "0123456789");
    cr_assert_not(buf_failed(&b));
    buf_append_byte(&b, 'x');
    cr_assert(buf_failed(&b));
    cr_assert_eq(b.len, 10);
    cr_assert_str_eq(buf_cstr(&b), "", "a failed buffer lends nothing");
    buf_append_str(&b, "");
    buf_consume(&b, 5);
    buf_append_str(&b, "y");
    cr_assert_eq(b.len, 5, "the failure is sticky");
    buf_reset(&b);
    buf_append_str(&b, "again");
    cr_assert_str_eq(buf_cstr(&b), "again");
}

Test(buf, refuses_huge_lengths_before_allocating, .timeout = 10)
{
    static const size_t lengths[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2, SIZE_MAX / 4 + 1};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        auto_buf buf_t b;
        buf_init(&b, SIZE_MAX);
        buf_append_str(&b, "abc");
        cr_expect_null(buf_reserve(&b, lengths[i]));
        cr_expect(buf_failed(&b));
        cr_expect_eq(b.len, 3);
    }
}

Test(buf, reserve_and_commit, .timeout = 10)
{
    auto_buf buf_t b;
    buf_init(&b, 0);
    for (int i = 0; i < 1000; i++) {
        uint8_t *room = buf_reserve(&b, 100);
        cr_assert_not_null(room);
        memset(room, 'a' + i % 26, 100);
        buf_commit(&b, 50);
    }
    cr_assert_eq(b.len, 50000);
    cr_assert_eq(b.data[49999], 'a' + 999 % 26);
}

Test(buf, committing_more_than_was_reserved_aborts, .signal = SIGABRT, .timeout = 10)
{
    buf_t b;
    buf_init(&b, 0);
    buf_reserve(&b, 10);
    buf_commit(&b, 100000);
}

Test(buf, consume_drops_from_the_front, .timeout = 10)
{
    auto_buf buf_t b;
    buf_init(&b, 0);
    buf_append_str(&b, "abcdef");
    buf_consume(&b, 2);
    cr_assert_str_eq(buf_cstr(&b), "cdef");
    buf_truncate(&b, 3);
    cr_assert_str_eq(buf_cstr(&b), "cde");
    buf_consume(&b, 100);
    cr_assert_eq(b.len, 0);
}

Test(buf, steal_hands_the_bytes_over, .timeout = 10)
{
    buf_t b;
    buf_init(&b, 77);
    buf_append_str(&b, "mine");
    auto_free char *text = buf_steal(&b);
    cr_assert_str_eq(text, "mine");
    cr_assert_null(b.data);
    cr_assert_eq(b.max, 77);
    buf_free(&b);
    buf_free(&b);
}

Test(mem, strndup_stops_at_the_nul, .timeout = 10)
{
    auto_free char *a = mem_strndup("abc", 100);
    auto_free char *b = mem_strndup("abc", 2);
    auto_free char *c = mem_strndup(NULL, 0);
    auto_free char *d = mem_strndup("abc", SIZE_MAX);
    cr_assert_str_eq(a, "abc");
    cr_assert_str_eq(b, "ab");
    cr_assert_str_eq(c, "");
    cr_assert_str_eq(d, "abc");
}

Test(mem, an_overflowing_array_ends_the_process, .signal = SIGABRT, .timeout = 10)
{
    free(mem_alloc_array(SIZE_MAX / 2, 16));
}
