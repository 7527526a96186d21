// SPDX-License-Identifier: Apache-2.0
#include "proto/envelope.h"

#include "common/mem.h"
#include "proto/verbs.h"

#include <criterion/criterion.h>

static envelope_t example(void)
{
    envelope_t env = {
        .kind = ENVELOPE_KIND_REQUEST,
        .flags = ENVELOPE_MORE | ENVELOPE_KEEP,
        .channel = CHANNEL_STDERR,
        .verb = 0x1234,
        .call_id = 0x0102030405060708ULL,
        .deadline_ms = 0xa1b2c3d4,
        .credit = 0x11223344,
        .offset = UINT64_MAX - 1,
    };
    for (unsigned i = 0; i < 16; i++) {
        env.sandbox.bytes[i] = (uint8_t)(0x10 + i);
        env.trace.bytes[i] = (uint8_t)(0xe0 + i);
    }
    return env;
}

Test(envelope, comes_back_as_it_went, .timeout = 10)
{
    envelope_t env = example(), back;
    uint8_t bytes[ENVELOPE_SIZE], again[ENVELOPE_SIZE];
    envelope_encode(&env, bytes);
    cr_assert(envelope_decode(&back, bytes, sizeof bytes));
    envelope_encode(&back, again);
    cr_assert_arr_eq(bytes, again, sizeof bytes);
    cr_assert_eq(back.call_id, env.call_id);
    cr_assert_eq(back.offset, env.offset);
    cr_assert_eq(back.deadline_ms, env.deadline_ms);
    cr_assert_eq(back.credit, env.credit);
    cr_assert_eq(back.verb, env.verb);
}

Test(envelope, has_the_documented_layout, .timeout = 10)
{
    envelope_t env = example();
    uint8_t b[ENVELOPE_SIZE];
    envelope_encode(&env, b);
    static const uint8_t head[] = {
        ENVELOPE_VERSION, ENVELOPE_KIND_REQUEST, 5, 2, 0x34, 0x12, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0x10};
    cr_assert_arr_eq(b, head, sizeof head);
    cr_assert_eq(b[32], 0xe0);
    static const uint8_t tail[] = {0xd4, 0xc3, 0xb2, 0xa1, 0x44, 0x33, 0x22, 0x11,
                                   0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    cr_assert_arr_eq(b + 48, tail, sizeof tail);
}

Test(envelope, refuses_what_no_peer_of_this_version_sends, .timeout = 10)
{
    static const struct {
        size_t at;
        uint8_t value;
        const char *why;
    } rows[] = {
        {0, 0, "version 0"},     {0, ENVELOPE_VERSION + 1, "another version"},
        {1, 0, "kind 0"},        {1, ENVELOPE_KIND_COUNT, "unknown kind"},
        {1, 255, "kind 255"},    {2, 8, "unknown flag"},
        {2, 255, "flags"},       {3, CHANNEL_COUNT, "unknown channel"},
        {6, 1, "reserved byte"}, {7, 128, "reserved byte"},
    };
    envelope_t env = example(), back;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t bytes[ENVELOPE_SIZE];
        envelope_encode(&env, bytes);
        bytes[rows[i].at] = rows[i].value;
        cr_expect_not(envelope_decode(&back, bytes, sizeof bytes), "%s", rows[i].why);
    }
    uint8_t bytes[ENVELOPE_SIZE + 1] = {0};
    envelope_encode(&env, bytes);
    for (size_t len = 0; len <= sizeof bytes; len++)
        cr_expect_eq(envelope_decode(&back, bytes, len), len == ENVELOPE_SIZE, "length %zu", len);
}

Test(envelope, every_kind_has_a_name, .timeout = 10)
{
    for (unsigned i = 1; i < ENVELOPE_KIND_COUNT; i++)
        cr_expect_str_neq(envelope_kind_name(i), "?");
    cr_assert_str_eq(envelope_kind_name(0), "?");
    cr_assert_str_eq(envelope_kind_name(ENVELOPE_KIND_COUNT), "?");
    cr_assert_str_eq(envelope_kind_name(UINT32_MAX), "?");
}

