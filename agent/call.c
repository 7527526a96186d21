// SPDX-License-Identifier: Apache-2.0
#include "agent/call.h"

#include "agent/call_private.h"
#include "agent/link.h"
#include "agent/loop.h"
#include "agent/tools.h"
#include "common/mem.h"

#include <inttypes.h>

static agent_call_t *ending;    /* finished, destroy() still to come */
static size_t assembling_bytes; /* of all requests that are not complete */

void *call_state(agent_call_t *call)
{
    return call->tool_state;
}

void call_set_state(agent_call_t *call, void *state)
{
    call->tool_state = state;
}

uint64_t call_number(const agent_call_t *call)
{
    return call->id;
}

uuid16_t call_sandbox(const agent_call_t *call)
{
    return call->sandbox;
}

bool call_is_abandoned(const agent_call_t *call)
{
    return call->is_abandoned;
}

void call_want_steps(agent_call_t *call, bool wants)
{
    call->wants_steps = wants;
}

/* Forgets what nobody can want any more. */
static void call_settle(agent_call_t *call)
{
    bool is_free = call->state == CALL_FINISHED && !call->is_ending && !call->is_skipping && call->is_reply_sent;
    if (is_free && (call->is_transient || (call->is_acked && !call->is_kept)))
        store_forget(call);
}

/* ---- descriptors ---- */

static void on_fd(void *arg, int fd, short revents)
{
    agent_call_t *call = arg;
    for (size_t i = 0; i < call->watch_count; i++) {
        if (call->watches[i].fd == fd) {
            call->watches[i].fn(call, fd, revents);
            return;
        }
    }
}

void call_watch_fd(agent_call_t *call, int fd, short events, call_fd_fn fn)
{
    size_t i = 0;
    while (i < call->watch_count && call->watches[i].fd != fd)
        i++;
    if (events == 0) {
        if (i == call->watch_count)
            return;
        call->watches[i] = call->watches[--call->watch_count];
        loop_watch(fd, 0, NULL, NULL);
        return;
    }
    if (i == call->watch_count) {
        call->watches = mem_realloc(call->watches, (call->watch_count + 1) * sizeof *call->watches);
        call->watch_count++;
    }
    call->watches[i] = (struct call_watch){fd, fn};
    loop_watch(fd, events, on_fd, call);
}

/* ---- the end of a call ---- */

static void call_finish(agent_call_t *call, uint8_t kind)
{
    if (call->state == CALL_ASSEMBLING)
        assembling_bytes -= call->body.len;
    loop_cancel(call->deadline);
    loop_cancel(call->hold);
    call->deadline = call->hold = 0;
    for (size_t i = 0; i < call->watch_count; i++)
        loop_watch(call->watches[i].fd, 0, NULL, NULL);
    call->watch_count = 0;
    call->wants_steps = false;
    call->is_window_wanted = false;
    call->reply_kind = kind;
    call->is_ending = true;
    call->ending_next = ending;
    ending = call;
    store_move(call, CALL_FINISHED);
    out_queue(call);
}

void call_fail(agent_call_t *call, err_t **e)
{
    auto_err err_t *encode_error = NULL;
    struct error error = {.code = err_code_name(err_code(*e)), .message = err_message(*e), .details = err_details(*e)};
    if (call->state == CALL_FINISHED) {
        err_free(e);
        return;
    }
    buf_init(&call->reply, CALL_MESSAGE_MAX);
    if (proto_encode(MSG_error, &error, &call->reply, &encode_error) < 0) {
        buf_reset(&call->reply);
        error.details = NULL;
        err_free(&encode_error);
        (void)proto_encode(MSG_error, &error, &call->reply, &encode_error);
    }
    err_free(e);
    call_finish(call, ENVELOPE_KIND_ERROR);
}

