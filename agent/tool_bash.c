// SPDX-License-Identifier: Apache-2.0
#include "agent/follow.h"
#include "agent/proc.h"
#include "agent/spawn.h"
#include "common/mem.h"
#include "common/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define TIMEOUT_DEFAULT_MS 120000
#define OUTPUT_MAX ((size_t)51200)
/* One more character than is shown, so that the cut is seen to split it. */
#define HEAD_MAX (OUTPUT_MAX + 4)

struct bash {
    const struct bash_request *request;
    proc_t *proc;
    proc_observer_t observer;
    follow_t follow;
    bool is_streaming;
    bool is_cancelled;
    bool is_deadline;
    bool is_done; /* reply as soon as everything is sent */
};

static void warning_add(struct bash_reply *reply, buf_t *list, const char *text)
{
    proto_list_add_str(list, text);
    reply->warnings = proto_list_of(reply->warnings.count + 1, list);
}

/* The line that says so takes the place of the end of a full stderr. */
static void timeout_note(buf_t *err, uint64_t timeout_ms)
{
    char note[64];
    int len = snprintf(note, sizeof note, "command timed out after %" PRIu64 "ms", timeout_ms);
    size_t room = OUTPUT_MAX - (size_t)len - 1;
    buf_truncate(err, utf8_cut(err->data, err->len, room));
    if (err->len > 0 && err->data[err->len - 1] != '\n')
        buf_append_byte(err, '\n');
    buf_append(err, note, (size_t)len);
}

static uint64_t timeout_of(const struct bash_request *request)
{
    if (request->timeout_ms > 0)
        return (uint64_t)request->timeout_ms;
    return request->run_in_background ? 0 : TIMEOUT_DEFAULT_MS;
}

static void reply_make(agent_call_t *call, struct bash *bash)
{
    proc_t *p = bash->proc;
    const output_t *out = &p->out[0], *err = &p->out[1];
    auto_buf buf_t warnings = {0}, err_text = {0};
    struct bash_reply reply = {
        .stdout_total_bytes = out->total,
        .stderr_total_bytes = err->total,
        .duration_ms = proc_duration_us(p) / 1000,
        .exit_code = proc_exit_code(p),
        .timed_out = p->is_timed_out,
        .signal = proc_signal_name(p),
    };
    size_t out_len = utf8_cut(out->head, out->head_len, OUTPUT_MAX);
    buf_append(&err_text, err->head, utf8_cut(err->head, err->head_len, OUTPUT_MAX));
    reply.truncated = out_len < out->total || err_text.len < err->total;
    if (p->is_timed_out)
        timeout_note(&err_text, timeout_of(bash->request));
    reply.stdout = (proto_bytes_t){out->head, out_len};
    reply.stderr = (proto_bytes_t){err_text.data, err_text.len};
    if (p->is_oom_hit)
        warning_add(&reply, &warnings, "a process of this command was ended because the workspace's memory ran out");
    if (!p->is_ended && p->is_listed) {
        reply.process_id = p->id;
        warning_add(&reply, &warnings, "the command left processes running: see process_id");
    }
    call_reply(call, &reply);
}

static void fail_cancelled(agent_call_t *call, const struct bash *bash)
{
    err_t *e = NULL;
    if (bash->is_deadline)
        err_set(&e, ERR_DEADLINE_EXCEEDED, "the command did not end within the call's deadline and was killed");
    else
        err_set(&e, ERR_CANCELLED, "the command was cancelled and killed");
    call_fail(call, &e);
}

static void bash_end(agent_call_t *call, struct bash *bash)
{
    if (!bash->is_done)
        follow_stop_at_now(&bash->follow);
    bash->is_done = true;
    if (bash->is_streaming && !call_is_abandoned(call)) {
        if (!follow_pump(&bash->follow))
            return; /* on_window goes on */
        follow_end(&bash->follow);
    }
    proc_unobserve(&bash->observer);
    reply_make(call, bash);
}

