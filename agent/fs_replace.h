/* SPDX-License-Identifier: Apache-2.0
 *
 * Gives a file new content so that every reader sees the old or the new, whole: the bytes go to a temporary
 * `.ew-tmp-<random>` in the same directory, which then takes the name. An existing file keeps its mode and owner; a
 * symbolic link stays and its target is written (also a missing one); missing parents are made. What cannot be replaced
 * by rename – more than one hard link, a mount point, a directory that takes no new files – is overwritten from the
 * finished temporary after its space was reserved, devices are written directly; both set in_place. Until
 * fs_replace_finish returned 0 or has begun to overwrite, a failure of any kind (no_space above all) leaves the old
 * content untouched.
 *
 * Work is done in slices: nothing here takes longer than FS_SLICE_BYTES of copying per call, but fsync when asked for.
 */
#ifndef EW_AGENT_FS_REPLACE_H
#define EW_AGENT_FS_REPLACE_H

#include "agent/fs_path.h"

#include <stdbool.h>
#include <stdint.h>

#define FS_SLICE_BYTES ((size_t)1 << 20)
#define FS_TEMP_PREFIX ".ew-tmp-"

typedef struct fs_replace {
    int fd;        /* the temporary, or the device; -1 = closed */
    int target_fd; /* while overwriting */
    bool in_place; /* the answer's in_place */
    bool is_device;
    bool is_sync;
    uint64_t copied;
    struct stat old;         /* st_mode 0 = there was none */
    char path[FS_PATH_SIZE]; /* links followed */
    char temp[FS_PATH_SIZE]; /* "" = none */
} fs_replace_t;

/* `mode` is for a new file. `r` needs no preparation; after success end it with fs_replace_abort.
 * Errors name the path. */
int fs_replace_open(fs_replace_t *r, const char *path, mode_t mode, bool is_sync, err_t **e);
int fs_replace_write(fs_replace_t *r, const void *bytes, size_t len, err_t **e);
/* 0: the new content has its name, only its descriptor is still open. 1: call again. -1: failed. */
int fs_replace_finish(fs_replace_t *r, err_t **e);
void fs_replace_abort(fs_replace_t *r); /* idempotent; zeroed structs must have fd = target_fd = -1 */

/* All bytes from memory, in slices: 0 done, 1 call again, -1 failed. */
typedef struct fs_save {
    fs_replace_t replace;
    const uint8_t *bytes; /* borrowed */
    size_t len;
    size_t written;
} fs_save_t;
int fs_save_open(fs_save_t *s, const char *path, mode_t mode, bool is_sync, const void *bytes, size_t len, err_t **e);
int fs_save_slice(fs_save_t *s, err_t **e);

#endif
