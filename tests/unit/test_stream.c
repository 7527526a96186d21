// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/stream_side.c
#include "common/clock.h"
#include "common/mem.h"
#include "tests/unit/stream_side.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(stream, .timeout = 20);

Test(stream, is_ready_after_marker_and_adopt_and_hands_frames_on)
{
    side_t side;
    side_set_up(&side);
    cr_assert(!stream_is_ready(side.stream));
    side_make_ready(&side);
    cr_assert(stream_is_ready(side.stream));
    cr_assert_eq(side.epoch, 42);
    cr_assert_str_eq(side.kill_tree, "cgroup");
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 9}, "hello", 5);
    side_turn(&side, 2);
    cr_assert_eq(side.frames, 1);
    cr_assert_eq(side.env.call_id, 9);
    cr_assert_str_eq(buf_cstr(&side.body), "hello");
    side_tear_down(&side);
}

Test(stream, never_believes_the_sandbox_that_an_agent_claims)
{
    side_t side;
    side_set_up(&side);
    side_make_ready(&side);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 9, .sandbox = {{9, 9, 9}}}, NULL, 0);
    side_turn(&side, 2);
    cr_assert_arr_eq(side.env.sandbox.bytes, SANDBOX.bytes, 16);
    side_tear_down(&side);
}

Test(stream, finds_the_marker_behind_any_garbage_cut_anywhere)
{
    for (size_t garbage = 0; garbage < 400; garbage += 7) {
        for (size_t cut = 1; cut < 90; cut += 11) {
            side_t side;
            uint8_t bytes[1024];
            side_set_up(&side);
            side_take_resync(&side);
            for (size_t i = 0; i < garbage; i++)
                bytes[i] = (uint8_t)(i * 31 + cut);
            if (garbage >= 100) /* the beginning of a marker frame, cut off, and a nonce without one */
                memcpy(bytes + 50, side.nonce, 16);
            size_t len =
                garbage + side_encode(bytes + garbage, (envelope_t){.kind = ENVELOPE_KIND_MARKER}, side.nonce, 16);
            for (size_t at = 0; at < len; at += cut) {
                side_write(&side, bytes + at, len - at < cut ? len - at : cut);
                side_turn(&side, 1);
            }
            side_adopt(&side);
            side_turn(&side, 2);
            cr_assert(side.is_ready, "garbage %zu, cut %zu: %s", garbage, cut, side.reason);
            cr_assert_eq(side.frames, 0);
            side_tear_down(&side);
        }
    }
}

Test(stream, discards_what_an_earlier_daemon_left_even_its_marker)
{
    side_t side;
    uint8_t frame[STREAM_FRAME_UP_MAX], body[3000] = {0};
    side_set_up(&side);
    side_take_resync(&side);
    size_t len = side_encode(frame, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 5}, body, sizeof body);
    side_write(&side, frame + 1000, len - 1000); /* the second part of a frame whose first part was read */
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_MARKER}, "an older nonce..", 16);
    side_adopt(&side);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 6}, "old", 3);
    side_turn(&side, 2);
    cr_assert(!side.is_ready);
    side_mark(&side);
    side_adopt(&side);
    side_turn(&side, 2);
    cr_assert(side.is_ready);
    cr_assert_eq(side.frames, 0);
    side_tear_down(&side);
}

Test(stream, second_daemon_takes_over_fifos_from_a_killed_one)
{
    side_t side = {.base = event_base_new()};
    char dir[] = "/tmp/stream-XXXXXX", up[64], down[64];
    cr_assert_not_null(mkdtemp(dir));
    snprintf(up, sizeof up, "%s/up", dir);
    snprintf(down, sizeof down, "%s/down", dir);
    cr_assert_eq(mkfifo(up, 0600) + mkfifo(down, 0600), 0);
    side.to_agent = open(down, O_RDWR | O_CLOEXEC);
    side.from_agent = open(up, O_RDWR | O_CLOEXEC);
    stream_t *first = side_open_on(&side, open(up, O_RDWR | O_CLOEXEC), open(down, O_RDWR | O_CLOEXEC), 0);
    side_take_resync(&side);
    stream_destroy(&first); /* it never read: 20000 bytes stay in the pipe */
    uint8_t body[20000] = {0};
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 5}, body, sizeof body);
    side.stream = side_open_on(&side, open(up, O_RDWR | O_CLOEXEC), open(down, O_RDWR | O_CLOEXEC), 0);
    side_make_ready(&side);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 5}, "now", 3);
    side_turn(&side, 2);
    cr_assert_eq(side.frames, 1);
    side_tear_down(&side);
    unlink(up);
    unlink(down);
    rmdir(dir);
}

