/* SPDX-License-Identifier: Apache-2.0
 *
 * Command lines of the OCI runtime: the flags that a sandbox's every command shares.
 */
#ifndef EW_SERVICES_GVISORD_RUNTIME_H
#define EW_SERVICES_GVISORD_RUNTIME_H

#include "common/err.h"

#include <jansson.h>
#include <stdbool.h>

#define RUNTIME_ARGV_MAX 32
/* What a checkpoint depends on beside the version; part of its key. */
#define RUNTIME_FLAGS "--overlay2=none --ignore-cgroups"

typedef struct runtime {
    const char *path;     /* of the program; NULL: not known (yet) */
    const char *root;     /* --root */
    const char *platform; /* "" for crun */
    bool is_crun;
    bool has_network; /* network full */
} runtime_t;

typedef struct runtime_command {
    const char *argv[RUNTIME_ARGV_MAX];
    int argc;
} runtime_command_t;

/* Program and global flags; log NULL: the runtime keeps none. What is given to it must outlive the command. */
void runtime_begin(runtime_command_t *c, const runtime_t *r, const char *log);
void runtime_add(runtime_command_t *c, const char *argument);

/* To a worker's job and back; what `r` points to belongs to the object. */
json_t *runtime_to_json(const runtime_t *r);
void runtime_from_json(runtime_t *r, const json_t *object);

#endif
