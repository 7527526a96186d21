// SPDX-License-Identifier: Apache-2.0
#include "common/text.h"

#include "common/clock.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(text, utf8_tells_the_valid_prefix, .timeout = 10)
{
    static const struct {
        const char *bytes;
        size_t valid;
    } rows[] = {
        {"", 0},
        {"plain ascii, longer than eight", 30},
        {"gr\xc3\xbc\xc3\x9f dich", 11},
        {"\xe2\x82\xac", 3},
        {"\xf0\x9f\x98\x80", 4},
        {"\xf4\x8f\xbf\xbf", 4},  /* U+10FFFF */
        {"\xf4\x90\x80\x80", 0},  /* above it */
        {"\xf5\x80\x80\x80", 0},  /* never a lead */
        {"a\xc0\x80", 1},         /* overlong NUL */
        {"a\xc1\xbf", 1},         /* overlong */
        {"a\xe0\x9f\xbf", 1},     /* overlong */
        {"a\xf0\x8f\xbf\xbf", 1}, /* overlong */
        {"\xed\x9f\xbf", 3},      /* last before the surrogates */
        {"\xed\xa0\x80", 0},      /* surrogate */
        {"\xee\x80\x80", 3},      /* first after them */
        {"12345678\xff", 8},      /* right behind a word */
        {"1234567\xc3", 7},       /* cut short */
        {"\xe2\x82", 0},          /* cut short */
        {"\x80", 0},              /* continuation alone */
        {"abc\xe2\x28\xa1", 3},   /* bad continuation */
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        size_t len = strlen(rows[i].bytes);
        cr_expect_eq(utf8_valid_prefix(rows[i].bytes, len), rows[i].valid, "row %zu", i);
        cr_expect_eq(utf8_is_valid(rows[i].bytes, len), rows[i].valid == len, "row %zu", i);
    }
    cr_assert_eq(utf8_valid_prefix("a\0b", 3), 3, "NUL is a character");
}

Test(text, utf8_takes_every_code_point_and_nothing_else, .timeout = 30)
{
    for (uint32_t c = 0x80; c <= 0x10ffff; c++) {
        uint8_t out[4];
        size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        for (size_t i = n; i-- > 1;)
            out[i] = (uint8_t)(0x80 | (c >> (6 * (n - 1 - i)) & 0x3f));
        out[0] = (uint8_t)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | c >> (6 * (n - 1)));
        bool is_surrogate = c >= 0xd800 && c <= 0xdfff;
        if (utf8_is_valid(out, n) == is_surrogate)
            cr_assert_fail("U+%04X", c);
    }
}

Test(text, utf8_cut_splits_no_character, .timeout = 10)
{
    const char *euro = "ab\xe2\x82\xac"
                       "cd";
    static const size_t expected[] = {0, 1, 2, 2, 2, 5, 6, 7, 7};
    for (size_t max = 0; max < COUNT_OF(expected); max++)
        cr_expect_eq(utf8_cut(euro, 7, max), expected[max], "max %zu", max);
    const char *bad = "\xe2\x82\xff\x80\x80\x80\x80";
    for (size_t max = 0; max <= 7; max++)
        cr_expect_eq(utf8_cut(bad, 7, max), max, "invalid bytes count one each");
    cr_expect_eq(utf8_cut("\xf0\x9f\x98\x80", 4, 3), 0);
    cr_expect_eq(utf8_cut("\xf0\x9f\x98", 3, 2), 2, "a character that is not whole may be cut");
}

