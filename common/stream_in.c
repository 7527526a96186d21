// SPDX-License-Identifier: Apache-2.0
/* What comes up from a sandbox. All of it is hostile: a frame that breaks a rule ends the stream.
 *
 * Input is read behind what was left over into one scratch buffer that all streams of the loop share; a stream keeps
 * memory of its own only while half a frame (or, paused, some frames) waits. */
#include "common/log.h"
#include "common/mem.h"
#include "common/stream_private.h"

#include <errno.h>
#include <unistd.h>

enum { RULE_ALLOWED = 1, RULE_OF_CALL = 2, RULE_EMPTY = 4 };

/* What may come once the stream is ready. */
static const uint8_t kind_rules[ENVELOPE_KIND_COUNT] = {
    [ENVELOPE_KIND_REPLY] = RULE_ALLOWED | RULE_OF_CALL,
    [ENVELOPE_KIND_ERROR] = RULE_ALLOWED | RULE_OF_CALL,
    [ENVELOPE_KIND_HEAD] = RULE_ALLOWED | RULE_OF_CALL,
    [ENVELOPE_KIND_EVENT] = RULE_ALLOWED | RULE_OF_CALL,
    [ENVELOPE_KIND_CHUNK] = RULE_ALLOWED | RULE_OF_CALL,
    [ENVELOPE_KIND_CREDIT] = RULE_ALLOWED | RULE_OF_CALL | RULE_EMPTY,
    [ENVELOPE_KIND_QUIESCED] = RULE_ALLOWED | RULE_EMPTY,
    [ENVELOPE_KIND_NOTICE] = RULE_ALLOWED,
};

static void on_adopt(stream_t *s, const envelope_t *env, const uint8_t *body, size_t len)
{
    auto_err err_t *e = NULL;
    struct adopt adopt;
    if (env->kind != ENVELOPE_KIND_ADOPT) {
        stream_break(s, "the agent sent %s where ADOPT must be", envelope_kind_name(env->kind));
        return;
    }
    if (env->flags & ENVELOPE_MORE || s->adopt.len > 0) {
        buf_append(&s->adopt, body, len);
        if (buf_failed(&s->adopt)) {
            stream_break(s, "the agent's ADOPT is larger than %d bytes", STREAM_ADOPT_MAX);
            return;
        }
        body = s->adopt.data;
        len = s->adopt.len;
    }
    if (env->flags & ENVELOPE_MORE)
        return;
    if (proto_decode(MSG_adopt, &adopt, body, len, &e) < 0) {
        stream_break(s, "the agent's ADOPT is malformed: %s", err_message(e));
        return;
    }
    stream_became_ready(s);
    s->events.on_ready(s->arg, &adopt);
    if (s->is_destroyed)
        return;
    buf_free(&s->adopt);
    stream_tell_writable(s);
}

static void on_quiesced(stream_t *s, const envelope_t *env)
{
    if (s->state != STREAM_QUIESCING || stream_queued_bytes(s) > 0) {
        stream_break(s, "the agent sent QUIESCED, but it was not asked for it yet");
        return;
    }
    stream_became_quiesced(s);
    s->events.on_frame(s->arg, env, NULL, 0);
}

static void on_frame(stream_t *s, const uint8_t *frame, size_t size)
{
    const uint8_t *body = frame + STREAM_LENGTH_SIZE + ENVELOPE_SIZE;
    size_t len = size - STREAM_LENGTH_SIZE - ENVELOPE_SIZE;
    envelope_t env;
    if (!envelope_decode(&env, frame + STREAM_LENGTH_SIZE, ENVELOPE_SIZE)) {
        stream_break(s, "the agent sent a frame with a malformed envelope");
        return;
    }
    env.sandbox = s->sandbox; /* never what it claims */
    if (s->state == STREAM_ADOPTING) {
        on_adopt(s, &env, body, len);
        return;
    }
    unsigned rules = kind_rules[env.kind];
    if (!(rules & RULE_ALLOWED))
        stream_break(s, "the agent sent %s, which never comes from an agent now", envelope_kind_name(env.kind));
    else if ((rules & RULE_OF_CALL) && env.call_id == 0)
        stream_break(s, "the agent sent %s without a call", envelope_kind_name(env.kind));
    else if ((rules & RULE_EMPTY) && len > 0)
        stream_break(s, "the agent sent %s with a body", envelope_kind_name(env.kind));
    else if (env.kind == ENVELOPE_KIND_QUIESCED)
        on_quiesced(s, &env);
    else
        s->events.on_frame(s->arg, &env, body, len);
}

