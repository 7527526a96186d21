/* SPDX-License-Identifier: Apache-2.0
 *
 * The image store: `EW_IMAGE_DIR/<name>/image.json` and `rootfs-<generation>/`, an unpacked root file system that all
 * sandboxes of the image share read-only. A new version of an image is a new generation; running sandboxes keep theirs,
 * image_prune() removes what nobody uses. What is imported is hostile: it is unpacked into a fresh directory, device
 * nodes, sockets and FIFOs are removed, and no path in it is ever opened by following its links.
 */
#ifndef EW_SERVICES_GVISORD_IMAGE_H
#define EW_SERVICES_GVISORD_IMAGE_H

#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct image {
    char *name;
    char *rootfs; /* absolute path */
    char *digest;
    char *source;
    uint64_t size_bytes;
    uint64_t created_at_ms;
} image_t;

void image_free(image_t *image);
#define auto_image __attribute__((cleanup(image_free)))

/* Letters, digits and . _ - of at most 128 bytes, the first a letter or digit. */
bool image_name_is_valid(const char *name);
/* not_found names what is there and how to get more. */
int image_find(const char *store, const char *name, image_t *image, err_t **e);
/* Calls fn for every usable image, by name. */
void image_each(const char *store, void (*fn)(void *arg, const image_t *image), void *arg);
/* Removes generations (never the current one) for which is_used says no. Blocks. */
void image_prune(const char *store, bool (*is_used)(void *arg, const char *rootfs), void *arg);

/* All block (command line only). */
int image_import_tar(const char *store, const char *name, const char *tar, const char *source, err_t **e);
/* skopeo's syntax: docker://…, oci:dir:tag, docker-archive:file … */
int image_import_oci(const char *store, const char *name, const char *reference, err_t **e);

#endif
