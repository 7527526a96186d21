// SPDX-License-Identifier: Apache-2.0
#include "agent/call_private.h"

#include "agent/link.h"
#include "common/mem.h"

#define CREDIT_STEP (CALL_WINDOW / 4) /* credit is granted in steps, so that small requests cost no frame */
#define EVENT_QUEUE_MAX ((size_t)256 * 1024)

/* Calls that have something to send and window for it; each sends one frame, then it is the next one's turn. */
static struct {
    agent_call_t *first;
    agent_call_t *last;
} sending;

envelope_t out_envelope(const agent_call_t *call, uint8_t kind)
{
    return (envelope_t){.kind = kind, .call_id = call->id, .sandbox = call->sandbox, .trace = call->trace};
}

static bool has_reply(const agent_call_t *call)
{
    return call->state == CALL_FINISHED && !call->is_reply_sent;
}

static bool is_sendable(const agent_call_t *call)
{
    if (call->is_detached || call->state == CALL_LOST)
        return false;
    if (call->items != NULL)
        return call->out_window > 0 || call->items->len == call->items->sent;
    if (has_reply(call))
        return call->out_window > 0 || call->reply_at == call->reply.len;
    return call->state == CALL_RUNNING && call->is_window_wanted && call->out_window > 0;
}

void out_queue(agent_call_t *call)
{
    if (call->is_out_queued || !is_sendable(call))
        return;
    call->is_out_queued = true;
    call->out_next = NULL;
    *(sending.last ? &sending.last->out_next : &sending.first) = call;
    sending.last = call;
}

static agent_call_t *sending_pop(void)
{
    agent_call_t *call = sending.first;
    sending.first = call->out_next;
    if (sending.first == NULL)
        sending.last = NULL;
    call->is_out_queued = false;
    return call;
}

void out_unqueue(agent_call_t *call)
{
    agent_call_t *before = NULL;
    if (!call->is_out_queued)
        return;
    for (agent_call_t *c = sending.first; c != call; c = c->out_next)
        before = c;
    *(before ? &before->out_next : &sending.first) = call->out_next;
    if (sending.last == call)
        sending.last = before;
    call->is_out_queued = false;
}

/* Sends the next slice of a message; true when all of it is sent. */
static bool slice_send(agent_call_t *call, envelope_t *env, const uint8_t *bytes, size_t len, size_t *at)
{
    size_t n = len - *at;
    if (n > STREAM_BODY_UP_MAX)
        n = STREAM_BODY_UP_MAX;
    if (n > call->out_window)
        n = (size_t)call->out_window;
    if (*at + n < len)
        env->flags |= ENVELOPE_MORE;
    link_send(env, bytes + *at, n);
    call->out_window -= n;
    *at += n;
    return *at == len;
}

static void item_send(agent_call_t *call)
{
    struct call_item *item = call->items;
    envelope_t env = out_envelope(call, item->kind);
    if (item->kind == ENVELOPE_KIND_CHUNK) {
        env.channel = item->body[0];
        env.flags = ENVELOPE_END;
        env.offset = call->out_offset[env.channel];
        link_send(&env, NULL, 0);
    } else if (!slice_send(call, &env, item->body, item->len, &item->sent)) {
        return;
    }
    call->items = item->next;
    if (call->items == NULL)
        call->items_end = &call->items;
    call->items_bytes -= item->len;
    free(item);
}

static void reply_send(agent_call_t *call)
{
    envelope_t env = out_envelope(call, call->reply_kind);
    if (slice_send(call, &env, call->reply.data, call->reply.len, &call->reply_at))
        call->is_reply_sent = true;
}

void calls_on_link_room(void)
{
    while (sending.first != NULL && link_has_room()) {
        agent_call_t *call = sending_pop();
        if (!is_sendable(call))
            continue;
        if (call->items != NULL) {
            item_send(call);
        } else if (has_reply(call)) {
            reply_send(call);
        } else {
            call->is_window_wanted = false;
            if (call->tool->on_window != NULL)
                call->tool->on_window(call);
        }
        out_queue(call);
    }
}

static struct call_item *item_new(agent_call_t *call, uint8_t kind, const void *body, size_t len)
{
    struct call_item *item = mem_alloc(sizeof *item + len + 1);
    item->kind = kind;
    item->len = len;
    if (len > 0)
        memcpy(item->body, body, len);
    *call->items_end = item;
    call->items_end = &item->next;
    call->items_bytes += len;
    return item;
}

