// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/stream_side.c
/* QUIESCE, QUIESCED and going on after them. */
#include "common/mem.h"
#include "tests/unit/stream_side.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

TestSuite(stream_quiesce, .timeout = 20);

static const envelope_t quiesced = {.kind = ENVELOPE_KIND_QUIESCED};

static void set_up(side_t *side)
{
    side_set_up(side);
    side_make_ready(side);
}

static bool send_down(side_t *side, uint64_t call_id, const void *body, size_t len)
{
    return stream_send(side->stream, &(envelope_t){.kind = ENVELOPE_KIND_REQUEST, .verb = 1, .call_id = call_id}, body,
                       len);
}

static void expect(side_t *side, unsigned kind, uint64_t call_id)
{
    uint8_t body[STREAM_FRAME_DOWN_MAX];
    envelope_t env;
    side_receive(side, &env, body);
    cr_assert_eq(env.kind, kind, "%s", envelope_kind_name(env.kind));
    cr_assert_eq(env.call_id, call_id);
}

static bool has_input(const side_t *side)
{
    struct pollfd p = {.fd = side->to_agent, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

static void make_quiesced(side_t *side)
{
    cr_assert(stream_quiesce(side->stream, 0));
    expect(side, ENVELOPE_KIND_QUIESCE, 0);
    side_send(side, quiesced, NULL, 0);
    side_turn(side, 2);
    cr_assert(stream_is_quiesced(side->stream));
    cr_assert_eq(side->env.kind, ENVELOPE_KIND_QUIESCED);
}

static void go_on(side_t *side)
{
    side_take_resync(side);
    side_mark(side);
    side_adopt(side);
    side_turn(side, 3);
    cr_assert(stream_is_ready(side->stream), "%s", side->reason);
}

Test(stream_quiesce, only_a_ready_stream_can_be_quiesced_and_only_a_quiesced_one_goes_on)
{
    auto_err err_t *e = NULL;
    side_t side;
    side_set_up(&side);
    cr_assert(!stream_quiesce(side.stream, 0));
    side_make_ready(&side);
    cr_assert_eq(stream_resync(side.stream, &side_identity, 0, &e), -1);
    cr_assert(stream_quiesce(side.stream, 0));
    cr_assert(!stream_quiesce(side.stream, 0));
    cr_assert(!stream_is_quiesced(side.stream));
    err_free(&e);
    cr_assert_eq(stream_resync(side.stream, &side_identity, 0, &e), -1);
    side_tear_down(&side);
}

Test(stream_quiesce, hands_on_what_comes_before_quiesced_and_goes_on_with_resync)
{
    side_t side;
    set_up(&side);
    cr_assert(stream_quiesce(side.stream, 0));
    cr_assert(!stream_is_ready(side.stream));
    expect(&side, ENVELOPE_KIND_QUIESCE, 0);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_CHUNK, .call_id = 7, .channel = 1}, "last words", 10);
    side_turn(&side, 2);
    cr_assert_eq(side.frames, 1);
    cr_assert(!stream_is_quiesced(side.stream));
    side_send(&side, quiesced, NULL, 0);
    side_turn(&side, 2);
    cr_assert_eq(side.frames, 2);
    cr_assert(stream_is_quiesced(side.stream));
    cr_assert_str_eq(buf_cstr(&side.body), "last words");
    stream_identity_t identity = side_identity;
    identity.epoch = 43;
    cr_assert_eq(stream_resync(side.stream, &identity, 0, NULL), 0);
    go_on(&side);
    cr_assert_eq(side.epoch, 43);
    cr_assert(side.is_continued);
    cr_assert_eq(side.readies, 2);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_CHUNK, .call_id = 7, .channel = 1, .offset = 10}, " more", 5);
    side_turn(&side, 2);
    cr_assert_str_eq(buf_cstr(&side.body), "last words more");
    side_tear_down(&side);
}

