/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include "common/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define SHOW_AFTER_MS 1000
#define SHOW_EVERY_MS 200

void progress_init(progress_t *p, const char *label, int64_t total)
{
    *p =
        (progress_t){.label = isatty(STDERR_FILENO) ? label : NULL, .total = total, .started_ms = clock_monotonic_ms()};
}

void progress_add(progress_t *p, uint64_t bytes)
{
    p->done += bytes;
}

void progress_tick(progress_t *p)
{
    if (p->label == NULL) {
        return;
    }
    uint64_t now = clock_monotonic_ms();
    if (now - p->started_ms < SHOW_AFTER_MS || now - p->shown_ms < SHOW_EVERY_MS) {
        return;
    }
    p->shown_ms = now;
    p->is_shown = true;
    fprintf(stderr, "\r\033[K%s: %" PRIu64 " s", p->label, (now - p->started_ms) / 1000);
    if (p->total > 0) {
        fprintf(stderr, ", %" PRIu64 " %%", p->done * 100 / (uint64_t)p->total);
    } else if (p->done > 0) {
        fprintf(stderr, ", %.1f MiB", (double)p->done / (1024.0 * 1024.0));
    }
    fflush(stderr);
}

void progress_end(progress_t *p)
{
    if (p->is_shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        p->is_shown = false;
    }
}
