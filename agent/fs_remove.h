/* SPDX-License-Identifier: Apache-2.0
 *
 * Removes a tree a slice at a time, without following links and without crossing into another file system (a mount
 * inside is an error).
 */
#ifndef EW_AGENT_FS_REMOVE_H
#define EW_AGENT_FS_REMOVE_H

#include "common/err.h"

#include <stdint.h>

typedef struct fs_remove fs_remove_t;

fs_remove_t *fs_remove_new(const char *path, err_t **e);
/* 1: call again; 0: everything is gone; -1 failed, *removed entries are gone by then. */
int fs_remove_slice(fs_remove_t *r, uint64_t until_us, err_t **e);
uint64_t fs_remove_count(const fs_remove_t *r);
void fs_remove_destroy(fs_remove_t **r);

#endif
