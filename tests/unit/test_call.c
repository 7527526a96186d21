// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/call_world.c
#include "tests/unit/call_world.h"

#include "common/clock.h"
#include "common/mem.h"

#include <criterion/criterion.h>

TestSuite(call, .timeout = 30);

Test(call, request_gets_its_reply)
{
    world_t w;
    seen_t seen = {0};
    make_world(&w);
    w.callee.on_frame = reply_small;
    start(&w, &seen, VERB_read, "body", 4);
    cr_assert(reaches(&w, &seen.replies, 1));
    cr_assert(seen.reply_len == 100 && !seen.is_sum_wrong);
    cr_assert_eq(w.callee.env.verb, VERB_read);
    cr_assert_arr_eq(w.callee.env.sandbox.bytes, SANDBOX.bytes, 16);
    cr_assert_str_eq(buf_cstr(&w.callee.request), "body");
    cr_assert_eq(call_table_count(w.calls), 0);
    run_ms(&w, 20);
    cr_assert_eq(w.callee.kinds[ENVELOPE_KIND_ACK], 0); /* small replies are not worth one */
    end_world(&w);
}

static void reply_large(callee_t *callee, const envelope_t *env, const uint8_t *body, size_t len)
{
    static uint8_t part[FABRIC_BODY_MAX];
    (void)body;
    (void)len;
    if (env->kind != ENVELOPE_KIND_REQUEST && env->kind != ENVELOPE_KIND_CREDIT)
        return;
    while (callee->sent < callee->to_send && callee->window > 0) {
        size_t n = callee->to_send - callee->sent;
        n = n < sizeof part ? n : sizeof part;
        n = n < callee->window ? n : callee->window;
        for (size_t i = 0; i < n; i++)
            part[i] = pattern(callee->sent + i);
        callee->sent += n;
        callee->window -= n;
        callee_send(
            callee,
            (envelope_t){.kind = ENVELOPE_KIND_REPLY, .flags = callee->sent < callee->to_send ? ENVELOPE_MORE : 0},
            part, n);
    }
}

Test(call, ten_mebibytes_of_reply_are_put_together_and_acknowledged)
{
    world_t w;
    seen_t seen = {0};
    make_world(&w);
    w.callee.on_frame = reply_large;
    w.callee.to_send = 10 << 20;
    start(&w, &seen, VERB_read, NULL, 0);
    cr_assert(reaches(&w, &seen.replies, 1));
    cr_assert(seen.reply_len == 10 << 20 && !seen.is_sum_wrong);
    cr_assert(reaches(&w, &w.callee.kinds[ENVELOPE_KIND_ACK], 1));
    end_world(&w);
}

Test(call, ten_mebibytes_of_request_wait_for_the_window)
{
    world_t w;
    seen_t seen = {0};
    size_t len = 10 << 20;
    uint8_t *body = mem_alloc(len);
    make_world(&w);
    for (size_t i = 0; i < len; i++)
        body[i] = pattern(i);
    w.callee.on_frame = reply_small;
    w.callee.is_silent = true;
    start(&w, &seen, VERB_write, body, len);
    run_ms(&w, 50);
    cr_assert_eq(w.callee.request.len, CALL_WINDOW); /* not a byte more without credit */
    w.callee.is_silent = false;
    callee_send(&w.callee, (envelope_t){.kind = ENVELOPE_KIND_CREDIT, .credit = CALL_WINDOW}, NULL, 0);
    cr_assert(reaches(&w, &seen.replies, 1));
    cr_assert_eq(w.callee.request.len, len);
    cr_assert_arr_eq(w.callee.request.data, body, len);
    free(body);
    end_world(&w);
}

Test(call, download_of_ten_mebibytes_keeps_to_the_readers_pace)
{
    world_t w;
    seen_t seen = {.holds_window = true};
    make_world(&w);
    w.callee.on_frame = download;
    w.callee.to_send = 10 << 20;
    start(&w, &seen, VERB_file_get, "x", 1);
    run_ms(&w, 100);
    cr_assert_eq(seen.heads, 1);
    cr_assert_eq(seen.bytes, CALL_WINDOW - 4); /* a reader that takes nothing stops the writer */
    seen.holds_window = false;
    call_consumed(seen.call, seen.bytes);
    cr_assert(reaches(&w, &seen.replies, 1));
    cr_assert(seen.bytes == 10 << 20 && !seen.is_sum_wrong && seen.ends == 1);
    end_world(&w);
}

