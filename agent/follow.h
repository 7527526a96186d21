/* SPDX-License-Identifier: Apache-2.0
 *
 * Sends what a command writes as chunks on channels 1 and 2, from given offsets on. Bytes that the ring lost are
 * skipped: the offset of the next chunk tells.
 */
#ifndef EW_AGENT_FOLLOW_H
#define EW_AGENT_FOLLOW_H

#include "agent/call.h"
#include "agent/proc.h"

typedef struct follow {
    agent_call_t *call;
    proc_t *proc;
    uint64_t offsets[2];
    uint64_t ends[2]; /* what is written behind is not sent */
    bool slows;       /* a slow reader slows the command, so that nothing is lost; one that is gone does not */
} follow_t;

void follow_begin(follow_t *f, agent_call_t *call, proc_t *proc, const uint64_t offsets[2], bool slows);
/* What is written from now on is not this follower's. */
void follow_stop_at_now(follow_t *f);
/* Sends what can be sent now. True: everything that was written so far is sent. */
bool follow_pump(follow_t *f);
/* Closes both channels. */
void follow_end(follow_t *f);

#endif
