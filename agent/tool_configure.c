// SPDX-License-Identifier: Apache-2.0
/* A sandbox that was made ahead, or from another's memory, becomes the one it is to be. */
#include "agent/call.h"
#include "agent/environ.h"
#include "agent/session.h"
#include "common/mem.h"

static void configure_start(agent_call_t *call, const void *message)
{
    const struct agent_configure_request *request = message;
    struct empty done = {0};
    err_t *e = NULL;
    if (environ_configure(&request->env, &e) < 0) {
        call_fail(call, &e);
        return;
    }
    if (request->is_new)
        session_renew(call_sandbox(call), call);
    call_reply(call, &done);
}

const agent_tool_t tool_agent_configure = {
    .verb = VERB_agent_configure,
    .start = configure_start,
};