typedef struct bad_frame {
    const char *what;
    envelope_t env;
    size_t body_len;
    uint32_t raw_length; /* not 0: written in place of the right one */
} bad_frame_t;

static const bad_frame_t bad_frames[] = {
    {"HELLO", {.kind = ENVELOPE_KIND_HELLO}, 0, 0},
    {"REQUEST", {.kind = ENVELOPE_KIND_REQUEST, .call_id = 1, .verb = 1}, 0, 0},
    {"a second MARKER", {.kind = ENVELOPE_KIND_MARKER}, 16, 0},
    {"a second ADOPT", {.kind = ENVELOPE_KIND_ADOPT}, 0, 0},
    {"CANCEL", {.kind = ENVELOPE_KIND_CANCEL, .call_id = 1}, 0, 0},
    {"RESYNC", {.kind = ENVELOPE_KIND_RESYNC}, 0, 0},
    {"REPLY without call", {.kind = ENVELOPE_KIND_REPLY}, 0, 0},
    {"CHUNK without call", {.kind = ENVELOPE_KIND_CHUNK}, 0, 0},
    {"CREDIT with body", {.kind = ENVELOPE_KIND_CREDIT, .call_id = 1}, 3, 0},
    {"unknown kind", {.kind = 99}, 0, 0},
    {"kind 0", {.kind = 0}, 0, 0},
    {"unknown flag", {.kind = ENVELOPE_KIND_REPLY, .call_id = 1, .flags = 128}, 0, 0},
    {"unknown channel", {.kind = ENVELOPE_KIND_CHUNK, .call_id = 1, .channel = 4}, 0, 0},
    {"length 0", {.kind = ENVELOPE_KIND_REPLY, .call_id = 1}, 0, 1},
    {"length below an envelope", {.kind = ENVELOPE_KIND_REPLY, .call_id = 1}, 0, 67},
    {"length over the limit", {.kind = ENVELOPE_KIND_REPLY, .call_id = 1}, 0, STREAM_FRAME_UP_MAX + 1},
    {"length of 4 GiB", {.kind = ENVELOPE_KIND_REPLY, .call_id = 1}, 0, UINT32_MAX},
};

Test(stream, every_broken_rule_ends_the_stream_and_only_it)
{
    for (size_t i = 0; i < COUNT_OF(bad_frames); i++) {
        const bad_frame_t *bad = &bad_frames[i];
        uint8_t frame[256], body[32] = {0};
        side_t side;
        side_set_up(&side);
        side_make_ready(&side);
        size_t len = side_encode(frame, bad->env, body, bad->body_len);
        if (bad->raw_length != 0)
            memcpy(frame, &bad->raw_length, 4);
        side_write(&side, frame, len);
        side_turn(&side, 2);
        cr_assert(side.is_broken, "%s was let through", bad->what);
        cr_assert_eq(side.frames, 0);
        side_tear_down(&side);
    }
}

Test(stream, anything_but_adopt_after_the_marker_ends_it)
{
    side_t side;
    side_set_up(&side);
    side_take_resync(&side);
    side_mark(&side);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 1}, NULL, 0);
    side_turn(&side, 2);
    cr_assert(side.is_broken && !side.is_ready);
    side_tear_down(&side);
}

