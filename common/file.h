/* SPDX-License-Identifier: Apache-2.0
 *
 * Small files of a daemon's own state: read with a limit, written so that a reader or a crash sees the old or the new
 * content.
 */
#ifndef EW_COMMON_FILE_H
#define EW_COMMON_FILE_H

#include "common/buf.h"
#include "common/err.h"

/* Appends the whole file; payload_too_large beyond max bytes. */
int file_read(const char *path, size_t max, buf_t *out, err_t **e);
/* Temporary in the same directory, fsync, rename, fsync of the directory. */
int file_write_atomic(const char *path, const void *bytes, size_t len, unsigned mode, err_t **e);
/* With parents; an existing directory is fine (its mode stays). */
int dir_make(const char *path, unsigned mode, err_t **e);
/* Removes a tree of our own without following links or crossing mount points; a missing path is fine. */
int dir_remove(const char *path, err_t **e);

#endif