bool stream_may_read(const stream_t *s)
{
    switch (s->state) {
    case STREAM_HUNTING:
    case STREAM_ADOPTING:
        return true;
    case STREAM_READY:
        return !s->is_paused;
    case STREAM_QUIESCING:
        return !s->is_paused || s->extra < STREAM_QUIESCE_EXTRA;
    case STREAM_QUIESCED:
    case STREAM_BROKEN:
        break;
    }
    return false;
}

/* Finds the end of the MARKER frame with our nonce. Before it may be anything: what an earlier daemon did not read,
 * from the middle of a frame on. The nonce is random and new, so its bytes cannot be older than our RESYNC. Returns the
 * bytes done with. */
static size_t hunt(stream_t *s, const uint8_t *bytes, size_t len)
{
    const size_t before = STREAM_MARKER_SIZE - STREAM_NONCE_SIZE;
    size_t at = 0;
    while (len - at >= STREAM_MARKER_SIZE) {
        const uint8_t *nonce = memmem(bytes + at + before, len - at - before, s->nonce, sizeof s->nonce);
        envelope_t env;
        if (nonce == NULL)
            return len - (STREAM_MARKER_SIZE - 1);
        const uint8_t *frame = nonce - before; /* @UNSAFE: the search began `before` bytes into the input */
        if (stream_frame_length(frame, STREAM_MARKER_SIZE, STREAM_MARKER_SIZE) == STREAM_MARKER_SIZE &&
            envelope_decode(&env, frame + STREAM_LENGTH_SIZE, ENVELOPE_SIZE) && env.kind == ENVELOPE_KIND_MARKER) {
            s->state = STREAM_ADOPTING;
            return (size_t)(frame - bytes) + STREAM_MARKER_SIZE;
        }
        at = (size_t)(frame - bytes) + 1;
    }
    return at;
}

size_t stream_take(stream_t *s, const uint8_t *bytes, size_t len)
{
    size_t used = s->state == STREAM_HUNTING ? hunt(s, bytes, len) : 0;
    while (s->state != STREAM_HUNTING && stream_may_read(s)) {
        long size = stream_frame_length(bytes + used, len - used, STREAM_FRAME_UP_MAX);
        if (size == 0)
            break;
        if (size < 0) {
            stream_break(s, "the agent sent a frame with an impossible length");
            break;
        }
        if (s->state == STREAM_QUIESCING && s->is_paused)
            s->extra += (size_t)size;
        on_frame(s, bytes + used, (size_t)size);
        used += (size_t)size;
    }
    return used;
}

/* What a paused stream had already read. True: more may be read. */
static bool take_rest(stream_t *s)
{
    if (s->rest.len > 0) {
        size_t used = stream_take(s, s->rest.data, s->rest.len);
        if (s->state != STREAM_BROKEN)
            buf_consume(&s->rest, used);
    }
    return stream_may_read(s);
}

/* Reads once behind what was left over, which is less than one frame. Returns the bytes read, 0 when nothing more may
 * be read. */
static size_t read_some(stream_t *s)
{
    static uint8_t scratch[STREAM_REST_MAX];
    size_t len = s->rest.len;
    if (len > 0)
        memcpy(scratch, s->rest.data, len);
    ssize_t n;
    do
        n = read(s->fd_in, scratch + len, STREAM_READ_SIZE);
    while (n < 0 && errno == EINTR);
    int saved_errno = errno;
    size_t got = n > 0 ? (size_t)n : 0;
    if (got > 0) {
        size_t used = stream_take(s, scratch, len + got);
        if (s->state == STREAM_BROKEN)
            return 0;
        if (used == len + got)
            buf_free(&s->rest);
        buf_reset(&s->rest);
        buf_append(&s->rest, scratch + used, len + got - used);
    }
    if (n == 0)
        stream_break(s, "the agent closed its stream");
    else if (n < 0 && saved_errno != EAGAIN)
        stream_break(s, "cannot read from the agent: %s", strerror(saved_errno));
    return stream_may_read(s) ? got : 0;
}

void stream_on_readable(evutil_socket_t fd, short what, void *arg)
{
    stream_t *s = arg;
    size_t turn = 0, got;
    (void)fd;
    (void)what;
    if (!stream_may_read(s))
        return;
    stream_enter(s);
    for (got = take_rest(s) ? STREAM_READ_SIZE : 0; got == STREAM_READ_SIZE && turn < STREAM_READ_TURN; turn += got)
        got = read_some(s);
    if (s->state != STREAM_BROKEN)
        stream_watch(s); /* QUIESCED may have come, or all that a paused stream takes */
    stream_leave(s);
}
