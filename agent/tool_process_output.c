// SPDX-License-Identifier: Apache-2.0
#include "agent/follow.h"
#include "agent/loop.h"
#include "common/mem.h"
#include "common/text.h"

#define LIMIT_DEFAULT 51200
#define WAIT_DEFAULT_MS 120000

/* A process_output that waits or follows, or a process_wait. */
struct wait {
    proc_t *proc;
    proc_observer_t observer;
    follow_t follow;
    uint64_t timer;
    uint64_t offsets[2];
    uint32_t limit; /* 0 for process_wait */
    bool is_following;
    bool is_ended;
};

/* Copies what is wanted out of the ring; `offset` becomes that of the first byte. */
static void output_collect(const output_t *o, uint64_t *offset, size_t limit, buf_t *bytes)
{
    const uint8_t *piece;
    size_t n;
    if (*offset < output_start(o))
        *offset = output_start(o);
    if (*offset > o->total)
        *offset = o->total;
    /* Some bytes more than wanted, so that a cut through a character is seen. */
    uint64_t at = *offset;
    while (bytes->len < limit + 4 && (n = output_peek(o, at, &piece)) > 0) {
        if (n > limit + 4 - bytes->len)
            n = limit + 4 - bytes->len;
        buf_append(bytes, piece, n);
        at += n;
    }
    size_t cut = utf8_cut(bytes->data, bytes->len, limit);
    /* A limit below one character must not stop the reader for ever. */
    buf_truncate(bytes, cut > 0 ? cut : limit);
}

static void wait_reply(agent_call_t *call, struct wait *w)
{
    proc_t *p = w->proc;
    buf_t bytes[2] = {{0}, {0}};
    uint64_t offsets[2] = {w->offsets[0], w->offsets[1]};
    for (int i = 0; i < 2; i++)
        output_collect(&p->out[i], &offsets[i], w->limit, &bytes[i]);
    struct process_output_reply reply = {
        .stdout = {bytes[0].data, bytes[0].len},
        .stderr = {bytes[1].data, bytes[1].len},
        .stdout_offset = offsets[0],
        .stderr_offset = offsets[1],
        .stdout_next = offsets[0] + bytes[0].len,
        .stderr_next = offsets[1] + bytes[1].len,
        .running = proc_is_running(p),
        .exit_code = proc_exit_code(p),
        .has.exit_code = p->is_exited,
        .signal = proc_signal_name(p),
        .timed_out = p->is_timed_out,
        .duration_ms = proc_duration_us(p) / 1000,
    };
    proc_unobserve(&w->observer);
    call_reply(call, &reply);
    for (int i = 0; i < 2; i++)
        buf_free(&bytes[i]);
}

static bool has_news(const struct wait *w)
{
    return w->limit > 0 && (w->proc->out[0].total > w->offsets[0] || w->proc->out[1].total > w->offsets[1]);
}

static void follow_go_on(agent_call_t *call, struct wait *w)
{
    if (!follow_pump(&w->follow) || !w->is_ended)
        return;
    follow_end(&w->follow);
    w->offsets[0] = w->follow.offsets[0];
    w->offsets[1] = w->follow.offsets[1];
    wait_reply(call, w);
}

static void on_event(void *arg, proc_t *proc, enum proc_event event)
{
    agent_call_t *call = arg;
    struct wait *w = call_state(call);
    (void)proc;
    w->is_ended = w->is_ended || event == PROC_ENDED;
    if (w->is_following)
        follow_go_on(call, w);
    else if (w->is_ended || (event == PROC_OUTPUT && has_news(w)))
        wait_reply(call, w);
}

static void on_timeout(void *arg)
{
    agent_call_t *call = arg;
    struct wait *w = call_state(call);
    w->timer = 0;
    wait_reply(call, w);
}

static struct wait *wait_new(agent_call_t *call, uint32_t process_id)
{
    err_t *e = NULL;
    proc_t *proc = proc_find(process_id);
    if (proc == NULL) {
        err_set(&e, ERR_NOT_FOUND, "no process %u in this workspace (ended ones are forgotten after a while)",
                (unsigned)process_id);
        call_fail(call, &e);
        return NULL;
    }
    struct wait *w = mem_alloc(sizeof *w);
    w->proc = proc;
    w->is_ended = proc->is_ended;
    call_set_state(call, w);
    return w;
}

static void wait_begin(agent_call_t *call, struct wait *w, uint32_t wait_ms)
{
    if (w->is_ended || has_news(w) || wait_ms == 0) {
        wait_reply(call, w);
        return;
    }
    proc_observe(w->proc, &w->observer, on_event, call);
    w->timer = loop_after(wait_ms, on_timeout, call);
}

static void output_start_call(agent_call_t *call, const void *message)
{
    const struct process_output_request *request = message;
    struct wait *w = wait_new(call, request->process_id);
    if (w == NULL)
        return;
    w->limit = request->limit > 0 ? request->limit : LIMIT_DEFAULT;
    w->offsets[0] = request->stdout_offset;
    w->offsets[1] = request->stderr_offset;
    if (!request->stream) {
        wait_begin(call, w, request->wait_ms);
        return;
    }
    w->is_following = true;
    follow_begin(&w->follow, call, w->proc, w->offsets, false);
    proc_observe(w->proc, &w->observer, on_event, call);
    follow_go_on(call, w);
}

static void output_window(agent_call_t *call)
{
    struct wait *w = call_state(call);
    if (w->is_following)
        follow_go_on(call, w);
}

static void wait_start(agent_call_t *call, const void *message)
{
    const struct process_wait_request *request = message;
    struct wait *w = wait_new(call, request->process_id);
    if (w == NULL)
        return;
    w->offsets[0] = w->proc->out[0].total;
    w->offsets[1] = w->proc->out[1].total;
    wait_begin(call, w, request->timeout_ms > 0 ? (uint32_t)request->timeout_ms : WAIT_DEFAULT_MS);
}

static void wait_destroy(agent_call_t *call)
{
    struct wait *w = call_state(call);
    if (w == NULL)
        return;
    loop_cancel(w->timer);
    proc_unobserve(&w->observer);
    free(w);
}

const agent_tool_t tool_process_output = {
    .verb = VERB_process_output,
    .has_no_end = true,
    .start = output_start_call,
    .on_window = output_window,
    .destroy = wait_destroy,
};

const agent_tool_t tool_process_wait = {.verb = VERB_process_wait, .start = wait_start, .destroy = wait_destroy};
