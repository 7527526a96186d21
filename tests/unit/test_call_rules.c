// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/call_world.c
#include "tests/unit/call_world.h"

#include "common/call_private.h"
#include "common/clock.h"
#include "common/mem.h"

#include <criterion/criterion.h>

TestSuite(call_rules, .timeout = 30);

/* ---- violations ---- */

typedef struct frame_row {
    envelope_t env;
    size_t len;
    unsigned times;
} frame_row_t;

typedef struct violation_row {
    const char *what;
    enum verb verb;
    frame_row_t frames[3];
} violation_row_t;

static const violation_row_t violations[] = {
    {"more chunks than the window", VERB_file_get, {{{.kind = ENVELOPE_KIND_CHUNK}, 65536, 5}}},
    {"chunks for a verb without", VERB_read, {{{.kind = ENVELOPE_KIND_CHUNK}, 5, 1}}},
    {"the same bytes twice",
     VERB_file_get,
     {{{.kind = ENVELOPE_KIND_CHUNK, .offset = 0}, 10, 1}, {{.kind = ENVELOPE_KIND_CHUNK, .offset = 5}, 10, 1}}},
    {"an offset near the end of numbers",
     VERB_file_get,
     {{{.kind = ENVELOPE_KIND_CHUNK, .offset = UINT64_MAX}, 10, 1}}},
    {"bytes after END",
     VERB_file_get,
     {{{.kind = ENVELOPE_KIND_CHUNK, .flags = ENVELOPE_END}, 10, 1},
      {{.kind = ENVELOPE_KIND_CHUNK, .offset = 10}, 10, 1}}},
    {"HEAD twice", VERB_file_get, {{{.kind = ENVELOPE_KIND_HEAD}, 5, 2}}},
    {"mixed messages",
     VERB_file_get,
     {{{.kind = ENVELOPE_KIND_REPLY, .flags = ENVELOPE_MORE}, 5, 1}, {{.kind = ENVELOPE_KIND_EVENT}, 5, 1}}},
    {"chunk inside a message",
     VERB_file_get,
     {{{.kind = ENVELOPE_KIND_REPLY, .flags = ENVELOPE_MORE}, 5, 1}, {{.kind = ENVELOPE_KIND_CHUNK}, 5, 1}}},
    {"an event without end", VERB_file_watch, {{{.kind = ENVELOPE_KIND_EVENT, .flags = ENVELOPE_MORE}, 40000, 7}}},
    {"an unreadable ERROR", VERB_read, {{{.kind = ENVELOPE_KIND_ERROR}, 50, 1}}},
};

static const violation_row_t *violation_now;

static void violate(callee_t *callee, const envelope_t *env, const uint8_t *body, size_t len)
{
    static uint8_t bytes[FABRIC_BODY_MAX];
    (void)body;
    (void)len;
    if (env->kind != ENVELOPE_KIND_REQUEST)
        return;
    for (size_t i = 0; i < COUNT_OF(violation_now->frames); i++) {
        const frame_row_t *row = &violation_now->frames[i];
        for (unsigned k = 0; k < row->times; k++) {
            envelope_t out = row->env;
            if (out.kind == ENVELOPE_KIND_CHUNK && row->times > 1)
                out.offset = k * row->len;
            callee_send(callee, out, bytes, row->len);
        }
    }
}

static void ignore_chunk(void *arg, enum envelope_channel channel, uint64_t offset, const uint8_t *bytes, size_t len,
                         bool is_end)
{
    (void)arg;
    (void)channel;
    (void)offset;
    (void)bytes;
    (void)len;
    (void)is_end;
}

Test(call_rules, every_violation_fails_the_call_and_cancels_it_there)
{
    static const call_events_t lenient = {
        .on_reply = seen_on_reply, .on_error = seen_on_error, .on_chunk = ignore_chunk};
    for (size_t i = 0; i < COUNT_OF(violations); i++) {
        auto_err err_t *e = NULL;
        call_options_t options = {.sandbox = SANDBOX};
        world_t w;
        seen_t seen = {0};
        make_world(&w);
        violation_now = &violations[i];
        w.callee.on_frame = violate;
        cr_assert_not_null(call_start(w.calls, w.peer, violation_now->verb, &options, "x", 1, &lenient, &seen, &e));
        cr_assert(reaches(&w, &seen.errors, 1), "%s", violation_now->what);
        cr_assert_eq(seen.code, ERR_PROTOCOL, "%s: %s", violation_now->what, seen.message);
        cr_assert(reaches(&w, &w.callee.kinds[ENVELOPE_KIND_CANCEL], 1), "%s", violation_now->what);
        cr_assert_eq(seen.replies, 0);
        cr_assert_eq(call_table_count(w.calls), 0);
        end_world(&w);
    }
}

