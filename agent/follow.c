// SPDX-License-Identifier: Apache-2.0
#include "agent/follow.h"

/* A reader this far behind stops its command; the pipe and what drains at the end still fit into the ring. */
#define BACKLOG_HIGH ((uint64_t)256 * 1024)

static const enum envelope_channel channels[2] = {CHANNEL_STDOUT, CHANNEL_STDERR};

void follow_begin(follow_t *f, agent_call_t *call, proc_t *proc, const uint64_t offsets[2], bool slows)
{
    *f = (follow_t){.call = call, .proc = proc, .slows = slows, .ends = {UINT64_MAX, UINT64_MAX}};
    for (int i = 0; i < 2; i++) {
        f->offsets[i] = offsets[i];
        call_set_offset(call, channels[i], offsets[i]);
    }
}

static bool pump_one(follow_t *f, int which)
{
    const output_t *out = &f->proc->out[which];
    const uint8_t *bytes;
    size_t len, taken;
    if (f->offsets[which] < output_start(out)) {
        f->offsets[which] = output_start(out);
        call_set_offset(f->call, channels[which], f->offsets[which]);
    }
    while (f->offsets[which] < f->ends[which] && (len = output_peek(out, f->offsets[which], &bytes)) > 0) {
        if (len > f->ends[which] - f->offsets[which])
            len = (size_t)(f->ends[which] - f->offsets[which]);
        taken = call_chunk(f->call, channels[which], bytes, len, false);
        f->offsets[which] += taken;
        if (taken < len)
            break;
    }
    if (f->slows)
        proc_pause(f->proc, which, !call_is_abandoned(f->call) && f->offsets[which] + BACKLOG_HIGH < out->total);
    return f->offsets[which] >= (f->ends[which] < out->total ? f->ends[which] : out->total);
}

void follow_stop_at_now(follow_t *f)
{
    for (int i = 0; i < 2; i++)
        f->ends[i] = f->proc->out[i].total;
}

bool follow_pump(follow_t *f)
{
    bool is_out_done = pump_one(f, 0);
    bool is_err_done = pump_one(f, 1);
    return is_out_done && is_err_done;
}

void follow_end(follow_t *f)
{
    for (int i = 0; i < 2; i++)
        call_chunk(f->call, channels[i], NULL, 0, true);
}