Test(stream_quiesce, only_the_daemon_that_read_quiesced_says_continued_and_it_names_its_sandbox)
{
    side_t side;
    set_up(&side);
    cr_assert(!side.is_continued);
    cr_assert_arr_eq(side.sandbox.bytes, SANDBOX.bytes, 16);
    make_quiesced(&side);
    stream_identity_t identity = side_identity;
    identity.sandbox = (uuid16_t){{9, 9}};
    cr_assert_eq(stream_resync(side.stream, &identity, 0, NULL), 0);
    go_on(&side);
    cr_assert(side.is_continued);
    cr_assert_arr_eq(side.sandbox.bytes, identity.sandbox.bytes, 16);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 1}, NULL, 0);
    side_turn(&side, 2);
    cr_assert_arr_eq(side.env.sandbox.bytes, identity.sandbox.bytes, 16);
    stream_set_sandbox(side.stream, &SANDBOX);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 1}, NULL, 0);
    side_turn(&side, 2);
    cr_assert_arr_eq(side.env.sandbox.bytes, SANDBOX.bytes, 16);
    side_tear_down(&side);
}

Test(stream_quiesce, goes_on_from_within_the_handler_of_quiesced_even_behind_other_frames)
{
    for (int is_paused = 0; is_paused < 2; is_paused++) {
        side_t side;
        set_up(&side);
        side.resync_when_quiesced = true;
        stream_pause(side.stream, is_paused);
        side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 3}, "abc", 3);
        side_turn(&side, 2);
        cr_assert(stream_quiesce(side.stream, 0));
        expect(&side, ENVELOPE_KIND_QUIESCE, 0);
        side_send(&side, quiesced, NULL, 0);
        side_turn(&side, 3);
        go_on(&side);
        cr_assert_str_eq(buf_cstr(&side.body), "abc");
        side_tear_down(&side);
    }
}

Test(stream_quiesce, what_was_queued_is_written_first_whole_and_nothing_is_taken_meanwhile)
{
    side_t side;
    uint8_t body[STREAM_FRAME_DOWN_MAX];
    static const uint8_t big[60000];
    envelope_t env;
    uint64_t sent = 0, got = 0;
    size_t bytes = 0;
    set_up(&side);
    while (send_down(&side, sent + 1, big, sizeof big))
        sent++;
    cr_assert_gt(stream_queued_bytes(side.stream), STREAM_QUEUE_MAX - 2 * sizeof big);
    cr_assert(stream_quiesce(side.stream, 0), "a full queue must not stop it");
    envelope_t cancel = {.kind = ENVELOPE_KIND_CANCEL, .call_id = 1};
    cr_assert(!stream_send(side.stream, &cancel, NULL, 0));
    for (;;) {
        side_turn(&side, 1);
        size_t len = side_receive(&side, &env, body);
        if (env.kind == ENVELOPE_KIND_QUIESCE)
            break;
        cr_assert_eq(env.kind, ENVELOPE_KIND_REQUEST);
        cr_assert_eq(env.call_id, got + 1);
        bytes += len;
        got += !(env.flags & ENVELOPE_MORE);
    }
    cr_assert_eq(got, sent);
    cr_assert_eq(bytes, sent * sizeof big);
    side_send(&side, quiesced, NULL, 0);
    side_turn(&side, 2);
    cr_assert(stream_is_quiesced(side.stream));
    cr_assert(!stream_send(side.stream, &cancel, NULL, 0));
    side_turn(&side, 2);
    cr_assert(!has_input(&side), "written after QUIESCED");
    cr_assert_eq(side.writables, 0);
    cr_assert_eq(stream_resync(side.stream, &side_identity, 0, NULL), 0);
    go_on(&side);
    cr_assert_eq(side.writables, 1, "who was refused must hear of it");
    cr_assert(stream_send(side.stream, &cancel, NULL, 0));
    expect(&side, ENVELOPE_KIND_CANCEL, 1);
    side_tear_down(&side);
}

Test(stream_quiesce, a_paused_stream_is_drained_and_stays_paused_afterwards)
{
    side_t side;
    static const uint8_t body[30000];
    unsigned sent = 0;
    set_up(&side);
    cr_assert_eq(fcntl(side.from_agent, F_SETFL, O_NONBLOCK), 0);
    stream_pause(side.stream, true);
    for (; sent < 20; sent++)
        side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = sent + 1}, body, sizeof body);
    side_turn(&side, 3);
    cr_assert_eq(side.frames, 0);
    cr_assert(stream_quiesce(side.stream, 0));
    expect(&side, ENVELOPE_KIND_QUIESCE, 0);
    side_send(&side, quiesced, NULL, 0);
    side_turn(&side, 5);
    cr_assert_eq(side.frames, sent + 1);
    cr_assert(stream_is_quiesced(side.stream));
    cr_assert_eq(stream_resync(side.stream, &side_identity, 0, NULL), 0);
    go_on(&side);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 99}, NULL, 0);
    side_turn(&side, 3);
    cr_assert_eq(side.frames, sent + 1, "still paused");
    stream_pause(side.stream, false);
    side_turn(&side, 3);
    cr_assert_eq(side.env.call_id, 99);
    side_tear_down(&side);
}

