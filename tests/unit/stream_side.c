// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/stream_side.h"

#include "common/mem.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

const stream_identity_t side_identity = {
    .sandbox = SANDBOX, .epoch = 42, .machine_id = "0123456789abcdef0123456789abcdef", .hostname = "box"};

static void on_ready(void *arg, const struct adopt *adopt)
{
    side_t *side = arg;
    side->is_ready = true;
    side->readies++;
    snprintf(side->kill_tree, sizeof side->kill_tree, "%s", adopt->kill_tree);
}

static void on_frame(void *arg, const envelope_t *env, const uint8_t *body, size_t len)
{
    side_t *side = arg;
    side->frames++;
    side->env = *env;
    buf_append(&side->body, body, len);
    if (side->pause_after_frame)
        stream_pause(side->stream, true);
    if (side->destroy_in_frame)
        stream_destroy(&side->stream);
    else if (side->resync_when_quiesced && env->kind == ENVELOPE_KIND_QUIESCED)
        cr_assert_eq(stream_resync(side->stream, &side_identity, 0, NULL), 0);
}

static void on_writable(void *arg)
{
    ((side_t *)arg)->writables++;
}

static void on_broken(void *arg, const char *reason)
{
    side_t *side = arg;
    cr_assert(!side->is_broken);
    side->is_broken = true;
    snprintf(side->reason, sizeof side->reason, "%s", reason);
    stream_destroy(&side->stream);
}

static const stream_events_t events = {on_ready, on_frame, on_writable, on_broken};

stream_t *side_open_on(side_t *side, int fd_in, int fd_out, uint32_t timeout_ms)
{
    auto_err err_t *e = NULL;
    stream_t *s = stream_open(side->base, fd_in, fd_out, &side_identity, timeout_ms, &events, side, &e);
    cr_assert(s != NULL, "%s", e ? err_message(e) : "");
    return s;
}

/* Two pipes held as a provider holds its FIFOs: nobody ever sees an end of file. */
void side_set_up(side_t *side)
{
    int up[2], down[2];
    *side = (side_t){.base = event_base_new()};
    signal(SIGPIPE, SIG_IGN);
    cr_assert_eq(pipe2(up, O_CLOEXEC) + pipe2(down, O_CLOEXEC), 0);
    side->from_agent = up[1];
    side->to_agent = down[0];
    side->stream = side_open_on(side, up[0], down[1], 0);
}

void side_tear_down(side_t *side)
{
    stream_destroy(&side->stream);
    close(side->to_agent);
    if (side->from_agent != side->to_agent)
        close(side->from_agent);
    buf_free(&side->body);
    event_base_free(side->base);
}

void side_turn(side_t *side, unsigned turns)
{
    for (unsigned i = 0; i < turns; i++)
        event_base_loop(side->base, EVLOOP_NONBLOCK);
}

static void read_exactly(int fd, uint8_t *out, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = read(fd, out + at, len - at);
        cr_assert_gt(n, 0);
        at += (size_t)n;
    }
}

/* Next frame that the agent gets; body has STREAM_FRAME_DOWN_MAX. */
size_t side_receive(side_t *side, envelope_t *env, uint8_t *body)
{
    uint8_t frame[STREAM_FRAME_DOWN_MAX];
    read_exactly(side->to_agent, frame, STREAM_LENGTH_SIZE);
    size_t size = frame[0] | (size_t)frame[1] << 8;
    cr_assert(size >= STREAM_LENGTH_SIZE + ENVELOPE_SIZE && size <= STREAM_FRAME_DOWN_MAX);
    read_exactly(side->to_agent, frame + STREAM_LENGTH_SIZE, size - STREAM_LENGTH_SIZE);
    cr_assert(envelope_decode(env, frame + STREAM_LENGTH_SIZE, ENVELOPE_SIZE));
    memcpy(body, frame + STREAM_LENGTH_SIZE + ENVELOPE_SIZE, size - STREAM_LENGTH_SIZE - ENVELOPE_SIZE);
    return size - STREAM_LENGTH_SIZE - ENVELOPE_SIZE;
}

void side_write(side_t *side, const void *bytes, size_t len)
{
    cr_assert_eq(write(side->from_agent, bytes, len), (ssize_t)len);
}

size_t side_encode(uint8_t *out, envelope_t env, const void *body, size_t len)
{
    return stream_frame_encode(&env, body, len, out);
}

void side_send(side_t *side, envelope_t env, const void *body, size_t len)
{
    static uint8_t frame[STREAM_FRAME_UP_MAX];
    side_write(side, frame, side_encode(frame, env, body, len));
}

void side_take_resync(side_t *side)
{
    auto_err err_t *e = NULL;
    uint8_t body[STREAM_FRAME_DOWN_MAX];
    envelope_t env;
    struct resync resync;
    size_t len = side_receive(side, &env, body);
    cr_assert_eq(env.kind, ENVELOPE_KIND_RESYNC);
    cr_assert_eq(proto_decode(MSG_resync, &resync, body, len, &e), 0);
    cr_assert_eq(resync.nonce.len, 16);
    cr_assert_eq(resync.entropy.len, 32);
    cr_assert_str_eq(resync.hostname, "box");
    memcpy(side->nonce, resync.nonce.data, 16);
    side->epoch = resync.epoch;
    side->is_continued = resync.is_continued;
    side->sandbox = env.sandbox;
}

void side_encode_adopt(buf_t *body)
{
    auto_err err_t *e = NULL;
    struct adopt adopt = {.agent_release = "1", .version = 1, .kill_tree = "cgroup", .boot_epoch = 7};
    cr_assert_eq(proto_encode(MSG_adopt, &adopt, body, &e), 0);
}

void side_adopt(side_t *side)
{
    auto_buf buf_t body = {0};
    side_encode_adopt(&body);
    side_send(side, (envelope_t){.kind = ENVELOPE_KIND_ADOPT}, body.data, body.len);
}

void side_mark(side_t *side)
{
    side_send(side, (envelope_t){.kind = ENVELOPE_KIND_MARKER}, side->nonce, 16);
}

void side_make_ready(side_t *side)
{
    side_take_resync(side);
    side_mark(side);
    side_adopt(side);
    side_turn(side, 2);
    cr_assert(side->is_ready, "%s", side->reason);
}
