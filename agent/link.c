// SPDX-License-Identifier: Apache-2.0
#include "agent/link.h"

#include "agent/blocks.h"
#include "agent/calls.h"
#include "agent/loop.h"
#include "agent/session.h"
#include "common/buf.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#define READ_SIZE ((size_t)64 * 1024)
#define READ_TURN ((size_t)256 * 1024) /* then other work of the loop gets its turn */
#define WRITE_TURN ((size_t)256 * 1024)
#define OUT_KEEP ((size_t)512 * 1024) /* memory of the output queue that an idle agent may hold */
#define QUEUE_MAX ((size_t)8 * 1024 * 1024)

static struct {
    int fd_in;
    int fd_out;
    void (*on_closed)(void);
    uint8_t *input; /* STREAM_FRAME_DOWN_MAX of a cut frame, and READ_SIZE */
    size_t input_len;
    bool is_hunting; /* frame borders are lost: skip to the next RESYNC */
    uint8_t *blocks; /* READ_SIZE, when input comes in blocks */
    buf_t out;
    size_t out_at;      /* bytes of `out` that are written */
    size_t frame_start; /* the frame that is being written, or is next */
    size_t frame_end;
    bool is_silent;
    bool is_out_watched;
} stream = {.fd_in = -1, .fd_out = -1, .is_silent = true};

static bool is_resync_at(const uint8_t *bytes, size_t len, size_t *frame_len)
{
    envelope_t env;
    long total = stream_frame_length(bytes, len, STREAM_FRAME_DOWN_MAX);
    if (total <= 0 || !envelope_decode(&env, bytes + STREAM_LENGTH_SIZE, ENVELOPE_SIZE))
        return false;
    *frame_len = (size_t)total;
    return env.kind == ENVELOPE_KIND_RESYNC && session_is_resync(bytes + STREAM_LENGTH_SIZE + ENVELOPE_SIZE,
                                                                 *frame_len - STREAM_LENGTH_SIZE - ENVELOPE_SIZE);
}

/* Returns how many bytes to skip; a possible beginning of a RESYNC at the end stays. */
static size_t hunt(const uint8_t *bytes, size_t len)
{
    size_t frame_len;
    for (size_t i = 0; i < len; i++) {
        if (is_resync_at(bytes + i, len - i, &frame_len)) {
            stream.is_hunting = false;
            return i;
        }
    }
    size_t keep = len < STREAM_FRAME_DOWN_MAX - 1 ? len : STREAM_FRAME_DOWN_MAX - 1;
    return len - keep;
}

static void frame_handle(const uint8_t *frame, size_t total)
{
    envelope_t env;
    const uint8_t *body = frame + STREAM_LENGTH_SIZE + ENVELOPE_SIZE;
    size_t body_len = total - STREAM_LENGTH_SIZE - ENVELOPE_SIZE;
    if (!envelope_decode(&env, frame + STREAM_LENGTH_SIZE, ENVELOPE_SIZE))
        return;
    if (!session_on_frame(&env, body, body_len) && !stream.is_silent)
        calls_on_frame(&env, body, body_len);
}

/* Handles whole frames at the start of `bytes`; returns how much was used. */
static size_t parse(const uint8_t *bytes, size_t len)
{
    size_t at = 0;
    while (at < len) {
        if (stream.is_hunting) {
            at += hunt(bytes + at, len - at);
            if (stream.is_hunting)
                return at;
        }
        long total = stream_frame_length(bytes + at, len - at, STREAM_FRAME_DOWN_MAX);
        if (total == 0)
            return at;
        if (total < 0) {
            stream.is_hunting = true;
            continue;
        }
        frame_handle(bytes + at, (size_t)total);
        at += (size_t)total;
    }
    return at;
}

static void input_parse(void)
{
    size_t used = parse(stream.input, stream.input_len);
    stream.input_len -= used;
    if (used > 0 && stream.input_len > 0)
        memmove(stream.input, stream.input + used, stream.input_len);
}

static void input_alloc(void)
{
    if (stream.input == NULL)
        stream.input = mem_alloc(READ_SIZE + STREAM_FRAME_DOWN_MAX);
}

void link_feed(const uint8_t *bytes, size_t len)
{
    input_alloc();
    while (len > 0) {
        size_t room = READ_SIZE + STREAM_FRAME_DOWN_MAX - stream.input_len;
        size_t part = len < room ? len : room;
        memcpy(stream.input + stream.input_len, bytes, part);
        stream.input_len += part;
        bytes += part;
        len -= part;
        input_parse();
    }
}

static void input_begin(void)
{
    stream.input_len = 0;
    stream.is_hunting = false;
}

