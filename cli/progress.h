/* SPDX-License-Identifier: Apache-2.0
 *
 * One line on stderr that says what a long step is doing: only on a terminal, only after a second, wiped at the end.
 */
#ifndef EW_CLI_PROGRESS_H
#define EW_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct progress {
    const char *label; /* borrowed; NULL = silent */
    int64_t total;     /* bytes, -1 = unknown */
    uint64_t done;
    uint64_t started_ms;
    uint64_t shown_ms;
    bool is_shown;
} progress_t;

void progress_init(progress_t *p, const char *label, int64_t total);
void progress_add(progress_t *p, uint64_t bytes);
void progress_tick(progress_t *p);
void progress_end(progress_t *p);

#endif
