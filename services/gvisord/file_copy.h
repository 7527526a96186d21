/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies of big sparse files, and making files durable. All of it blocks: for a worker's jobs.
 */
#ifndef EW_SERVICES_GVISORD_FILE_COPY_H
#define EW_SERVICES_GVISORD_FILE_COPY_H

#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Makes `to` (0600, replaced) a copy of `from`: blocks are shared where the file system can do that (reflink), else
 * only the parts that hold data are copied; *is_shared tells which (may be NULL). Gives up when the daemon has ended:
 * nobody waits for the copy any more. Not synced. */
int file_copy_sparse(const char *from, const char *to, bool *is_shared, err_t **e);
/* A second name for a file that never changes; a copy where that cannot be. */
int file_link_or_copy(const char *from, const char *to, err_t **e);
/* Files directly in dir, then dir. */
int dir_sync(const char *dir, err_t **e);
int file_sync(const char *path, err_t **e);
/* Disk space really used by dir and everything below it. */
uint64_t dir_used_bytes(const char *dir);
/* no_space unless the file system of dir has room for bytes; `what` completes "there is no room for …". */
int dir_require_space(const char *dir, uint64_t bytes, const char *what, err_t **e);
/* Do files in dir share blocks when copied? */
bool dir_has_reflink(const char *dir);

#endif