Test(stream_frame, length_prefix, .timeout = 10)
{
    static const struct {
        uint8_t bytes[4];
        size_t len;
        long expected;
    } rows[] = {
        {{68, 0, 0, 0}, 0, 0},    {{68, 0, 0, 0}, 3, 0},         {{68, 0, 0, 0}, 4, 0},   {{68, 0, 0, 0}, 68, 68},
        {{68, 0, 0, 0}, 100, 68}, {{67, 0, 0, 0}, 100, -1},      {{0, 0, 0, 0}, 4, -1},   {{0, 16, 0, 0}, 4, 0},
        {{1, 16, 0, 0}, 4, -1},   {{255, 255, 255, 255}, 4, -1}, {{0, 0, 0, 128}, 4, -1},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t bytes[128] = {0};
        memcpy(bytes, rows[i].bytes, 4);
        cr_expect_eq(stream_frame_length(bytes, rows[i].len, STREAM_FRAME_DOWN_MAX), rows[i].expected, "row %zu", i);
    }
}

Test(stream_frame, encodes_what_the_other_side_reads, .timeout = 10)
{
    uint8_t out[STREAM_FRAME_DOWN_MAX];
    uint8_t body[STREAM_BODY_DOWN_MAX];
    envelope_t env = example(), back;
    memset(body, 'b', sizeof body);
    cr_assert_eq(stream_frame_encode(&env, NULL, 0, out), STREAM_LENGTH_SIZE + ENVELOPE_SIZE);
    size_t len = stream_frame_encode(&env, body, sizeof body, out);
    cr_assert_eq(len, STREAM_FRAME_DOWN_MAX);
    cr_assert_eq(stream_frame_length(out, len, STREAM_FRAME_DOWN_MAX), (long)len);
    cr_assert(envelope_decode(&back, out + STREAM_LENGTH_SIZE, ENVELOPE_SIZE));
    cr_assert_arr_eq(out + STREAM_LENGTH_SIZE + ENVELOPE_SIZE, body, sizeof body);
}

Test(uuid16, both_ways_in_canonical_form_only, .timeout = 10)
{
    uuid16_t uuid, kept;
    char text[UUID_TEXT_SIZE];
    cr_assert(uuid16_parse(&uuid, "0123ABCD-4567-89ab-cdef-0123456789AB"));
    uuid16_format(&uuid, text);
    cr_assert_str_eq(text, "0123abcd-4567-89ab-cdef-0123456789ab");
    cr_assert_not(uuid16_is_zero(&uuid));
    kept = uuid;
    static const char *const bad[] = {"",
                                      "0123abcd",
                                      "0123abcd456789abcdef0123456789ab",
                                      "{0123abcd-4567-89ab-cdef-0123456789ab}",
                                      "urn:uuid:0123abcd-4567-89ab-cdef-0123456789ab",
                                      "0123abcd-4567-89ab-cdef-0123456789abc",
                                      "0123abcd-4567-89ab-cdef-0123456789a",
                                      "0123abcd-4567-89ab-cdef-0123456789ag",
                                      "0123abcd_4567-89ab-cdef-0123456789ab",
                                      "0123abcd4-567-89ab-cdef-0123456789ab",
                                      " 0123abcd-4567-89ab-cdef-0123456789a",
                                      "------------------------------------"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_expect_not(uuid16_parse(&uuid, bad[i]), "%s", bad[i]);
    cr_assert_arr_eq(uuid.bytes, kept.bytes, 16, "untouched by a failure");
    cr_assert(uuid16_parse(&uuid, "00000000-0000-0000-0000-000000000000"));
    cr_assert(uuid16_is_zero(&uuid));
}

Test(verbs, numbers_and_names_are_unique_and_their_messages_exist, .timeout = 10)
{
    for (size_t i = 0; verb_row_at(i) != NULL; i++) {
        const verb_row_t *v = verb_row_at(i);
        cr_expect_eq(verb_row(v->number), v);
        cr_expect_not_null(proto_desc(v->request), "%s", v->name);
        cr_expect_not_null(proto_desc(v->reply), "%s", v->name);
        for (size_t j = 0; j < i; j++)
            cr_expect_str_neq(v->name, verb_row_at(j)->name);
    }
    cr_assert_null(verb_row(0));
    cr_assert_null(verb_row(65535));
}

Test(verbs, none_of_them_and_no_field_gives_a_terminal, .timeout = 10)
{
    static const char *const words[] = {"pty", "tty", "terminal", "winsize", "rows", "cols"};
    for (size_t k = 0; k < COUNT_OF(words); k++) {
        for (size_t i = 0; verb_row_at(i) != NULL; i++)
            cr_expect_null(strcasestr(verb_row_at(i)->name, words[k]));
        for (size_t i = 0; i < proto_desc_count(); i++)
            for (size_t j = 0; j < proto_desc_at(i)->field_count; j++)
                cr_expect_str_neq(proto_desc_at(i)->fields[j].name, words[k]);
    }
}
