// SPDX-License-Identifier: Apache-2.0
// LINK: agent/link.c agent/blocks.c common/cobs.c agent/call.c agent/call_out.c agent/call_store.c agent/call_session.c agent/session.c agent/loop.c proto/envelope.c
// LINK: proto/pack.c proto/proto.c proto/verbs.c common/mem.c common/err.c common/buf.c common/text.c common/clock.c
/* Any bytes on the agent's input: frames, calls, replays, windows. One tool stands for all: it answers, streams or
 * stays open. */
#include "agent/calls.h"
#include "agent/link.h"
#include "agent/machine.h"
#include "agent/pressure.h"
#include "agent/tools.h"
#include "agent/tree.h"

// clang-format off
void machine_add_entropy(const void *bytes, size_t len) { (void)bytes, (void)len; }
void machine_set_clock(uint64_t ns) { (void)ns; }
void machine_set_hostname(const char *name) { (void)name; }
void machine_set_id(const char *id) { (void)id; }
void pressure_set_budget(uint64_t bytes) { (void)bytes; }
void pressure_reset(void) {}
void pressure_begin(uint64_t bytes) { (void)bytes; }
bool trees_are_sure(void) { return false; }
void trees_set_pids_max(uint32_t max) { (void)max; }
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
static void on_window(agent_call_t *call) { call_chunk(call, CHANNEL_DATA, "0123456789", 10, false); }
static void on_chunk(agent_call_t *call, enum envelope_channel ch, const uint8_t *bytes, size_t len, bool is_end)
{ call_chunk(call, ch, bytes, len, is_end), call_consumed(call, len); }
static void start(agent_call_t *call, const void *request)
{
    (void)request;
    call_head(call, MSG_empty, &(struct empty){0});
    if (call_number(call) % 3 == 0)
        call_reply(call, &(struct bash_reply){0});
    else
        on_window(call);
}
static const agent_tool_t tool = {.verb = VERB_bash, .start = start, .on_window = on_window, .on_chunk = on_chunk};
const agent_tool_t *tool_find(unsigned verb) { return verb == VERB_bash ? &tool : NULL; }
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{ link_feed(data, size), calls_turn(), calls_on_link_room(), calls_cancel_all(), calls_turn(), link_reset(); return 0; }