Test(stream_quiesce, a_paused_stream_takes_no_more_than_the_limit)
{
    side_t side;
    static const uint8_t body[32000];
    size_t limit = STREAM_QUIESCE_EXTRA / sizeof body + 2;
    set_up(&side);
    stream_pause(side.stream, true);
    cr_assert(stream_quiesce(side.stream, 0));
    for (size_t i = 0; i < 3 * limit; i++) {
        int waiting = 0;
        cr_assert_eq(ioctl(side.from_agent, FIONREAD, &waiting), 0);
        if (waiting < 500000) /* else it has stopped reading */
            side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_CHUNK, .call_id = 1, .channel = 1}, body, sizeof body);
        side_turn(&side, 1);
    }
    cr_assert(side.frames + 3 > limit && side.frames <= limit, "%u frames", side.frames);
    cr_assert(!side.is_broken);
    side_send(&side, quiesced, NULL, 0);
    side_turn(&side, 10);
    cr_assert(!stream_is_quiesced(side.stream));
    stream_pause(side.stream, false);
    side_turn(&side, 50);
    cr_assert(stream_is_quiesced(side.stream));
    side_tear_down(&side);
}

Test(stream_quiesce, breaks_when_the_agent_does_not_answer)
{
    side_t side;
    set_up(&side);
    cr_assert(stream_quiesce(side.stream, 50));
    while (!side.is_broken)
        event_base_loop(side.base, EVLOOP_ONCE);
    cr_assert_not_null(strstr(side.reason, "QUIESCE"));
    side_tear_down(&side);
}

Test(stream_quiesce, the_timeout_ends_with_the_answer)
{
    side_t side;
    set_up(&side);
    cr_assert(stream_quiesce(side.stream, 50));
    expect(&side, ENVELOPE_KIND_QUIESCE, 0);
    side_send(&side, quiesced, NULL, 0);
    struct timeval later = {.tv_usec = 150000};
    event_base_loopexit(side.base, &later);
    event_base_dispatch(side.base);
    cr_assert(!side.is_broken);
    side_tear_down(&side);
}

Test(stream_quiesce, an_answer_that_nobody_asked_for_ends_the_stream)
{
    static const uint8_t big[60000];
    for (int was_asked = 0; was_asked < 2; was_asked++) {
        side_t side;
        set_up(&side);
        if (was_asked) { /* but cannot have heard it yet */
            while (send_down(&side, 1, big, sizeof big))
                ;
            cr_assert(stream_quiesce(side.stream, 0));
        }
        side_send(&side, quiesced, NULL, 0);
        side_turn(&side, 2);
        cr_assert(side.is_broken);
        cr_assert_eq(side.frames, 0);
        side_tear_down(&side);
    }
}

Test(stream_quiesce, bytes_after_quiesced_are_not_handed_on)
{
    side_t side;
    set_up(&side);
    cr_assert(stream_quiesce(side.stream, 0));
    expect(&side, ENVELOPE_KIND_QUIESCE, 0);
    uint8_t bytes[512];
    size_t len = side_encode(bytes, quiesced, NULL, 0);
    len += side_encode(bytes + len, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 5}, "x", 1);
    side_write(&side, bytes, len + 7); /* and part of a frame */
    side_turn(&side, 3);
    cr_assert(stream_is_quiesced(side.stream));
    side_write(&side, bytes, 100);
    side_turn(&side, 3);
    cr_assert_eq(side.frames, 1);
    cr_assert_eq(stream_resync(side.stream, &side_identity, 0, NULL), 0);
    go_on(&side);
    cr_assert_eq(side.frames, 1);
    side_tear_down(&side);
}
