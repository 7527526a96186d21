/* SPDX-License-Identifier: Apache-2.0
 *
 * What can be told about a regular expression by reading it, so that grep need not run it on every line. Never changes
 * what matches: when in doubt it says nothing.
 */
#ifndef EW_AGENT_TOOL_GREP_PATTERN_H
#define EW_AGENT_TOOL_GREP_PATTERN_H

#include "common/buf.h"

#include <stdbool.h>

typedef struct grep_plan {
    /* Every matching line holds these bytes; empty = nothing known. */
    buf_t literal;
    bool is_all_literal; /* and a line that holds them matches */
    /* The expression may be run over many lines at once in multi-line mode: each line that matches alone is found that
     * way too, and a match that lies within one line is one of that line alone. `buffer_pattern` is the expression with
     * negated classes kept off the newline. */
    bool is_buffer_safe;
    buf_t buffer_pattern;
} grep_plan_t;

void grep_plan_make(grep_plan_t *plan, const char *pattern, bool ignores_case);
void grep_plan_free(grep_plan_t *plan);

#endif