static void take_upload(callee_t *callee, const envelope_t *env, const uint8_t *body, size_t len)
{
    if (env->kind != ENVELOPE_KIND_CHUNK)
        return;
    cr_assert_eq(env->offset, callee->received);
    for (size_t i = 0; i < len; i++)
        if (body[i] != pattern(callee->received + i))
            callee->is_sum_wrong = true;
    callee->received += len;
    if (env->flags & ENVELOPE_END)
        callee_send(callee, (envelope_t){.kind = ENVELOPE_KIND_REPLY}, NULL, 0);
    else if (!callee->is_silent)
        callee_send(callee, (envelope_t){.kind = ENVELOPE_KIND_CREDIT, .credit = (uint32_t)len}, NULL, 0);
}

Test(call, upload_of_ten_mebibytes_keeps_to_the_callees_pace)
{
    world_t w;
    seen_t seen = {0};
    make_world(&w);
    w.callee.on_frame = take_upload;
    w.callee.is_silent = true;
    start(&w, &seen, VERB_file_put, "x", 1);
    upload_more(&seen);
    cr_assert_eq(seen.uploaded, CALL_WINDOW - 1); /* the request's byte counts */
    run_ms(&w, 50);
    cr_assert_eq(w.callee.received, CALL_WINDOW - 1);
    w.callee.is_silent = false;
    callee_send(&w.callee, (envelope_t){.kind = ENVELOPE_KIND_CREDIT, .credit = CALL_WINDOW}, NULL, 0);
    cr_assert(reaches(&w, &seen.replies, 1));
    cr_assert(w.callee.received == UPLOAD_BYTES && !w.callee.is_sum_wrong);
    cr_assert_eq(call_table_count(w.calls), 0);
    end_world(&w);
}

Test(call, empty_chunk_closes_a_channel)
{
    world_t w;
    seen_t seen = {0};
    make_world(&w);
    w.callee.on_frame = take_upload;
    start(&w, &seen, VERB_file_put, "x", 1);
    cr_assert_eq(call_send_chunk(seen.call, CHANNEL_DATA, NULL, 0, true), 0);
    cr_assert_eq(call_send_chunk(seen.call, CHANNEL_DATA, "late", 4, true), 0);
    cr_assert(reaches(&w, &seen.replies, 1));
    cr_assert_eq(w.callee.received, 0);
    end_world(&w);
}

static void reply_error(callee_t *callee, const envelope_t *env, const uint8_t *body, size_t len)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t out = {0};
    struct error error = {.code = "not_found", .message = "no such file", .details = "{\"path\": \"/x\"}"};
    (void)body;
    (void)len;
    if (env->kind != ENVELOPE_KIND_REQUEST)
        return;
    if (env->verb == VERB_write)
        error.details = "{\"a\": 1} , \"injected\": 2";
    if (env->verb == VERB_edit)
        error.code = "none";
    cr_assert_eq(proto_encode(MSG_error, &error, &out, &e), 0);
    callee_send(callee, (envelope_t){.kind = ENVELOPE_KIND_ERROR}, out.data, out.len);
}

typedef struct error_row {
    enum verb verb;
    enum err_code code;
    const char *details;
} error_row_t;

Test(call, error_of_the_callee_is_carried_but_not_believed_blindly)
{
    static const error_row_t rows[] = {{VERB_read, ERR_NOT_FOUND, "{\"path\": \"/x\"}"},
                                       {VERB_write, ERR_NOT_FOUND, ""},
                                       {VERB_edit, ERR_PROTOCOL, "{\"path\": \"/x\"}"}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        world_t w;
        seen_t seen = {0};
        make_world(&w);
        w.callee.on_frame = reply_error;
        start(&w, &seen, rows[i].verb, "x", 1);
        cr_assert(reaches(&w, &seen.errors, 1));
        cr_assert_eq(seen.code, rows[i].code);
        cr_assert_str_eq(seen.message, "no such file");
        cr_assert_str_eq(seen.details, rows[i].details);
        end_world(&w);
    }
}
