/* SPDX-License-Identifier: Apache-2.0
 *
 * What runs in a sandbox gets TERM and some seconds before the sandbox is taken away. A sandbox in which nothing runs
 * does not wait.
 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#define GRACE_POLL_MS 100
#define GRACE_ANSWER_MS 2000 /* an agent that does not even list its processes is not waited for longer */

static void on_timer(evutil_socket_t fd, short what, void *arg);

static void again_in(kit_sandbox_t *ks, uint32_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    if (!ks->grace_timer)
        ks->grace_timer = evtimer_new(ks->pub.provider->daemon->base, on_timer, ks);
    evtimer_add(ks->grace_timer, &tv);
}

void kit_grace_stop(kit_sandbox_t *ks)
{
    if (ks->grace_timer)
        event_free(ks->grace_timer);
    ks->grace_timer = NULL;
}

static void finish(kit_sandbox_t *ks)
{
    kit_grace_stop(ks);
    kit_destroy(ks);
}

static void terminate_one(kit_sandbox_t *ks, const struct process *process)
{
    struct process_signal_request request = {.process_id = process->process_id, .signal = "TERM", .tree = true};
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    if (proto_encode(MSG_process_signal_request, &request, &body, &e) == 0) {
        envelope_t env = {0};
        env.kind = ENVELOPE_KIND_REQUEST;
        env.verb = VERB_process_signal;
        env.sandbox = ks->pub.id;
        env.credit = CALL_WINDOW;
        random_bytes(&env.call_id, sizeof env.call_id);
        /* Nobody waits for its reply: whether it worked is seen in the next list. */
        (void)stream_send(ks->pub.stream, &env, body.data, body.len);
    }
}

static void on_list(kit_sandbox_t *ks, void *arg, const uint8_t *body, size_t len, bool is_error)
{
    (void)arg;
    ks->is_grace_asking = false;
    struct process_list_reply list;
    auto_err err_t *e = NULL;
    if (is_error || proto_decode(MSG_process_list_reply, &list, body, len, &e) < 0) {
        finish(ks);
        return;
    }
    size_t running = 0;
    proto_iter_t it = proto_iter(&list.processes);
    for (proto_nested_t one; proto_iter_msg(&it, &one);) {
        struct process process;
        auto_err err_t *bad = NULL;
        if (proto_decode(MSG_process, &process, one.bytes, one.len, &bad) < 0)
            continue;
        bool is_running = process.process_count > 0 || (process.state && strcmp(process.state, "running") == 0);
        if (!is_running)
            continue;
        running++;
        if (!ks->has_terminated)
            terminate_one(ks, &process);
    }
    ks->has_terminated = true;
    if (running == 0 && kit_relay_hub_calls(ks) == 0)
        finish(ks);
    else
        again_in(ks, GRACE_POLL_MS);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    kit_sandbox_t *ks = arg;
    bool is_over = clock_monotonic_ms() >= ks->grace_until_ms;
    struct empty nothing = {0};
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    if (is_over || ks->is_grace_asking || !ks->pub.stream || proto_encode(MSG_empty, &nothing, &body, &e) < 0 ||
        !kit_relay_call(ks, VERB_process_list, body.data, body.len, on_list, NULL)) {
        finish(ks);
        return;
    }
    ks->is_grace_asking = true;
    uint64_t left = ks->grace_until_ms - clock_monotonic_ms();
    again_in(ks, left < GRACE_ANSWER_MS ? (uint32_t)left : GRACE_ANSWER_MS);
}

void kit_grace_start(kit_sandbox_t *ks, uint32_t grace_ms)
{
    ks->grace_until_ms = clock_monotonic_ms() + grace_ms;
    ks->has_terminated = false;
    ks->is_grace_asking = false;
    if (grace_ms == 0 || !ks->pub.stream || !stream_is_ready(ks->pub.stream)) {
        finish(ks);
        return;
    }
    kit_relay_cancel_all(ks);
    on_timer(-1, 0, ks);
}
