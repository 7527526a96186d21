/* SPDX-License-Identifier: Apache-2.0
 *
 * The file tools, for the agent's table of tools. One file each: tool_<name>.c.
 */
#ifndef EW_AGENT_FS_TOOLS_H
#define EW_AGENT_FS_TOOLS_H

#include "agent/call.h"

extern const agent_tool_t tool_read;
extern const agent_tool_t tool_write;
extern const agent_tool_t tool_edit;
extern const agent_tool_t tool_glob;
extern const agent_tool_t tool_grep;
extern const agent_tool_t tool_git;
extern const agent_tool_t tool_file_stat;
extern const agent_tool_t tool_file_list;
extern const agent_tool_t tool_file_mkdir;
extern const agent_tool_t tool_file_move;
extern const agent_tool_t tool_file_remove;
extern const agent_tool_t tool_file_get;
extern const agent_tool_t tool_file_put;
extern const agent_tool_t tool_file_watch;

#endif