Test(text, base64_matches_the_rfc_vectors, .timeout = 10)
{
    static const char *const rows[][2] = {{"", ""},
                                          {"f", "Zg=="},
                                          {"fo", "Zm8="},
                                          {"foo", "Zm9v"},
                                          {"foob", "Zm9vYg=="},
                                          {"fooba", "Zm9vYmE="},
                                          {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        auto_buf buf_t b;
        buf_init(&b, 0);
        base64_encode(&b, rows[i][0], strlen(rows[i][0]));
        cr_expect_str_eq(buf_cstr(&b), rows[i][1]);
        buf_reset(&b);
        cr_expect(base64_decode(&b, rows[i][1], strlen(rows[i][1])));
        cr_expect_str_eq(buf_cstr(&b), rows[i][0]);
        buf_reset(&b);
        cr_expect(base64_decode(&b, rows[i][1], strcspn(rows[i][1], "=")), "padding is optional");
        cr_expect_str_eq(buf_cstr(&b), rows[i][0]);
    }
}

Test(text, base64_takes_both_alphabets_but_not_a_mix, .timeout = 10)
{
    auto_buf buf_t b;
    buf_init(&b, 0);
    cr_assert(base64_decode(&b, "+/+/", 4));
    cr_assert(base64_decode(&b, "-_-_", 4));
    cr_assert_eq(b.len, 6);
    cr_assert_arr_eq(b.data, b.data + 3, 3);
    cr_assert_not(base64_decode(&b, "+_+/", 4));
}

Test(text, base64_refuses_anything_else_and_appends_nothing, .timeout = 10)
{
    static const char *const bad[] = {
        "Z",    "Zg=",  "Zg===", "=",     "==",   "====",    "Zg==Zg==", "Zm 9v", "Zm9v\n",
        "Zh==", "Zm9=", "Z===",  "Zm9v=", "*m9v", "Zm\x80v", "=m9v",     "Zg=x",  "Zm9vY"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        auto_buf buf_t b;
        buf_init(&b, 0);
        buf_append_str(&b, "kept");
        cr_expect_not(base64_decode(&b, bad[i], strlen(bad[i])), "%s", bad[i]);
        cr_expect_str_eq(buf_cstr(&b), "kept");
    }
    auto_buf buf_t small;
    buf_init(&small, 3);
    cr_assert_not(base64_decode(&small, "Zm9vYmFy", 8), "no room");
}

Test(text, base64_gives_random_bytes_back, .timeout = 10)
{
    for (size_t len = 0; len < 300; len++) {
        uint8_t bytes[300];
        auto_buf buf_t text, back;
        buf_init(&text, 0);
        buf_init(&back, 0);
        random_bytes(bytes, len);
        base64_encode(&text, bytes, len);
        cr_assert(base64_decode(&back, buf_cstr(&text), text.len));
        cr_assert_eq(back.len, len);
        if (len > 0)
            cr_assert_arr_eq(back.data, bytes, len);
    }
}

Test(text, hex_both_ways, .timeout = 10)
{
    uint8_t bytes[3];
    char text[7];
    cr_assert(hex_decode(bytes, 3, "00fFa9"));
    hex_encode(text, bytes, 3);
    cr_assert_str_eq(text, "00ffa9");
    cr_assert_not(hex_decode(bytes, 3, "00ffa"));
    cr_assert_not(hex_decode(bytes, 3, "00ffa90"));
    cr_assert_not(hex_decode(bytes, 3, "00ffag"));
    cr_assert_not(hex_decode(bytes, 3, ""));
}

Test(text, whole_numbers, .timeout = 10)
{
    uint64_t u;
    int64_t i;
    cr_assert(text_to_u64("0", &u) && u == 0);
    cr_assert(text_to_u64("18446744073709551615", &u) && u == UINT64_MAX);
    cr_assert_not(text_to_u64("18446744073709551616", &u));
    cr_assert_not(text_to_u64("99999999999999999999", &u));
    cr_assert(text_to_i64("-9223372036854775808", &i) && i == INT64_MIN);
    cr_assert(text_to_i64("9223372036854775807", &i) && i == INT64_MAX);
    cr_assert_not(text_to_i64("9223372036854775808", &i));
    cr_assert_not(text_to_i64("-9223372036854775809", &i));
    static const char *const bad[] = {"", "-", "+1", " 1", "1 ", "1x", "0x10", "--1", "1.0"};
    for (size_t k = 0; k < COUNT_OF(bad); k++) {
        cr_expect_not(text_to_u64(bad[k], &u), "%s", bad[k]);
        cr_expect_not(text_to_i64(bad[k], &i), "%s", bad[k]);
    }
    cr_assert_not(text_to_u64("-1", &u));
}

Test(text, sizes, .timeout = 10)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"1048576", 1048576},
        {"0", 0},
        {"4G", 4ULL << 30},
        {"4g", 4ULL << 30},
        {"4GB", 4ULL << 30},
        {"4GiB", 4ULL << 30},
        {"4gib", 4ULL << 30},
        {"512M", 512ULL << 20},
        {"64k", 65536},
        {"1.5G", 3ULL << 29},
        {"0.5k", 512},
        {"100B", 100},
        {"2T", 2ULL << 40},
        {"15E", 15ULL << 60},
        {"15.999999999999999999E", UINT64_MAX - 1},
    };
    static const char *const bad[] = {"",     "G",
                                      "-1G",  "1.5",
                                      "1,5G", "4 G",
                                      "4GG",  "4iB",
                                      "4Gi",  "16E",
                                      "1.G",  ".5G",
                                      "0x10", "18446744073709551616",
                                      "4X",   "1.5.5G",
                                      "4G ",  "1e3",
                                      "4Gb1", "1.0000000000000000000G",
                                      "NaN"};
    uint64_t bytes;
    for (size_t i = 0; i < COUNT_OF(good); i++)
        cr_expect(text_to_size(good[i].text, &bytes) && bytes == good[i].bytes, "%s", good[i].text);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_expect_not(text_to_size(bad[i], &bytes), "%s", bad[i]);
}

Test(text, thousandths_of_a_cpu, .timeout = 10)
{
    static const struct {
        const char *text;
        uint32_t milli;
    } good[] = {{"2", 2000}, {"0.5", 500}, {"1.25", 1250}, {"0.001", 1}, {"1024", 1024000}, {"1023.999", 1023999}};
    static const char *const bad[] = {
        "0", "0.0", "1024.001", "1025", "0.0001", "-1", "", ".5", "1.", "1x", "99999999999999999999"};
    uint32_t milli;
    for (size_t i = 0; i < COUNT_OF(good); i++)
        cr_expect(text_to_milli(good[i].text, &milli) && milli == good[i].milli, "%s", good[i].text);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_expect_not(text_to_milli(bad[i], &milli), "%s", bad[i]);
}

Test(clock, clocks_move_and_random_bytes_differ, .timeout = 10)
{
    uint8_t a[32], b[32];
    uint64_t before = clock_monotonic_us();
    cr_assert_geq(clock_monotonic_us(), before);
    cr_assert_gt(clock_realtime_ms(), 1700000000000ULL);
    random_bytes(a, sizeof a);
    random_bytes(b, sizeof b);
    cr_assert_arr_neq(a, b, sizeof a);
}
