/* SPDX-License-Identifier: Apache-2.0
 *
 * Cuts a window of lines out of a byte stream that is fed in pieces, and counts all of its lines.
 *
 * Shown form: `<n>: <text>` per line (is_numbered) or the bare text, joined by "\n"; after the last shown line stands a
 * "\n" only when the stream goes on behind it. So the pages of a file put together are the whole. Exact form
 * (!is_numbered, is_exact): the lines' very bytes with their newlines. A last line without newline counts as a line. CR
 * and bytes that are not UTF-8 pass unchanged. Nothing longer than `max` is produced: the window ends before the line
 * that does not fit (is_truncated, next_line names it); a first line that alone is longer is cut on a character's edge.
 */
#ifndef EW_AGENT_LINES_H
#define EW_AGENT_LINES_H

#include "common/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lines {
    uint64_t first; /* first line shown, from 1 */
    uint64_t count; /* lines shown at most, UINT64_MAX = all */
    size_t max;     /* bytes of `out` at most */
    bool is_numbered;
    bool is_exact;
    buf_t *out;

    bool is_truncated;  /* cut by max */
    uint64_t next_line; /* first line behind the window, 0 = the stream ended within it */
    uint64_t total;     /* lines so far; right after lines_end */

    uint64_t line;     /* the line that the next byte belongs to */
    bool is_started;   /* that line has bytes */
    bool is_over;      /* behind the window: only counting */
    bool is_cut;       /* rest of an overlong first line: dropped */
    size_t line_start; /* in out: where the current line, with its separator, begins */
} lines_t;

void lines_init(lines_t *l, uint64_t first, uint64_t count, size_t max, buf_t *out);
void lines_feed(lines_t *l, const void *bytes, size_t len);
void lines_end(lines_t *l);

size_t lines_count_newlines(const void *bytes, size_t len);

#endif