void call_reply(agent_call_t *call, const void *reply)
{
    err_t *e = NULL;
    if (call->state == CALL_FINISHED)
        return;
    buf_init(&call->reply, CALL_MESSAGE_MAX);
    if (proto_encode(call->row->reply, reply, &call->reply, &e) < 0) {
        buf_free(&call->reply);
        err_wrap(&e, "the agent's reply to %s cannot be sent", call->row->name);
        call_fail(call, &e);
        return;
    }
    call_finish(call, ENVELOPE_KIND_REPLY);
}

bool call_abandon(agent_call_t *call)
{
    loop_cancel(call->hold);
    call->hold = 0;
    call->is_abandoned = true;
    call->tool->on_abandon(call);
    return call->state == CALL_FINISHED;
}

void call_stop(agent_call_t *call, bool is_deadline)
{
    err_t *e = NULL;
    /* What has ended in time and only waits for a reader that is gone has a result. */
    if (is_deadline && call->hold != 0 && call_abandon(call))
        return;
    if (call->state == CALL_RUNNING && call->tool->on_cancel != NULL) {
        if (!call->is_cancelled)
            call->tool->on_cancel(call, is_deadline);
        call->is_cancelled = true;
        return;
    }
    if (is_deadline)
        err_set(&e, ERR_DEADLINE_EXCEEDED, "%s did not end within its deadline", call->row->name);
    else
        err_set(&e, ERR_CANCELLED, "%s was cancelled", call->row->name);
    call_fail(call, &e);
}

static void on_deadline(void *arg)
{
    agent_call_t *call = arg;
    call->deadline = 0;
    call_stop(call, true);
}

/* ---- requests ---- */

static uint64_t first_window(const envelope_t *env)
{
    return env->credit == 0 || env->credit > CALL_WINDOW ? CALL_WINDOW : env->credit;
}

static int request_accept(const agent_call_t *call, size_t len, err_t **e)
{
    if (call->row == NULL || call->row->target != VERB_TARGET_AGENT || call->tool == NULL)
        return err_set(e, ERR_BAD_REQUEST, "the agent in this sandbox has no verb %u", (unsigned)call->verb);
    if (store_list(CALL_RUNNING)->count > CALLS_RUNNING_MAX)
        return err_set(e, ERR_OVERLOADED, "%d calls run in this sandbox already; retry later", CALLS_RUNNING_MAX);
    if (assembling_bytes + len > CALLS_ASSEMBLING_MAX || out_unsent_bytes() > CALLS_UNSENT_MAX)
        return err_set(e, ERR_OVERLOADED, "too many large calls at once in this sandbox; retry later");
    return 0;
}

static void call_begin(agent_call_t *call)
{
    const proto_desc_t *desc = proto_desc(call->row->request);
    err_t *e = NULL;
    assembling_bytes -= call->body.len;
    call->state = CALL_RUNNING;
    call->request = mem_alloc(desc->size);
    if (proto_decode(call->row->request, call->request, call->body.data, call->body.len, &e) < 0)
        call_fail(call, &e);
    if (call->state != CALL_RUNNING)
        return;
    call->is_started = true;
    call->tool->start(call, call->request);
}

static void body_take(agent_call_t *call, const envelope_t *env, const uint8_t *body, size_t len)
{
    err_t *e = NULL;
    if (len > call->in_window)
        err_set(&e, ERR_PROTOCOL, "more bytes of a request than its window");
    else if (call->body.len + len > CALL_MESSAGE_MAX)
        err_set(&e, ERR_PAYLOAD_TOO_LARGE, "a request may have %d bytes", CALL_MESSAGE_MAX);
    else if (assembling_bytes + len > CALLS_ASSEMBLING_MAX)
        err_set(&e, ERR_OVERLOADED, "too many large calls at once in this sandbox; retry later");
    if (e != NULL) {
        call->is_skipping = env->flags & ENVELOPE_MORE;
        call->is_transient = err_code_is_retryable(err_code(e));
        call_fail(call, &e);
        return;
    }
    buf_append(&call->body, body, len);
    assembling_bytes += len;
    call->in_window -= len;
    call->in_consumed += len;
    out_credit(call);
    if (!(env->flags & ENVELOPE_MORE))
        call_begin(call);
}

