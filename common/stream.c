// SPDX-License-Identifier: Apache-2.0
/* A daemon's end of a sandbox's byte stream: opening, RESYNC, sending, the end. What comes up is in stream_in.c. */
#include "common/stream.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/stream_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define REASON_MAX 256
#define QUEUE_COMPACT (64 * 1024)

void stream_enter(stream_t *s)
{
    s->depth++;
}

bool stream_leave(stream_t *s)
{
    if (--s->depth > 0 || !s->is_destroyed)
        return !s->is_destroyed;
    free(s);
    return false;
}

/* Gives back everything but the struct itself. */
static void stream_close(stream_t *s)
{
    struct event **events[] = {&s->readable, &s->writable, &s->timeout};
    for (size_t i = 0; i < COUNT_OF(events); i++) {
        if (*events[i] != NULL)
            event_free(*events[i]);
        *events[i] = NULL;
    }
    if (s->fd_out != s->fd_in)
        fd_close_p(&s->fd_out);
    fd_close_p(&s->fd_in);
    s->fd_in = s->fd_out = -1;
    buf_free(&s->rest);
    buf_free(&s->adopt);
    buf_free(&s->queue);
    s->queue_start = 0;
}

void stream_destroy(stream_t **s)
{
    stream_t *dying = *s;
    if (dying == NULL)
        return;
    *s = NULL;
    stream_close(dying);
    dying->state = STREAM_BROKEN;
    dying->is_destroyed = true;
    stream_enter(dying);
    stream_leave(dying);
}

void stream_break(stream_t *s, const char *fmt, ...)
{
    char reason[REASON_MAX];
    va_list ap;
    if (s->state == STREAM_BROKEN)
        return;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    s->state = STREAM_BROKEN;
    event_del(s->readable);
    event_del(s->writable);
    event_del(s->timeout);
    stream_enter(s);
    s->events.on_broken(s->arg, reason);
    stream_leave(s);
}

/* ---- towards the agent ---- */

size_t stream_queued_bytes(const stream_t *s)
{
    return s->queue.len - s->queue_start;
}

static size_t frame_length_at(const stream_t *s, size_t at)
{
    long len = stream_frame_length(s->queue.data + at, s->queue.len - at, STREAM_FRAME_DOWN_MAX);
    return len > 0 ? (size_t)len : s->queue.len - at;
}

/* One write(): 0 = all, 1 = not now (or only part of it, on a socket: *written tells), -1 = broken, with errno. */
static int write_frame(int fd, const uint8_t *bytes, size_t len, size_t *written)
{
    ssize_t n;
    do
        n = write(fd, bytes, len);
    while (n < 0 && errno == EINTR);
    *written = n > 0 ? (size_t)n : 0;
    if (n < 0)
        return errno == EAGAIN ? 1 : -1;
    return *written == len ? 0 : 1;
}

static void queue_advance(stream_t *s, size_t len)
{
    s->queue_start += len;
    if (s->queue_start == s->queue.len) {
        if (s->queue.cap > QUEUE_COMPACT)
            buf_free(&s->queue);
        buf_reset(&s->queue);
        s->queue_start = 0;
    } else if (s->queue_start >= QUEUE_COMPACT && s->queue_start * 2 >= s->queue.len) {
        buf_consume(&s->queue, s->queue_start);
        s->queue_start = 0;
    }
}

/* Writes whole frames, one write() each, until the agent takes no more. */
static int flush(stream_t *s)
{
    while (stream_queued_bytes(s) > 0) {
        size_t left = s->frame_left > 0 ? s->frame_left : frame_length_at(s, s->queue_start);
        size_t written;
        int rc = write_frame(s->fd_out, s->queue.data + s->queue_start, left, &written);
        queue_advance(s, written);
        s->frame_left = left - written; /* 0: the next frame's length is looked up */
        if (rc != 0)
            return rc;
    }
    return 0;
}

void stream_tell_writable(stream_t *s)
{
    if (!s->is_full || s->state != STREAM_READY || stream_queued_bytes(s) >= STREAM_QUEUE_LOW)
        return;
    s->is_full = false;
    if (s->events.on_writable != NULL)
        s->events.on_writable(s->arg);
}

static void stream_on_writable(evutil_socket_t fd, short what, void *arg)
{
    stream_t *s = arg;
    (void)fd;
    (void)what;
    int rc = flush(s);
    stream_enter(s);
    if (rc < 0)
        stream_break(s, "cannot write to the agent: %s", strerror(errno));
    else if (rc == 0)
        event_del(s->writable);
    if (rc >= 0)
        stream_tell_writable(s);
    stream_leave(s);
}