Test(stream, adopt_may_come_in_parts_but_not_without_end)
{
    auto_buf buf_t body = {0};
    uint8_t zeros[STREAM_BODY_UP_MAX] = {0};
    side_t side;
    side_encode_adopt(&body);
    side_set_up(&side);
    side_take_resync(&side);
    side_mark(&side);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_ADOPT, .flags = ENVELOPE_MORE}, body.data, 5);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_ADOPT}, body.data + 5, body.len - 5);
    side_turn(&side, 2);
    cr_assert(side.is_ready);
    side_tear_down(&side);
    side_set_up(&side);
    side_take_resync(&side);
    side_mark(&side);
    for (int i = 0; i < 20 && !side.is_broken; i++) {
        side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_ADOPT, .flags = ENVELOPE_MORE}, zeros, sizeof zeros);
        side_turn(&side, 2);
    }
    cr_assert(side.is_broken);
    side_tear_down(&side);
}

Test(stream, a_silent_agent_breaks_it_in_time)
{
    side_t side;
    side_set_up(&side);
    stream_destroy(&side.stream);
    int pipes[2];
    cr_assert_eq(pipe2(pipes, O_CLOEXEC), 0);
    side.stream = side_open_on(&side, pipes[0], pipes[1], 50);
    /* Our own RESYNC comes back to us: not a MARKER. */
    uint64_t start = clock_monotonic_ms();
    while (!side.is_broken && clock_monotonic_ms() - start < 5000)
        event_base_loop(side.base, EVLOOP_ONCE);
    cr_assert(side.is_broken);
    cr_assert_lt(clock_monotonic_ms() - start, 1000);
    cr_assert(strstr(side.reason, "RESYNC") != NULL);
    side_tear_down(&side);
}

Test(stream, long_messages_are_split_into_frames_that_one_write_takes)
{
    uint8_t body[10000], got[STREAM_FRAME_DOWN_MAX];
    envelope_t env;
    side_t side;
    side_set_up(&side);
    side_make_ready(&side);
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 7);
    cr_assert(stream_send(side.stream,
                          &(envelope_t){.kind = ENVELOPE_KIND_REQUEST, .verb = 3, .call_id = 1, .flags = ENVELOPE_KEEP},
                          body, sizeof body));
    for (size_t at = 0; at < sizeof body;) {
        size_t len = side_receive(&side, &env, got);
        cr_assert_arr_eq(got, body + at, len);
        at += len;
        cr_assert_eq(env.flags, ENVELOPE_KEEP | (at < sizeof body ? ENVELOPE_MORE : 0));
        cr_assert_eq(env.verb, 3);
    }
    cr_assert(stream_send(
        side.stream, &(envelope_t){.kind = ENVELOPE_KIND_CHUNK, .call_id = 1, .flags = ENVELOPE_END, .offset = 500},
        body, sizeof body));
    for (size_t at = 0; at < sizeof body;) {
        size_t len = side_receive(&side, &env, got);
        cr_assert_eq(env.offset, 500 + at);
        at += len;
        cr_assert_eq(env.flags, at < sizeof body ? 0 : ENVELOPE_END);
    }
    side_tear_down(&side);
}

Test(stream, slow_agent_fills_a_bounded_queue_and_loses_nothing)
{
    static uint8_t body[60000];
    uint8_t got[STREAM_FRAME_DOWN_MAX];
    envelope_t env;
    side_t side;
    size_t sent = 0, received = 0;
    side_set_up(&side);
    side_make_ready(&side);
    while (stream_send(side.stream, &(envelope_t){.kind = ENVELOPE_KIND_CHUNK, .call_id = 1, .offset = sent}, body,
                       sizeof body))
        sent += sizeof body;
    cr_assert_leq(stream_queued_bytes(side.stream), STREAM_QUEUE_MAX);
    cr_assert_gt(stream_queued_bytes(side.stream), STREAM_QUEUE_MAX - 2 * (int)sizeof body);
    /* What makes the queue shorter passes. */
    cr_assert(stream_send(side.stream, &(envelope_t){.kind = ENVELOPE_KIND_CANCEL, .call_id = 1}, NULL, 0));
    cr_assert_eq(side.writables, 0);
    while (received < sent) {
        size_t len = side_receive(&side, &env, got);
        cr_assert_eq(env.offset, received);
        received += len;
        side_turn(&side, 1);
    }
    cr_assert_eq(side.writables, 1);
    side_receive(&side, &env, got);
    cr_assert_eq(env.kind, ENVELOPE_KIND_CANCEL);
    cr_assert_eq(stream_queued_bytes(side.stream), 0);
    side_tear_down(&side);
}

