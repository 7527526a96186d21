/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of the agent's tools. A new tool is one file exporting an `agent_tool_t tool_<verb>` and one row in
 * proto/verbs.h.
 */
#ifndef EW_AGENT_TOOLS_H
#define EW_AGENT_TOOLS_H

#include "agent/call.h"

const agent_tool_t *tool_find(unsigned verb); /* NULL if the agent has none */

#endif