static void send_frame(stream_t *s, const envelope_t *env, const uint8_t *body, size_t len)
{
    uint8_t frame[STREAM_FRAME_DOWN_MAX];
    size_t size = stream_frame_encode(env, body, len, frame);
    size_t written = 0;
    if (stream_queued_bytes(s) == 0 && write_frame(s->fd_out, frame, size, &written) == 0)
        return;
    /* An error shows again when the loop finds the descriptor writable, outside of the caller's stack. */
    if (stream_queued_bytes(s) == 0) {
        s->frame_left = size - written;
        event_add(s->writable, NULL);
    }
    buf_append(&s->queue, frame + written, size - written);
}

static bool is_control(unsigned kind)
{
    return kind == ENVELOPE_KIND_CREDIT || kind == ENVELOPE_KIND_CANCEL || kind == ENVELOPE_KIND_ACK ||
           kind == ENVELOPE_KIND_QUIESCE || kind == ENVELOPE_KIND_PRESSURE;
}

bool stream_send(stream_t *s, const envelope_t *env, const void *body, size_t len)
{
    size_t frames = len == 0 ? 1 : (len + STREAM_BODY_DOWN_MAX - 1) / STREAM_BODY_DOWN_MAX;
    size_t need = len + frames * (STREAM_LENGTH_SIZE + ENVELOPE_SIZE);
    size_t limit = STREAM_QUEUE_MAX + (is_control(env->kind) && frames == 1 ? STREAM_CONTROL_RESERVE : 0);
    const uint8_t *at = body;
    envelope_t part = *env;
    if (s->state != STREAM_READY || need + stream_queued_bytes(s) > limit) {
        s->is_full = true;
        return false;
    }
    for (size_t left = len; frames > 0; frames--) {
        size_t take = left < STREAM_BODY_DOWN_MAX ? left : STREAM_BODY_DOWN_MAX;
        if (frames == 1)
            part.flags = env->flags;
        else if (env->kind == ENVELOPE_KIND_CHUNK)
            part.flags = env->flags & (uint8_t)~ENVELOPE_END;
        else
            part.flags = env->flags | ENVELOPE_MORE;
        send_frame(s, &part, at, take);
        if (env->kind == ENVELOPE_KIND_CHUNK)
            part.offset += take;
        at += take;
        left -= take;
    }
    return true;
}

/* ---- opening ---- */

static int send_resync(stream_t *s, const stream_identity_t *identity, bool is_continued, err_t **e)
{
    auto_buf buf_t body;
    uint8_t entropy[STREAM_ENTROPY_SIZE];
    envelope_t env = {.kind = ENVELOPE_KIND_RESYNC, .sandbox = s->sandbox};
    random_bytes(s->nonce, sizeof s->nonce);
    random_bytes(entropy, sizeof entropy);
    struct resync resync = {
        .nonce = {s->nonce, sizeof s->nonce},
        .epoch = identity->epoch,
        .has.epoch = true,
        .realtime_ns = clock_realtime_ns(),
        .entropy = {entropy, sizeof entropy},
        .machine_id = identity->machine_id,
        .hostname = identity->hostname,
        .pids_max = identity->pids_max,
        .memory_budget_bytes = identity->memory_budget_bytes,
        .is_continued = is_continued,
    };
    buf_init(&body, STREAM_BODY_DOWN_MAX);
    int rc = proto_encode(MSG_resync, &resync, &body, e);
    mem_wipe(entropy, sizeof entropy);
    if (rc == 0)
        send_frame(s, &env, body.data, body.len);
    return rc;
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    stream_t *s = arg;
    (void)fd;
    (void)what;
    if (s->state == STREAM_QUIESCING)
        stream_break(s, "the agent did not answer QUIESCE within %u ms", s->timeout_ms);
    else
        stream_break(s, "the agent did not answer RESYNC within %u ms%s", s->timeout_ms,
                     s->state == STREAM_ADOPTING ? " (MARKER came, ADOPT did not)" : "");
}

static int timeout_begin(stream_t *s, uint32_t ms)
{
    struct timeval timeout = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    s->timeout_ms = ms;
    return event_add(s->timeout, &timeout);
}

static int set_up_fd(int fd, err_t **e)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot make the agent stream's descriptor %d non-blocking", fd);
    /* Best effort: sockets have none, and an unprivileged user's pipes may be at their limit. */
    if (fcntl(fd, F_SETPIPE_SZ, STREAM_PIPE_SIZE) < 0)
        errno = 0;
    return 0;
}

