// SPDX-License-Identifier: Apache-2.0
/* What a callee says. It may be a hostile agent behind a provider daemon: every frame is held against what the protocol
 * allows at this point of the call. */
#include "common/call_private.h"
#include "common/log.h"
#include "common/mem.h"

#include <jansson.h>

#define OFFSET_MAX ((uint64_t)1 << 62)

static void violation(call_t *c, const char *what)
{
    auto_err err_t *e = NULL;
    err_set(&e, ERR_PROTOCOL, "%s failed: its callee %s", c->verb->name, what);
    call_fail_with(c, e, true);
}

static void on_credit(call_t *c, const envelope_t *env)
{
    size_t room = CALL_WINDOW - c->send_credit;
    c->send_credit += env->credit < room ? env->credit : room; /* more than the window is no promise to send more */
    call_flush(c);
}

static void on_chunk(call_t *c, const envelope_t *env, const uint8_t *body, size_t len)
{
    const uint8_t bit = (uint8_t)(1 << env->channel);
    if (!(c->verb->flags & VERB_OUT)) {
        violation(c, "sent bytes that nobody asked for");
    } else if (c->recv_ended & bit) {
        violation(c, "sent bytes after it had closed the channel");
    } else if (env->offset > OFFSET_MAX || (c->recv_begun & bit && env->offset < c->recv_offset[env->channel])) {
        violation(c, "sent the same bytes again"); /* forward is fine: a ring that ran over has lost some */
    } else {
        bool is_end = env->flags & ENVELOPE_END;
        c->recv_begun |= bit;
        c->recv_ended |= is_end ? bit : 0;
        c->recv_offset[env->channel] = env->offset + len;
        if (c->events.on_chunk != NULL)
            c->events.on_chunk(c->arg, (enum envelope_channel)env->channel, env->offset, body, len, is_end);
        else
            call_consumed(c, len);
    }
}

static void on_reply(call_t *c, const uint8_t *body, size_t len)
{
    buf_t assembly = c->assembly; /* body may point into it */
    buf_init(&c->assembly, 0);
    if (!c->is_kept && len > CALL_ACK_MIN)
        c->pending |= PENDING_ACK;
    call_end(c);
    c->events.on_reply(c->arg, body, len);
    buf_free(&assembly);
}

/* The details go as they are into JSON replies, so they must be an object. */
static bool is_json_object(const char *text)
{
    json_t *parsed = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    bool is_object = json_is_object(parsed);
    json_decref(parsed);
    return is_object;
}

static void on_error(call_t *c, const uint8_t *body, size_t len)
{
    auto_err err_t *e = NULL;
    auto_err err_t *told = NULL;
    struct error error;
    if (proto_decode(MSG_error, &error, body, len, &e) < 0) {
        violation(c, "sent an ERROR that cannot be read");
        return;
    }
    enum err_code code = err_code_from_name(error.code);
    err_set(&told, code > ERR_NONE && code < ERR_CODE_COUNT ? code : ERR_PROTOCOL, "%s", error.message);
    if (error.details != NULL && is_json_object(error.details))
        err_set_details(told, error.details);
    call_fail_with(c, told, false);
}

static void on_message(call_t *c, unsigned kind, const uint8_t *body, size_t len)
{
    switch (kind) {
    case ENVELOPE_KIND_REPLY:
        on_reply(c, body, len);
        break;
    case ENVELOPE_KIND_ERROR:
        on_error(c, body, len);
        break;
    case ENVELOPE_KIND_EVENT:
        if (c->events.on_event != NULL)
            c->events.on_event(c->arg, body, len);
        break;
    default: /* HEAD */
        if (c->has_head) {
            violation(c, "sent HEAD twice");
            return;
        }
        c->has_head = true;
        if (c->events.on_head != NULL)
            c->events.on_head(c->arg, body, len);
    }
}

/* A message may be several frames. One that came in one is handed on without a copy. The window is granted again as the
 * bytes come, but for the last ones of the call. */
static void on_message_part(call_t *c, const envelope_t *env, const uint8_t *body, size_t len)
{
    bool is_more = env->flags & ENVELOPE_MORE;
    bool is_last = !is_more && (env->kind == ENVELOPE_KIND_REPLY || env->kind == ENVELOPE_KIND_ERROR);
    if (!is_last)
        call_consumed(c, len);
    if (c->assembling == 0 && !is_more) {
        on_message(c, env->kind, body, len);
        return;
    }
    if (c->assembling == 0)
        buf_init(&c->assembly, env->kind == ENVELOPE_KIND_REPLY ? CALL_MESSAGE_MAX : CALL_SIDE_MESSAGE_MAX);
    c->assembling = env->kind;
    buf_append(&c->assembly, body, len);
    if (buf_failed(&c->assembly)) {
        violation(c, "sent a message that is too large");
        return;
    }
    call_hold(c, &c->held_assembly, c->assembly.len);
    if (c->assembly.len > CALL_HELD_SHARE && c->table->held_bytes > c->table->held_max) {
        auto_err err_t *e = NULL;
        err_set(&e, ERR_OVERLOADED, "too many large replies are on their way; retry in a moment");
        call_fail_with(c, e, true);
        return;
    }
    if (is_more)
        return;
    c->assembling = 0;
    on_message(c, env->kind, c->assembly.data, c->assembly.len);
    buf_free(&c->assembly);
    call_hold(c, &c->held_assembly, 0);
}

static call_t *find_call(call_table_t *t, fabric_peer_t *peer, const envelope_t *env)
{
    call_t *c = call_table_find(t, env->call_id, &env->sandbox);
    return c != NULL && c->peer == peer && !c->is_ended ? c : NULL;
}

void call_table_on_frame(call_table_t *t, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    call_t *c = find_call(t, peer, env);
    if (c == NULL)
        return; /* cancelled or timed out here while this was on its way */
    call_enter(c);
    if (env->kind == ENVELOPE_KIND_CREDIT) {
        on_credit(c, env);
    } else if (len > c->recv_window) {
        violation(c, "sent more than it was allowed to");
    } else if (c->assembling != 0 && c->assembling != env->kind) {
        violation(c, "mixed the frames of two messages");
    } else {
        c->recv_window -= len;
        if (env->kind == ENVELOPE_KIND_CHUNK)
            on_chunk(c, env, body, len);
        else if (env->kind == ENVELOPE_KIND_REPLY || env->kind == ENVELOPE_KIND_ERROR ||
                 env->kind == ENVELOPE_KIND_HEAD || env->kind == ENVELOPE_KIND_EVENT)
            on_message_part(c, env, body, len);
    }
    call_leave(c);
}
