/* SPDX-License-Identifier: Apache-2.0
 *
 * One typed configuration table for the whole suite: rows in common/config.def, X(kind, field, "ENV_NAME", default,
 * min, max, daemons, flags, "doc"). Read from the environment, then from the file named by EW_CONFIG (`NAME = value`
 * lines, `#` comments); the environment wins. A malformed or out-of-range value and an unknown NAME in the file are
 * errors that name the key. The struct is owned by the caller and lives as long as the daemon.
 */
#ifndef EW_COMMON_CONFIG_H
#define EW_COMMON_CONFIG_H

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Which daemons a key is for (bits). */
enum config_scope {
    CONFIG_GATEWAY = 1,
    CONFIG_GVISORD = 2,
    CONFIG_FCMGR = 4,
    CONFIG_E2BPROXY = 8,
    CONFIG_MCPHOST = 16,
    CONFIG_GITSYNC = 32,
    CONFIG_CLI = 64,
    CONFIG_ALL = 127
};
enum config_flag { CONFIG_SECRET = 1 };

typedef struct config {
#define CONFIG_TYPE_STR char *
#define CONFIG_TYPE_INT int64_t
#define CONFIG_TYPE_BOOL bool
#define CONFIG_TYPE_CHOICE char *
#define CONFIG_TYPE_SIZE char * /* text_to_size() takes it */
#define CONFIG_TYPE_CPU char *  /* text_to_milli() takes it */
#define X(kind, field, env, def, min, max, scope, flags, doc) CONFIG_TYPE_##kind field;
#include "common/config.def"
#undef X
} config_t;

#define CONFIG_FILE_MAX (1024 * 1024) /* bytes */
#define CONFIG_RUN_DIR_MAX 80         /* bytes: a Unix socket's whole path must fit 107 */

/* Loads everything for `scope`; keys of other daemons in the file are accepted and stay at their defaults. An empty
 * value means the default. Derived defaults (EW_IMAGE_DIR and EW_RUN_DIR from EW_STATE_DIR, EW_NODE) are filled in;
 * paths are made absolute. On failure the struct is freed. */
int config_load(config_t *c, unsigned scope, err_t **e);
/* The same with the text of a file given instead of named by EW_CONFIG (`source` names it in errors). */
int config_load_text(config_t *c, unsigned scope, const char *source, const char *text, size_t len, err_t **e);
void config_free(config_t *c);
/* Prints `NAME = value` of every key in scope, secrets as "(set)" or "(not set)". */
void config_print(const config_t *c, unsigned scope, buf_t *out);
/* The Markdown reference of every key (docs/configuration.md). */
void config_reference(buf_t *out);

#endif