static void call_new(const envelope_t *env, const uint8_t *body, size_t len)
{
    err_t *e = NULL;
    agent_call_t *call = store_add(env->call_id);
    call->verb = env->verb;
    call->row = verb_row(env->verb);
    call->tool = tool_find(env->verb);
    call->sandbox = env->sandbox;
    call->trace = env->trace;
    call->is_kept = env->flags & ENVELOPE_KEEP;
    call->out_window = first_window(env);
    call->in_window = CALL_WINDOW;
    buf_init(&call->body, CALL_MESSAGE_MAX);
    if (request_accept(call, len, &e) < 0) {
        call->is_skipping = env->flags & ENVELOPE_MORE;
        call->is_transient = err_code_is_retryable(err_code(e));
        call_fail(call, &e);
        return;
    }
    if (env->deadline_ms > 0)
        call->deadline = loop_after(env->deadline_ms, on_deadline, call);
    body_take(call, env, body, len);
}

/* A request whose id is known: its answer goes (again) to whoever asks now. */
static void call_attach(agent_call_t *call, const envelope_t *env)
{
    err_t *e = NULL;
    if (env->verb != call->verb) {
        err_set(&e, ERR_CONFLICT, "call id %" PRIu64 " was used for another verb", call->id);
        out_refuse(env, &e);
        return;
    }
    if (call->state == CALL_LOST) {
        err_set(&e, ERR_CONFLICT,
                "this call was run already and its reply was dropped to make room; it is not run again");
        out_refuse(env, &e);
        return;
    }
    if (call->is_detached && call->state == CALL_RUNNING && call->row->flags & VERB_LONG && !call->is_kept) {
        loop_cancel(call->deadline);
        call->deadline = env->deadline_ms > 0 ? loop_after(env->deadline_ms, on_deadline, call) : 0;
    }
    loop_cancel(call->hold);
    call->hold = 0;
    call->is_abandoned = false;
    out_unqueue(call);
    call->sandbox = env->sandbox;
    call->trace = env->trace;
    call->is_kept = call->is_kept || env->flags & ENVELOPE_KEEP;
    call->is_detached = false;
    call->is_acked = false;
    call->is_reply_sent = false;
    call->reply_at = 0;
    call->out_window = first_window(env);
    call->in_window = CALL_WINDOW;
    call->in_consumed = 0;
    out_queue(call);
}

static void body_skip(agent_call_t *call, const envelope_t *env, size_t len)
{
    call->is_skipping = env->flags & ENVELOPE_MORE;
    call->in_consumed += len;
    out_credit(call);
    call_settle(call);
}

static void on_request(agent_call_t *call, const envelope_t *env, const uint8_t *body, size_t len)
{
    if (call == NULL) {
        call_new(env, body, len);
    } else if (call->state == CALL_ASSEMBLING) {
        body_take(call, env, body, len);
    } else {
        if (!call->is_skipping)
            call_attach(call, env);
        body_skip(call, env, len);
    }
}

/* ---- other frames ---- */

static void on_chunk(agent_call_t *call, const envelope_t *env, const uint8_t *body, size_t len)
{
    err_t *e = NULL;
    if (call == NULL || (call->state != CALL_ASSEMBLING && call->state != CALL_RUNNING) || call->is_detached)
        return;
    if (call->state == CALL_ASSEMBLING)
        err_set(&e, ERR_PROTOCOL, "bytes of %s came before its request was complete", call->row->name);
    else if (call->tool->on_chunk == NULL)
        err_set(&e, ERR_PROTOCOL, "%s takes no bytes", call->row->name);
    else if (call->has_in_ended || env->offset != call->in_offset)
        err_set(&e, ERR_PROTOCOL, "bytes of %s at offset %" PRIu64 " where %" PRIu64 " was due", call->row->name,
                env->offset, call->in_offset);
    else if (len > call->in_window)
        err_set(&e, ERR_PROTOCOL, "more bytes of %s than its window", call->row->name);
    if (e != NULL) {
        call_fail(call, &e);
        return;
    }
    call->in_window -= len;
    call->in_offset += len;
    call->has_in_ended = env->flags & ENVELOPE_END;
    call->tool->on_chunk(call, (enum envelope_channel)env->channel, body, len, call->has_in_ended);
}