static void on_event(void *arg, proc_t *proc, enum proc_event event)
{
    agent_call_t *call = arg;
    struct bash *bash = call_state(call);
    bool is_killed = proc->is_timed_out || bash->is_cancelled;
    if (event == PROC_OUTPUT && bash->is_streaming && !bash->is_done)
        (void)follow_pump(&bash->follow);
    if (event == PROC_EXITED && !is_killed) {
        auto_err err_t *e = NULL;
        /* The shell is gone but not all that it started: that goes on as a background process (or is killed, when there
         * are too many). */
        if (proc->has_left)
            (void)proc_list_it(proc, &e);
        bash_end(call, bash);
    } else if (event == PROC_ENDED && bash->is_cancelled) {
        fail_cancelled(call, bash);
    } else if (event == PROC_ENDED && !bash->is_done) {
        bash_end(call, bash);
    }
}

static void background_reply(agent_call_t *call, proc_t *proc)
{
    err_t *e = NULL;
    struct bash_reply reply = {0};
    if (proc_list_it(proc, &e) < 0) {
        call_fail(call, &e);
        return;
    }
    reply.process_id = proc->id;
    call_reply(call, &reply);
}

static void bash_start(agent_call_t *call, const void *message)
{
    const struct bash_request *request = message;
    struct bash *bash = mem_alloc(sizeof *bash);
    const char *shell = shell_find();
    char flag[] = "-c";
    char *argv[] = {(char *)shell, flag, (char *)request->command, NULL};
    err_t *e = NULL;
    size_t head_max = request->run_in_background ? 0 : HEAD_MAX;
    proc_options_t options = {
        .argv = argv,
        .command = request->command,
        .workdir = request->workdir,
        .user = request->user,
        .env = &request->env,
        .input = request->has.stdin ? (request->stdin.data ? request->stdin.data : "") : NULL,
        .input_len = request->stdin.len,
        .head_max = {head_max, head_max},
        .has_ring = true,
        .timeout_ms = timeout_of(request),
    };
    call_set_state(call, bash);
    bash->request = request;
    if (shell == NULL)
        err_set(&e, ERR_TOOL_UNAVAILABLE,
                "this image has neither /bin/bash nor /bin/sh, so bash cannot run commands in it");
    else
        bash->proc = proc_start(&options, &e);
    if (e != NULL) {
        call_fail(call, &e);
        return;
    }
    if (request->run_in_background) {
        background_reply(call, bash->proc);
        return;
    }
    bash->is_streaming = request->stream;
    follow_begin(&bash->follow, call, bash->proc, (uint64_t[2]){0, 0}, true);
    proc_observe(bash->proc, &bash->observer, on_event, call);
}

static void bash_window(agent_call_t *call)
{
    struct bash *bash = call_state(call);
    if (bash->is_done)
        bash_end(call, bash);
    else if (bash->is_streaming)
        (void)follow_pump(&bash->follow);
}

/* The command goes on at its own pace, and its result is kept. */
static void bash_abandon(agent_call_t *call)
{
    bash_window(call);
}

static void bash_cancel(agent_call_t *call, bool is_deadline)
{
    struct bash *bash = call_state(call);
    bash->is_cancelled = true;
    bash->is_deadline = is_deadline;
    if (bash->is_done || bash->proc->is_ended)
        fail_cancelled(call, bash);
    else
        proc_kill(bash->proc, false);
}

static void bash_destroy(agent_call_t *call)
{
    struct bash *bash = call_state(call);
    if (bash == NULL)
        return;
    if (bash->proc != NULL) {
        proc_unobserve(&bash->observer);
        proc_pause(bash->proc, 0, false);
        proc_pause(bash->proc, 1, false);
        proc_release(bash->proc);
    }
    free(bash);
}

const agent_tool_t tool_bash = {
    .verb = VERB_bash,
    .start = bash_start,
    .on_window = bash_window,
    .on_abandon = bash_abandon,
    .on_cancel = bash_cancel,
    .destroy = bash_destroy,
};