void out_item(agent_call_t *call, uint8_t kind, const void *body, size_t len)
{
    item_new(call, kind, body, len);
    out_queue(call);
}

void out_items_drop(agent_call_t *call)
{
    while (call->items != NULL) {
        struct call_item *item = call->items;
        call->items = item->next;
        free(item);
    }
    call->items_end = &call->items;
    call->items_bytes = 0;
}

static bool message_send(agent_call_t *call, uint8_t kind, unsigned msg_id, const void *msg)
{
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    if (call->state != CALL_RUNNING || call->items_bytes > EVENT_QUEUE_MAX)
        return false;
    if (proto_encode(msg_id, msg, &body, &e) < 0)
        return false;
    out_item(call, kind, body.data, body.len);
    return true;
}

bool call_head(agent_call_t *call, unsigned msg_id, const void *msg)
{
    return message_send(call, ENVELOPE_KIND_HEAD, msg_id, msg);
}

bool call_event(agent_call_t *call, unsigned msg_id, const void *msg)
{
    return message_send(call, ENVELOPE_KIND_EVENT, msg_id, msg);
}

static void channel_close(agent_call_t *call, enum envelope_channel channel)
{
    uint8_t byte = (uint8_t)channel;
    /* Through the queue, behind what waits there. `len` is 0: it needs no window. */
    struct call_item *item = item_new(call, ENVELOPE_KIND_CHUNK, NULL, 0);
    item->body[0] = byte;
    out_queue(call);
}

size_t call_chunk(agent_call_t *call, enum envelope_channel channel, const void *bytes, size_t len, bool is_end)
{
    size_t taken = 0;
    if (call->state != CALL_RUNNING)
        return 0;
    if (len == 0) {
        if (is_end)
            channel_close(call, channel);
        return 0;
    }
    while (taken < len && !call->is_detached && call->items == NULL && call->out_window > 0 && link_has_room()) {
        size_t n = len - taken;
        if (n > STREAM_BODY_UP_MAX)
            n = STREAM_BODY_UP_MAX;
        if (n > call->out_window)
            n = (size_t)call->out_window;
        envelope_t env = out_envelope(call, ENVELOPE_KIND_CHUNK);
        env.channel = (uint8_t)channel;
        env.offset = call->out_offset[channel];
        env.flags = is_end && taken + n == len ? ENVELOPE_END : 0;
        link_send(&env, (const uint8_t *)bytes + taken, n);
        call->out_window -= n;
        call->out_offset[channel] += n;
        taken += n;
    }
    if (taken < len) {
        call->is_window_wanted = true;
        out_queue(call);
    }
    return taken;
}

void call_set_offset(agent_call_t *call, enum envelope_channel channel, uint64_t offset)
{
    call->out_offset[channel] = offset;
}

void out_credit(agent_call_t *call)
{
    if (call->in_consumed < CREDIT_STEP || call->is_detached || link_is_silent())
        return;
    envelope_t env = out_envelope(call, ENVELOPE_KIND_CREDIT);
    env.credit = (uint32_t)call->in_consumed;
    link_send(&env, NULL, 0);
    call->in_window += call->in_consumed;
    call->in_consumed = 0;
}

void call_consumed(agent_call_t *call, size_t len)
{
    call->in_consumed += len;
    if (call->state == CALL_RUNNING)
        out_credit(call);
}

void out_refuse(const envelope_t *request, err_t **e)
{
    auto_buf buf_t body = {0};
    auto_err err_t *ignored = NULL;
    struct error error = {.code = err_code_name(err_code(*e)), .message = err_message(*e)};
    envelope_t env = {
        .kind = ENVELOPE_KIND_ERROR, .call_id = request->call_id, .sandbox = request->sandbox, .trace = request->trace};
    if (proto_encode(MSG_error, &error, &body, &ignored) == 0)
        link_send(&env, body.data, body.len);
    err_free(e);
}

size_t out_unsent_bytes(void)
{
    size_t bytes = 0;
    for (const agent_call_t *c = store_list(CALL_FINISHED)->first; c != NULL; c = c->next)
        if (!c->is_detached && !c->is_reply_sent)
            bytes += c->reply.len;
    return bytes;
}