static void reply_for_another(callee_t *callee, const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    if (env->kind != ENVELOPE_KIND_REQUEST)
        return;
    callee->env.sandbox = (uuid16_t){{8, 8, 8}};
    callee_send(callee, (envelope_t){.kind = ENVELOPE_KIND_REPLY}, NULL, 0);
}

Test(call_rules, one_sandbox_cannot_answer_for_another)
{
    world_t w;
    seen_t seen = {0};
    make_world(&w);
    w.callee.on_frame = reply_for_another;
    start(&w, &seen, VERB_read, "x", 1);
    run_ms(&w, 100);
    cr_assert(seen.replies == 0 && seen.errors == 0);
    cr_assert_eq(call_table_count(w.calls), 1);
    end_world(&w);
}

Test(call_rules, cancel_tells_the_callee_and_late_frames_are_dropped)
{
    world_t w;
    seen_t seen = {0};
    make_world(&w);
    call_t *c = start(&w, &seen, VERB_read, "x", 1);
    run_ms(&w, 20);
    call_cancel(c);
    cr_assert(reaches(&w, &w.callee.kinds[ENVELOPE_KIND_CANCEL], 1));
    callee_send(&w.callee, (envelope_t){.kind = ENVELOPE_KIND_REPLY}, "late", 4);
    run_ms(&w, 20);
    cr_assert(seen.replies == 0 && seen.errors == 0);
    cr_assert_eq(call_table_count(w.calls), 0);
    end_world(&w);
}

Test(call_rules, may_be_cancelled_inside_its_own_callback)
{
    world_t w;
    seen_t seen = {.cancels_in_chunk = true};
    make_world(&w);
    w.callee.on_frame = download;
    w.callee.to_send = 1 << 20;
    start(&w, &seen, VERB_file_get, "x", 1);
    cr_assert(reaches(&w, &w.callee.kinds[ENVELOPE_KIND_CANCEL], 1));
    run_ms(&w, 20);
    cr_assert(seen.bytes == 30000 && seen.replies == 0 && seen.errors == 0);
    end_world(&w);
}

Test(call_rules, calls_fail_with_provider_gone_when_the_link_ends)
{
    world_t w;
    seen_t seen = {0}, other = {.starts_another = true};
    make_world(&w);
    start(&w, &seen, VERB_read, "x", 1);
    start(&w, &other, VERB_read, "x", 1);
    fabric_destroy(&w.callee.fabric);
    cr_assert(reaches(&w, &seen.errors, 1) && reaches(&w, &other.errors, 1));
    cr_assert_eq(seen.code, ERR_PROVIDER_GONE);
    cr_assert(err_code_is_retryable(seen.code));
    cr_assert_eq(call_table_count(w.calls), 0);
    end_world(&w);
}

Test(call_rules, a_callee_that_never_answers_meets_the_deadline)
{
    auto_err err_t *e = NULL;
    world_t w;
    seen_t seen = {0}, patient = {0};
    call_options_t options = {.sandbox = SANDBOX, .deadline_ms = 100};
    make_world(&w);
    uint64_t started_ms = clock_monotonic_ms();
    cr_assert_not_null(call_start(w.calls, w.peer, VERB_bash, &options, "x", 1, &seen_events, &seen, &e));
    start(&w, &patient, VERB_bash, "x", 1);
    cr_assert(reaches(&w, &seen.errors, 1));
    uint64_t took_ms = clock_monotonic_ms() - started_ms;
    cr_assert_eq(seen.code, ERR_DEADLINE_EXCEEDED);
    cr_assert(took_ms >= 100 + CALL_DEADLINE_GRACE_MS && took_ms < 100 + CALL_DEADLINE_GRACE_MS + 500, "%llu",
              (unsigned long long)took_ms);
    cr_assert(reaches(&w, &w.callee.kinds[ENVELOPE_KIND_CANCEL], 1));
    cr_assert_eq(patient.errors, 0);
    end_world(&w);
}

