/* SPDX-License-Identifier: Apache-2.0
 *
 * A sandbox's writable layer: one sparse ext4 image made from a template of its size, loop-mounted, holding upper and
 * work of an overlay over the agent's layer and the image. In the sandbox's directory: disk.img   the image disk/ its
 * mount, with upper/ and work/       rootfs/  the overlay, what the sandbox sees as / Without loop devices disk/ is a
 * plain directory: the limit is then watched by nobody, and disk_probe() says so.
 *
 * Functions marked "blocks" belong into a worker's job.
 */
#ifndef EW_SERVICES_GVISORD_DISK_H
#define EW_SERVICES_GVISORD_DISK_H

#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

#define DISK_UNMOUNT_WAIT_MS 5000

/* A file of the sandbox's own /etc. */
typedef struct disk_file {
    const char *name;
    const char *content;
} disk_file_t;

typedef struct disk_spec {
    const char *dir;           /* of the sandbox */
    const char *template_dir;  /* templates by size are kept here */
    uint64_t size_bytes;       /* rounded up to 4 KiB */
    const char *const *lowers; /* topmost first, NULL ends */
    const disk_file_t *etc;    /* name NULL ends; may be NULL */
    bool has_loop;
    bool is_kept; /* its files are there already, from an earlier life: has_loop and size_bytes mean nothing */
} disk_spec_t;

/* Blocks. On failure the caller runs disk_teardown. */
int disk_prepare(const disk_spec_t *spec, err_t **e);
/* Blocks. Unmounts and removes everything; idempotent. The sandbox's processes must be gone. */
int disk_teardown(const char *dir, err_t **e);
/* Whether both mounts are in place. */
bool disk_is_mounted(const char *dir);
/* Blocks. Can this host loop-mount ext4 images? */
bool disk_has_loop(const char *state_dir, err_t **why_not);
/* Blocks. Unmounts everything and leaves only the sandbox's files, synced: disk.img (disk/ without loop devices).
 * Idempotent; the sandbox's processes must be gone. */
int disk_detach(const char *dir, err_t **e);
/* Blocks. What was written inside reaches the image. */
int disk_sync(const char *dir, err_t **e);
/* Blocks. All writing below waits until disk_thaw; then disk.img is a consistent file system. Without loop devices
 * nothing is done. */
int disk_freeze(const char *dir, err_t **e);
/* Of a frozen one; harmless otherwise. */
void disk_thaw(const char *dir);
/* Blocks. The files of one sandbox (frozen or detached) or snapshot become those of another. */
int disk_copy(const char *from_dir, const char *to_dir, bool *is_shared, err_t **e);
/* Disk space that such a copy takes where blocks are not shared. */
uint64_t disk_used_bytes(const char *dir);
/* Blocks. A detached disk.img gets a larger limit; validation_error when it would have to shrink. */
int disk_grow(const char *dir, uint64_t size_bytes, err_t **e);
/* Blocks. Unmounts what is mounted below dir, innermost first. */
int disk_unmount_below(const char *dir, err_t **e);

#endif
