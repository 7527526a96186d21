/* SPDX-License-Identifier: Apache-2.0
 *
 * Small things that all file tools need: types in words, parents, whole writes. Paths are absolute; nothing here is
 * kept open.
 */
#ifndef EW_AGENT_FS_PATH_H
#define EW_AGENT_FS_PATH_H

#include "common/err.h"

#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#define FS_PATH_SIZE 4096
#define FS_DIR_MODE 0755
#define FS_FILE_MODE 0644

/* file, directory, symlink, fifo, socket or device. */
const char *fs_type_name(mode_t mode);

/* Makes the directory and its missing parents with exactly this mode; existing ones stay as they are. *made (may be
 * NULL) tells whether the last part is new. Errors: bad_request when something on the way is not a directory, no_space.
 */
int fs_make_dirs(const char *path, mode_t mode, bool *made, err_t **e);
/* The same for everything before the last slash, mode FS_DIR_MODE. */
int fs_make_parents(const char *path, err_t **e);

/* Writes everything; -1 with errno set. */
int fs_write_all(int fd, const void *bytes, size_t len);
/* One read() of up to `len` bytes that goes on after EINTR. */
ssize_t fs_read_some(int fd, void *bytes, size_t len);

/* The regular file at `path`, open for reading and described in *st, or -1: not_found "file not found: <path>",
 * bad_request naming the type of anything that is not a file. `allow_dir`: a directory is fine too. Never blocks on a
 * fifo. */
int fs_open_file(const char *path, bool allow_dir, struct stat *st, err_t **e);

#endif