static int stream_start(stream_t *s, struct event_base *base, const stream_identity_t *identity, uint32_t timeout_ms,
                        err_t **e)
{
    if (set_up_fd(s->fd_in, e) < 0 || set_up_fd(s->fd_out, e) < 0)
        return -1;
    s->readable = event_new(base, s->fd_in, EV_READ | EV_PERSIST, stream_on_readable, s);
    s->writable = event_new(base, s->fd_out, EV_WRITE | EV_PERSIST, stream_on_writable, s);
    s->timeout = event_new(base, -1, 0, on_timeout, s);
    if (!s->readable || !s->writable || !s->timeout || event_add(s->readable, NULL) < 0 ||
        timeout_begin(s, timeout_ms > 0 ? timeout_ms : STREAM_RESYNC_TIMEOUT_MS) < 0)
        return err_set(e, ERR_INTERNAL, "cannot watch the agent stream in the event loop");
    return send_resync(s, identity, false, e);
}

stream_t *stream_open(struct event_base *base, int fd_in, int fd_out, const stream_identity_t *identity,
                      uint32_t resync_timeout_ms, const stream_events_t *events, void *arg, err_t **e)
{
    stream_t *s = mem_alloc(sizeof *s);
    s->fd_in = fd_in;
    s->fd_out = fd_out;
    s->sandbox = identity->sandbox;
    s->events = *events;
    s->arg = arg;
    buf_init(&s->rest, STREAM_REST_MAX);
    buf_init(&s->adopt, STREAM_ADOPT_MAX);
    /* The written part at the front is dropped when it is half of all. */
    buf_init(&s->queue, 2 * (STREAM_QUEUE_MAX + STREAM_CONTROL_RESERVE) + QUEUE_COMPACT);
    if (stream_start(s, base, identity, resync_timeout_ms, e) == 0)
        return s;
    stream_destroy(&s);
    return NULL;
}

void stream_became_ready(stream_t *s)
{
    s->state = STREAM_READY;
    event_del(s->timeout);
}

bool stream_is_ready(const stream_t *s)
{
    return s->state == STREAM_READY;
}

void stream_watch(stream_t *s)
{
    if (!stream_may_read(s))
        event_del(s->readable);
    else if (!event_pending(s->readable, EV_READ, NULL))
        event_add(s->readable, NULL);
}

void stream_pause(stream_t *s, bool is_paused)
{
    if (s->is_paused == is_paused || s->state == STREAM_BROKEN)
        return;
    s->is_paused = is_paused;
    stream_watch(s);
    if (stream_may_read(s))
        event_active(s->readable, EV_READ, 0); /* whole frames may be waiting in `rest` */
}

/* ---- silence for a checkpoint ---- */

bool stream_quiesce(stream_t *s, uint32_t timeout_ms)
{
    envelope_t env = {.kind = ENVELOPE_KIND_QUIESCE, .sandbox = s->sandbox};
    if (s->state != STREAM_READY)
        return false;
    s->state = STREAM_QUIESCING;
    s->extra = 0;
    timeout_begin(s, timeout_ms > 0 ? timeout_ms : STREAM_QUIESCE_TIMEOUT_MS);
    send_frame(s, &env, NULL, 0);
    stream_watch(s);
    event_active(s->readable, EV_READ, 0);
    return true;
}

void stream_became_quiesced(stream_t *s)
{
    s->state = STREAM_QUIESCED;
    event_del(s->timeout);
}

bool stream_is_quiesced(const stream_t *s)
{
    return s->state == STREAM_QUIESCED;
}

int stream_resync(stream_t *s, const stream_identity_t *identity, uint32_t timeout_ms, err_t **e)
{
    if (s->state != STREAM_QUIESCED)
        return err_set(e, ERR_INTERNAL, "the agent's stream cannot go on: it is not quiesced");
    s->sandbox = identity->sandbox;
    /* A well-behaved agent has said nothing since; whatever is there comes before the MARKER. */
    buf_free(&s->adopt);
    if (send_resync(s, identity, true, e) < 0)
        return -1;
    s->state = STREAM_HUNTING;
    timeout_begin(s, timeout_ms > 0 ? timeout_ms : STREAM_RESYNC_TIMEOUT_MS);
    stream_watch(s);
    return 0;
}

void stream_set_sandbox(stream_t *s, const uuid16_t *sandbox)
{
    s->sandbox = *sandbox;
}
