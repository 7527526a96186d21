/* SPDX-License-Identifier: Apache-2.0
 *
 * The watched directories of one file_watch: inotify watch descriptor ↔ path below the root ("" = the root). At most
 * FS_WATCHES_MAX.
 */
#ifndef EW_AGENT_FS_WATCHES_H
#define EW_AGENT_FS_WATCHES_H

#include <stdbool.h>
#include <stddef.h>

#define FS_WATCHES_MAX 8192

typedef struct fs_watch {
    int wd;
    char *path;
} fs_watch_t;

typedef struct fs_watches {
    fs_watch_t *rows; /* sorted by wd */
    size_t count;
    size_t cap;
} fs_watches_t;

bool fs_watches_put(fs_watches_t *w, int wd, const char *path); /* a known wd gets the new path; false when full */
const char *fs_watches_path(const fs_watches_t *w, int wd);     /* NULL if unknown */
void fs_watches_remove(fs_watches_t *w, int wd);
/* Some watch of `path` or below it, -1 when none is left. */
int fs_watches_below(const fs_watches_t *w, const char *path);
void fs_watches_free(fs_watches_t *w);

#endif
