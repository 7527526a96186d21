/* SPDX-License-Identifier: Apache-2.0
 *
 * Walks a directory tree a step at a time: depth first, each directory's entries sorted by name (bytes), links never
 * followed (the root itself may be one). A directory is returned before its entries; walk_skip() then leaves them out.
 * From "/" the kernel's own trees (/proc, /sys, /dev) are returned but not entered. What vanishes or cannot be read
 * during the walk is passed over and counted. Bounds: WALK_NAMES_MAX bytes of names per directory; paths up to
 * FS_PATH_SIZE; WALK_FDS_MAX descriptors however deep.
 */
#ifndef EW_AGENT_WALK_H
#define EW_AGENT_WALK_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WALK_FDS_MAX 64
#define WALK_NAMES_MAX ((size_t)64 << 20)

typedef struct walk walk_t;

typedef struct walk_entry {
    const char *path;     /* absolute; valid until the next call */
    const char *relative; /* below the root */
    const char *name;
    int dir_fd;         /* of the directory that holds `name`; borrowed until the next call */
    unsigned char type; /* DT_REG, DT_DIR, …; never DT_UNKNOWN */
    unsigned depth;     /* 1 = in the root */
} walk_entry_t;

enum walk_result { WALK_END, WALK_ENTRY, WALK_AGAIN /* a slice of a large directory was read */ };

/* Errors: not_found "directory not found: <path>", bad_request. */
walk_t *walk_open(const char *root, err_t **e);
enum walk_result walk_next(walk_t *w, walk_entry_t *entry);
void walk_skip(walk_t *w);                  /* the directory just returned is not entered */
uint64_t walk_passed_over(const walk_t *w); /* directories that could not be read */
void walk_close(walk_t **w);

#endif