static void on_input(void *arg, int fd, short revents)
{
    (void)arg;
    (void)revents;
    for (size_t turn = 0; turn < READ_TURN;) {
        ssize_t n = read(fd, stream.blocks ? stream.blocks : stream.input + stream.input_len, READ_SIZE);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            loop_watch(fd, 0, NULL, NULL);
            stream.on_closed();
            return;
        }
        turn += (size_t)n;
        if (stream.blocks) {
            blocks_take(stream.blocks, (size_t)n, link_feed, input_begin);
        } else {
            stream.input_len += (size_t)n;
            input_parse();
        }
        if ((size_t)n < READ_SIZE)
            return; /* most often nothing is left: poll tells, for less than another read */
    }
}

/* A frame that was begun is finished whatever happens, or its reader would lose the borders of frames. */
static void frame_find(void)
{
    while (stream.frame_end <= stream.out_at && stream.frame_end < stream.out.len) {
        const uint8_t *at = stream.out.data + stream.frame_end;
        stream.frame_start = stream.frame_end;
        stream.frame_end += (size_t)at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
    }
}

static void queue_empty(void)
{
    if (stream.out.cap > OUT_KEEP)
        buf_free(&stream.out);
    else
        buf_reset(&stream.out);
    stream.out_at = stream.frame_start = stream.frame_end = 0;
}

static void queue_compact(void)
{
    if (stream.out_at == stream.out.len) {
        queue_empty();
    } else if (stream.frame_start > LINK_QUEUE_HIGH) {
        buf_consume(&stream.out, stream.frame_start);
        stream.out_at -= stream.frame_start;
        stream.frame_end -= stream.frame_start;
        stream.frame_start = 0;
    }
}

static void on_output(void *arg, int fd, short revents)
{
    (void)arg;
    stream.is_out_watched = false;
    loop_watch(fd, 0, NULL, NULL);
    /* With the reader gone there is nobody to write to; the next POLLOUT follows a new reader's RESYNC. */
    if (revents & (POLLERR | POLLNVAL))
        link_reset();
}

static bool is_written(size_t *turn)
{
    while (stream.out_at < stream.out.len) {
        ssize_t n = write(stream.fd_out, stream.out.data + stream.out_at, stream.out.len - stream.out_at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        stream.out_at += (size_t)n;
        *turn += (size_t)n;
        frame_find();
    }
    return true;
}

bool link_flush(void)
{
    size_t turn = 0;
    while (stream.fd_out >= 0 && !stream.is_out_watched) {
        bool is_all = is_written(&turn);
        queue_compact();
        if (link_has_room())
            calls_on_link_room();
        if (!is_all) {
            stream.is_out_watched = true;
            loop_watch(stream.fd_out, POLLOUT, on_output, NULL);
            return false;
        }
        if (stream.out_at == stream.out.len)
            return false;
        if (turn >= WRITE_TURN)
            return true;
    }
    return false;
}

void link_send(const envelope_t *env, const void *body, size_t body_len)
{
    size_t room = STREAM_LENGTH_SIZE + ENVELOPE_SIZE + body_len;
    bool is_last = env->kind == ENVELOPE_KIND_QUIESCED;
    if (stream.is_silent || (stream.out.len - stream.out_at > QUEUE_MAX && !is_last))
        return;
    uint8_t *at = buf_reserve(&stream.out, room);
    if (at == NULL)
        abort(); /* the limits above make it impossible */
    buf_commit(&stream.out, stream_frame_encode(env, body, body_len, at));
    frame_find();
}

bool link_has_room(void)
{
    return !stream.is_silent && stream.out.len - stream.out_at < LINK_QUEUE_HIGH;
}

void link_reset(void)
{
    if (stream.out_at > stream.frame_start && stream.out_at < stream.frame_end)
        buf_truncate(&stream.out, stream.frame_end);
    else
        queue_empty();
}

void link_set_silent(bool is_silent)
{
    stream.is_silent = is_silent;
}

bool link_is_silent(void)
{
    return stream.is_silent;
}

size_t link_queued_bytes(void)
{
    return stream.out.len - stream.out_at;
}

static void nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0)
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

void link_init(int fd_in, int fd_out, void (*on_closed)(void))
{
    stream.fd_in = fd_in;
    stream.fd_out = fd_out;
    stream.on_closed = on_closed;
    buf_init(&stream.out, 2 * QUEUE_MAX);
    input_alloc();
    if (blocks_are_used())
        stream.blocks = mem_alloc(READ_SIZE);
    nonblocking(fd_in);
    nonblocking(fd_out);
    loop_watch(fd_in, POLLIN, on_input, NULL);
}