static void on_credit(agent_call_t *call, const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    if (call == NULL || call->is_detached)
        return;
    call->out_window += env->credit;
    out_queue(call);
}

void call_detach(agent_call_t *call)
{
    out_unqueue(call);
    call->is_detached = true;
    call->is_skipping = false;
    call->reply_at = 0;
}

static void on_cancel(agent_call_t *call, const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)env;
    (void)body;
    (void)len;
    if (call == NULL || call->state == CALL_LOST)
        return;
    call->is_skipping = false;
    if (call->state == CALL_FINISHED)
        call_detach(call);
    else
        call_stop(call, false);
}

static void on_ack(agent_call_t *call, const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)env;
    (void)body;
    (void)len;
    if (call == NULL)
        return;
    if (call->state == CALL_LOST) {
        store_forget(call);
    } else if (call->state == CALL_FINISHED) {
        out_unqueue(call);
        call->is_acked = true;
        call->is_reply_sent = true;
        call->is_skipping = false;
        call_settle(call);
    }
}

void calls_on_frame(const envelope_t *env, const uint8_t *body, size_t len)
{
    static void (*const handlers[ENVELOPE_KIND_COUNT])(agent_call_t *, const envelope_t *, const uint8_t *, size_t) = {
        [ENVELOPE_KIND_REQUEST] = on_request, [ENVELOPE_KIND_CHUNK] = on_chunk, [ENVELOPE_KIND_CREDIT] = on_credit,
        [ENVELOPE_KIND_CANCEL] = on_cancel,   [ENVELOPE_KIND_ACK] = on_ack,
    };
    if (env->call_id != 0 && handlers[env->kind] != NULL)
        handlers[env->kind](store_find(env->call_id), env, body, len);
}

void assembling_forget(agent_call_t *call)
{
    assembling_bytes -= call->body.len;
    loop_cancel(call->deadline);
    store_forget(call);
}

/* ---- every turn ---- */

static void ending_run(void)
{
    while (ending != NULL) {
        agent_call_t *call = ending;
        ending = call->ending_next;
        if (call->is_started && call->tool->destroy != NULL)
            call->tool->destroy(call);
        call->tool_state = NULL;
        free(call->request);
        call->request = NULL;
        buf_free(&call->body);
        call->is_ending = false;
        call_settle(call);
    }
}

bool calls_turn(void)
{
    bool is_busy = false;
    agent_call_t *next;
    for (agent_call_t *call = store_list(CALL_RUNNING)->first; call != NULL; call = next) {
        /* Ending a call moves it to another list, where `next` would lead astray: go on in the next turn. */
        next = call->next;
        if (call->state != CALL_RUNNING || !call->wants_steps)
            continue;
        call->tool->step(call);
        is_busy = true;
        if (next != NULL && next->state != CALL_RUNNING && next->state != CALL_ASSEMBLING)
            break;
    }
    return is_busy;
}

void calls_end_finished(void)
{
    if (ending == NULL)
        return;
    ending_run();
    store_trim();
}

void calls_cancel_all(void)
{
    agent_call_t *next;
    for (agent_call_t *call = store_list(CALL_RUNNING)->first; call != NULL; call = next) {
        next = call->next;
        if (call->state == CALL_RUNNING)
            call_stop(call, false);
        if (next != NULL && next->state != CALL_RUNNING && next->state != CALL_ASSEMBLING)
            break;
    }
}