Test(stream, pausing_stops_frames_at_once_and_keeps_them)
{
    side_t side;
    side_set_up(&side);
    side_make_ready(&side);
    side.pause_after_frame = true;
    for (int i = 0; i < 5; i++)
        side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_EVENT, .call_id = 1}, "e", 1);
    side_turn(&side, 5);
    cr_assert_eq(side.frames, 1);
    for (unsigned i = 2; i <= 5; i++) {
        stream_pause(side.stream, false);
        side_turn(&side, 3);
        cr_assert_eq(side.frames, i);
    }
    stream_pause(side.stream, false);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_EVENT, .call_id = 1}, "e", 1);
    side_turn(&side, 3);
    cr_assert_eq(side.frames, 6);
    side_tear_down(&side);
}

Test(stream, may_be_destroyed_by_its_own_handler)
{
    side_t side;
    side_set_up(&side);
    side_make_ready(&side);
    side.destroy_in_frame = true;
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_EVENT, .call_id = 1}, "e", 1);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_EVENT, .call_id = 1}, "e", 1);
    side_turn(&side, 3);
    cr_assert_eq(side.frames, 1);
    cr_assert_null(side.stream);
    side_tear_down(&side);
}

static void set_up_socket(side_t *side)
{
    int pair[2];
    *side = (side_t){.base = event_base_new()};
    signal(SIGPIPE, SIG_IGN);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    side->to_agent = side->from_agent = pair[0];
    side->stream = side_open_on(side, pair[1], pair[1], 0);
}

Test(stream, works_over_one_socket_that_takes_parts_of_frames)
{
    static uint8_t body[60000];
    uint8_t got[STREAM_FRAME_DOWN_MAX];
    envelope_t env;
    side_t side;
    size_t sent = 0, received = 0;
    set_up_socket(&side);
    side_make_ready(&side);
    while (sent < 3000000 &&
           stream_send(side.stream, &(envelope_t){.kind = ENVELOPE_KIND_CHUNK, .call_id = 1, .offset = sent}, body,
                       sizeof body))
        sent += sizeof body;
    while (received < sent) {
        size_t len = side_receive(&side, &env, got);
        cr_assert_eq(env.offset, received);
        received += len;
        side_turn(&side, 1);
    }
    side_tear_down(&side);
}

Test(stream, end_of_file_breaks_it_after_the_last_frame)
{
    side_t side;
    set_up_socket(&side);
    side_make_ready(&side);
    side_send(&side, (envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 1}, "last", 4);
    shutdown(side.from_agent, SHUT_WR);
    side_turn(&side, 3);
    cr_assert_eq(side.frames, 1);
    cr_assert(side.is_broken);
    side_tear_down(&side);
}

Test(stream, carries_large_frames_whole_at_any_cut)
{
    static uint8_t frame[STREAM_FRAME_UP_MAX], body[STREAM_BODY_UP_MAX];
    side_t side;
    side_set_up(&side);
    side_make_ready(&side);
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 13);
    size_t len = side_encode(frame, (envelope_t){.kind = ENVELOPE_KIND_CHUNK, .call_id = 1}, body, sizeof body);
    cr_assert_eq(len, STREAM_FRAME_UP_MAX);
    for (size_t cut = 1; cut < len; cut = cut * 3 + 1) {
        side_write(&side, frame, cut);
        side_turn(&side, 2);
        side_write(&side, frame + cut, len - cut);
        side_turn(&side, 2);
        cr_assert_eq(side.body.len, sizeof body);
        cr_assert_arr_eq(side.body.data, body, sizeof body);
        buf_reset(&side.body);
    }
    side_tear_down(&side);
}
