/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads the output of `git status --porcelain=v2 --branch -z` (git-status(1), "Porcelain Format Version 2") into a
 * git_status message and into the text that `git status --porcelain` prints. The bytes may be cut anywhere and hold
 * anything: unknown and broken records are skipped.
 */
#ifndef EW_AGENT_GIT_STATUS_H
#define EW_AGENT_GIT_STATUS_H

#include "common/buf.h"
#include "proto/messages.h"

#define GIT_STATUS_BYTES_MAX \
    ((size_t)3500 * 1024)          /* of all lists together: the encoded message stays below its row's maximum */
#define GIT_STATUS_ROWS_MAX 100000 /* per list */

typedef struct git_status_lists {
    struct git_status msg; /* points into the rest */
    buf_t staged, unstaged, untracked, conflicted;
    uint32_t staged_count, unstaged_count, untracked_count, conflicted_count;
    buf_t text;
    bool is_cut; /* there was more than the limits allow */
    char branch[256];
    char head[65];
    char upstream[256];
} git_status_lists_t;

void git_status_parse(git_status_lists_t *s, const void *bytes, size_t len);
void git_status_free(git_status_lists_t *s);

#endif
