/* SPDX-License-Identifier: Apache-2.0
 *
 * Between disk.c (making and removing) and disk_keep.c (keeping, freezing, copying).
 */
#ifndef EW_SERVICES_GVISORD_DISK_PRIVATE_H
#define EW_SERVICES_GVISORD_DISK_PRIVATE_H

#include "services/gvisord/disk.h"

bool disk_is_mount_point(const char *path);
/* Waits a moment for one that is busy; not mounted is success. */
int disk_unmount(const char *path, err_t **e);

#endif
