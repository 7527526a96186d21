// SPDX-License-Identifier: Apache-2.0
#include "agent/tools.h"

#include "common/mem.h"

/* The declarations and the rows come from the verb table: a verb of the agent without a tool does not link. */
#define DECLARE_AGENT(name) extern const agent_tool_t tool_##name;
#define DECLARE_PROVIDER(name)
#define ROW_AGENT(name) &tool_##name,
#define ROW_PROVIDER(name)

#define X(number, name, target, request, reply, flags, doc) DECLARE_##target(name)
PROTO_VERBS(X)
#undef X

static const agent_tool_t *const tools[] = {
#define X(number, name, target, request, reply, flags, doc) ROW_##target(name)
    PROTO_VERBS(X)
#undef X
};

const agent_tool_t *tool_find(unsigned verb)
{
    for (size_t i = 0; i < COUNT_OF(tools); i++)
        if (tools[i]->verb == verb)
            return tools[i];
    return NULL;
}
