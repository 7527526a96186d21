// SPDX-License-Identifier: Apache-2.0
/* What goes to the callee: the request's body, chunks, credit, CANCEL and ACK. Whatever finds the peer's queue full
 * stays pending and goes when the fabric says that there is room. */
#include "common/call_private.h"
#include "common/clock.h"

void call_block(call_t *c)
{
    if (c->is_blocked)
        return;
    c->is_blocked = true;
    LIST_INSERT_HEAD(&c->table->blocked, c, in_blocked);
}

void call_unblock(call_t *c)
{
    if (!c->is_blocked)
        return;
    c->is_blocked = false;
    LIST_REMOVE(c, in_blocked);
}

static enum fabric_result send_frame(call_t *c, envelope_t *env, const void *body, size_t len)
{
    if (c->peer == NULL)
        return FABRIC_GONE;
    env->call_id = c->id;
    env->sandbox = c->sandbox;
    env->trace = c->trace;
    enum fabric_result result = fabric_send(c->peer, env, body, len);
    if (result == FABRIC_FULL)
        call_block(c);
    return result;
}

static uint32_t deadline_left(const call_t *c)
{
    if (c->deadline_ms == 0)
        return 0;
    uint64_t spent_ms = clock_monotonic_ms() - c->started_ms;
    return spent_ms < c->deadline_ms ? c->deadline_ms - (uint32_t)spent_ms : 1;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Sends as much of a request's body as the window lets; *sent counts bytes. `is_first` forces a frame even for an empty
 * body. */
static enum fabric_result send_request_part(call_t *c, const uint8_t *body, size_t len, bool is_first, size_t *sent)
{
    envelope_t env = {
        .kind = ENVELOPE_KIND_REQUEST, .verb = c->verb->number, .credit = CALL_WINDOW, .deadline_ms = deadline_left(c)};
    *sent = 0;
    while (is_first || (*sent < len && c->send_credit > 0)) {
        size_t take = smaller(smaller(len - *sent, FABRIC_BODY_MAX), c->send_credit);
        env.flags = (c->is_kept ? ENVELOPE_KEEP : 0) | (*sent + take < len ? ENVELOPE_MORE : 0);
        enum fabric_result result = send_frame(c, &env, body + *sent, take);
        if (result != FABRIC_SENT)
            return result;
        is_first = false;
        c->send_credit -= take;
        *sent += take;
    }
    return FABRIC_SENT;
}

enum fabric_result call_send_request(call_t *c, const uint8_t *body, size_t len)
{
    static const uint8_t nothing[1];
    size_t sent;
    /* Before the first frame, and leaving room for replies: what has begun should end. */
    bool has_room = c->table->held_bytes + len < c->table->held_max / 2;
    if (len > CALL_WINDOW && !has_room)
        return FABRIC_FULL;
    enum fabric_result result = send_request_part(c, len > 0 ? body : nothing, len, true, &sent);
    if (result == FABRIC_GONE && sent == 0)
        return result;
    c->is_unsent = result == FABRIC_FULL && sent == 0;
    if (c->is_unsent && !has_room)
        return result;
    if (sent < len || c->is_unsent) {
        buf_init(&c->request, CALL_MESSAGE_MAX);
        buf_append(&c->request, body + sent, len - sent);
        call_hold(c, &c->held_request, len - sent + 1); /* an empty body counts too */
        c->pending |= PENDING_REQUEST;
    }
    return FABRIC_SENT; /* a later frame that found the queue full goes with call_flush */
}

static bool flush_request(call_t *c)
{
    static const uint8_t nothing[1];
    const uint8_t *at = c->request.len > 0 ? c->request.data + c->request_sent : nothing;
    size_t sent;
    enum fabric_result result = send_request_part(c, at, c->request.len - c->request_sent, c->is_unsent, &sent);
    c->is_unsent &= sent == 0 && result != FABRIC_SENT;
    c->request_sent += sent;
    if (c->request_sent < c->request.len || c->is_unsent)
        return result == FABRIC_SENT; /* waits for credit, which stops nothing else */
    buf_free(&c->request);
    call_hold(c, &c->held_request, 0);
    c->pending &= ~(unsigned)PENDING_REQUEST;
    return true;
}

static bool flush_credit(call_t *c)
{
    envelope_t env = {.kind = ENVELOPE_KIND_CREDIT, .credit = (uint32_t)c->recv_consumed};
    if (send_frame(c, &env, NULL, 0) != FABRIC_SENT)
        return false;
    c->recv_window += c->recv_consumed;
    c->recv_consumed = 0;
    c->pending &= ~(unsigned)PENDING_CREDIT;
    return true;
}

static bool flush_ends(call_t *c)
{
    for (uint8_t channel = 0; channel < CHANNEL_COUNT; channel++) {
        envelope_t env = {
            .kind = ENVELOPE_KIND_CHUNK, .flags = ENVELOPE_END, .channel = channel, .offset = c->send_offset[channel]};
        if (!(c->end_pending & 1 << channel))
            continue;
        if (send_frame(c, &env, NULL, 0) != FABRIC_SENT)
            return false;
        c->end_pending &= (uint8_t) ~(1 << channel);
        c->end_sent |= (uint8_t)(1 << channel);
    }
    c->pending &= ~(unsigned)PENDING_END;
    return true;
}

static bool flush_bare(call_t *c, enum envelope_kind kind, enum call_pending bit)
{
    envelope_t env = {.kind = (uint8_t)kind};
    if (send_frame(c, &env, NULL, 0) != FABRIC_SENT)
        return false;
    c->pending &= ~(unsigned)bit;
    return true;
}

/* Call within call_enter and call_leave. */
void call_flush(call_t *c)
{
    if (c->peer == NULL) {
        c->pending = 0;
        return;
    }
    if ((c->pending & PENDING_CREDIT && !flush_credit(c)) || (c->pending & PENDING_REQUEST && !flush_request(c)) ||
        (c->pending & PENDING_END && !(c->pending & PENDING_REQUEST) && !flush_ends(c)) ||
        (c->pending & PENDING_CANCEL && !flush_bare(c, ENVELOPE_KIND_CANCEL, PENDING_CANCEL)) ||
        (c->pending & PENDING_ACK && !flush_bare(c, ENVELOPE_KIND_ACK, PENDING_ACK))) {
        /* Not blocked means gone: on_down comes and ends it. What its user has left needs nobody to wait. */
        if (!c->is_blocked && c->is_ended)
            c->pending = 0;
        return;
    }
    if (c->wants_window && c->send_credit > 0 && !(c->pending & PENDING_REQUEST)) {
        c->wants_window = false;
        if (c->events.on_window != NULL)
            c->events.on_window(c->arg);
    }
}

size_t call_send_chunk(call_t *c, enum envelope_channel channel, const void *bytes, size_t len, bool is_end)
{
    const uint8_t *at = bytes;
    const uint8_t bit = (uint8_t)(1 << channel);
    size_t taken = 0;
    if (c->is_ended || (c->end_sent | c->end_pending) & bit)
        return 0;
    while (taken < len && c->send_credit > 0 && !(c->pending & PENDING_REQUEST)) {
        size_t take = smaller(smaller(len - taken, FABRIC_BODY_MAX), c->send_credit);
        bool is_last = is_end && taken + take == len;
        envelope_t env = {.kind = ENVELOPE_KIND_CHUNK,
                          .flags = is_last ? ENVELOPE_END : 0,
                          .channel = (uint8_t)channel,
                          .offset = c->send_offset[channel]};
        if (send_frame(c, &env, at + taken, take) != FABRIC_SENT)
            break;
        if (is_last)
            c->end_sent |= bit;
        c->send_offset[channel] += take;
        c->send_credit -= take;
        taken += take;
    }
    if (taken < len) {
        c->wants_window = true;
    } else if (is_end && !(c->end_sent & bit)) {
        c->end_pending |= bit;
        c->pending |= PENDING_END;
        if (!(c->pending & PENDING_REQUEST))
            flush_ends(c);
    }
    return taken;
}

void call_consumed(call_t *c, size_t len)
{
    if (c->is_ended)
        return;
    /* Never more than the callee has sent: the window is what it may be ahead. */
    c->recv_consumed += smaller(len, CALL_WINDOW - c->recv_window - c->recv_consumed);
    if (c->recv_consumed < CALL_CREDIT_BATCH || c->pending & PENDING_CREDIT)
        return;
    c->pending |= PENDING_CREDIT;
    flush_credit(c);
}