Test(call_rules, an_id_of_the_callers_choice_runs_once_at_a_time)
{
    auto_err err_t *e = NULL;
    world_t w;
    seen_t seen = {0};
    call_options_t options = {.sandbox = SANDBOX, .call_id = 99, .is_kept = true};
    make_world(&w);
    cr_assert_not_null(call_start(w.calls, w.peer, VERB_write, &options, "x", 1, &seen_events, &seen, &e));
    cr_assert_null(call_start(w.calls, w.peer, VERB_write, &options, "x", 1, &seen_events, &seen, &e));
    cr_assert_eq(err_code(e), ERR_CONFLICT);
    err_free(&e);
    options.sandbox = (uuid16_t){{1}};
    call_t *other = call_start(w.calls, w.peer, VERB_write, &options, "x", 1, &seen_events, &seen, &e);
    cr_assert(other != NULL && call_id(other) == 99);
    run_ms(&w, 20);
    cr_assert_eq(w.callee.env.flags, ENVELOPE_KEEP);
    end_world(&w);
}

Test(call_rules, thousands_at_once_all_end)
{
    world_t w;
    enum { CALLS = 5000 };
    seen_t seen = {0};
    unsigned started = 0;
    make_world(&w);
    w.callee.on_frame = reply_small;
    while (seen.replies < CALLS) {
        for (unsigned i = 0; i < 200 && started < CALLS; i++, started++)
            start(&w, &seen, VERB_read, "x", 1);
        run_ms(&w, 2);
    }
    cr_assert_eq(seen.errors, 0);
    cr_assert_eq(call_table_count(w.calls), 0);
    end_world(&w);
}

Test(call_rules, what_waits_for_a_full_queue_is_forgotten_with_its_call)
{
    world_t w;
    enum { CALLS = 20000 };
    static call_t *calls[CALLS];
    static uint8_t body[2000];
    seen_t seen = {0};
    unsigned count = 0;
    make_world(&w);
    while (count < CALLS && w.calls->held_bytes < 100 * sizeof body) /* the loop does not turn: nothing leaves */
        calls[count++] = start(&w, &seen, VERB_read, body, sizeof body);
    cr_assert_geq(w.calls->held_bytes, 100 * sizeof body, "the peer's queue took %u calls", count);
    for (unsigned i = 0; i < count; i++)
        call_cancel(calls[i]);
    cr_assert_eq(w.calls->held_bytes, 0);
    cr_assert(reaches(&w, &w.callee.kinds[ENVELOPE_KIND_CANCEL], 1));
    run_ms(&w, 200);
    cr_assert_eq(call_table_count(w.calls), 0);
    end_world(&w);
}

static void endless_reply(callee_t *callee, const envelope_t *env, const uint8_t *body, size_t len)
{
    static uint8_t part[FABRIC_BODY_MAX];
    (void)body;
    (void)len;
    while ((env->kind == ENVELOPE_KIND_REQUEST || env->kind == ENVELOPE_KIND_CREDIT) && callee->window > 0) {
        size_t n = callee->window < sizeof part ? callee->window : sizeof part;
        callee->window -= n;
        callee_send(callee, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .flags = ENVELOPE_MORE}, part, n);
    }
}

Test(call_rules, large_replies_share_a_limit_and_large_requests_leave_them_room)
{
    world_t w;
    seen_t seen = {0};
    static uint8_t body[2 * CALL_WINDOW];
    err_t *e = NULL;
    make_world(&w);
    w.calls->held_max = 1 << 20;
    w.callee.on_frame = endless_reply;
    start(&w, &seen, VERB_read, "x", 1);
    cr_assert(reaches(&w, &seen.errors, 1));
    cr_assert_eq(seen.code, ERR_OVERLOADED, "%s", seen.message);
    cr_assert_eq(w.calls->held_bytes, 0);
    cr_assert(reaches(&w, &w.callee.kinds[ENVELOPE_KIND_CANCEL], 1));
    call_options_t options = {.sandbox = {{1}}};
    cr_assert_null(call_start(w.calls, w.peer, VERB_write, &options, body, sizeof body, &seen_events, &seen, &e));
    cr_assert_eq(err_code(e), ERR_OVERLOADED);
    err_free(&e);
    end_world(&w);
}
