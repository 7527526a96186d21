/* SPDX-License-Identifier: Apache-2.0
 *
 * Describes a path as a file_entry message: the path itself, a link at its end is not followed.
 */
#ifndef EW_AGENT_FS_ENTRY_H
#define EW_AGENT_FS_ENTRY_H

#include "agent/fs_path.h"
#include "agent/users.h"
#include "proto/messages.h"

/* `msg` points into the rest: do not copy the struct. */
typedef struct fs_entry {
    struct file_entry msg;
    char name[256];
    char owner[USER_NAME_SIZE];
    char group[USER_NAME_SIZE];
    char link[FS_PATH_SIZE];
} fs_entry_t;

/* `name` is looked up in dir_fd (AT_FDCWD for an absolute one); `path` (borrowed by msg) is what the entry says.
 * not_found "file not found: <path>". */
int fs_entry_read(fs_entry_t *entry, int dir_fd, const char *name, const char *path, err_t **e);

#endif
