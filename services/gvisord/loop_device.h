/* SPDX-License-Identifier: Apache-2.0
 *
 * Loop devices that free themselves with their last user (loop(4): LOOP_CTL_GET_FREE, LOOP_CONFIGURE with AUTOCLEAR).
 */
#ifndef EW_SERVICES_GVISORD_LOOP_DEVICE_H
#define EW_SERVICES_GVISORD_LOOP_DEVICE_H

#include "common/err.h"

/* Blocks. Mounts the file system in `file` at `target` (nodev, nosuid, noatime). */
int loop_mount(const char *file, const char *target, const char *type, const char *options, err_t **e);
/* Blocks. Waits until no loop device is backed by `file`. */
int loop_wait_gone(const char *file, unsigned timeout_ms, err_t **e);

#endif
