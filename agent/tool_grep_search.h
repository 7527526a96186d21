/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds matching lines in a block of text: PCRE2 with JIT where it can be had, each line on its own, guided by
 * agent/tool_grep_pattern.h.
 */
#ifndef EW_AGENT_TOOL_GREP_SEARCH_H
#define EW_AGENT_TOOL_GREP_SEARCH_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct grep_search grep_search_t;

enum grep_result {
    GREP_NONE, /* no (further) line matches */
    GREP_MATCH,
    GREP_AGAIN,    /* the time is over; *from tells where to go on */
    GREP_TOO_HARD, /* the line at *from needs more backtracking than allowed */
};

/* bad_request with PCRE2's text and the position (also as details.offset). */
grep_search_t *grep_search_new(const char *pattern, bool ignores_case, err_t **e);
/* Looks for the first matching line at or behind *from, which is the start of a line. On GREP_MATCH [*from, *line_end)
 * is that line without its newline. The block consists of whole lines; the last newline may be missing. */
enum grep_result grep_search_next(grep_search_t *g, const char *block, size_t len, size_t *from, size_t *line_end,
                                  uint64_t until_us);
void grep_search_destroy(grep_search_t **g);

#endif
