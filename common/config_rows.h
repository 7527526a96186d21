/* SPDX-License-Identifier: Apache-2.0
 *
 * The rows of config.def as data; shared by config.c (loads) and config_reference.c (tells), by nobody else.
 */
#ifndef EW_COMMON_CONFIG_ROWS_H
#define EW_COMMON_CONFIG_ROWS_H

#include "common/config.h"

#include <stddef.h>

enum config_kind {
    CONFIG_KIND_STR,
    CONFIG_KIND_INT,
    CONFIG_KIND_BOOL,
    CONFIG_KIND_CHOICE,
    CONFIG_KIND_SIZE,
    CONFIG_KIND_CPU,
};

typedef struct config_row {
    enum config_kind kind;
    const char *name;
    const char *def; /* default; CHOICE: all choices */
    int64_t min;
    int64_t max;
    unsigned scope;
    unsigned flags;
    size_t offset;
    const char *doc;
} config_row_t;

/* A variable of the system that this suite replaces, which means nothing here. */
typedef struct config_dropped {
    const char *name;
    const char *reason;
} config_dropped_t;

const config_row_t *config_row_at(size_t i);         /* NULL past the end */
const config_dropped_t *config_dropped_at(size_t i); /* NULL past the end */

#endif
