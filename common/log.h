/* SPDX-License-Identifier: Apache-2.0
 *
 * One JSON object per line on stderr: ts, level, daemon, msg, and from the context trace, sandbox, request. Text from
 * outside is escaped and cut at 2000 bytes. Never log secrets or file contents. Log an error once, where it is handled.
 */
#ifndef EW_COMMON_LOG_H
#define EW_COMMON_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* What a line is about. All optional (NULL), borrowed for the call. */
typedef struct log_ctx {
    const char *trace;   /* 32 hexadecimal digits */
    const char *sandbox; /* UUID text */
    const char *request; /* X-Request-Id */
} log_ctx_t;

/* `daemon` must outlive the process's logging. Format: LOG_FORMAT env `json` (default) or `text`. */
void log_open(const char *daemon, enum log_level level);
/* Lines for people instead of JSON, whatever LOG_FORMAT said. */
void log_set_text(bool is_text);
bool log_is_on(enum log_level level);
bool log_level_parse(const char *text, enum log_level *level); /* debug, info, warn, error */
void log_write(enum log_level level, const log_ctx_t *ctx, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_debug(...) log_write(LOG_LEVEL_DEBUG, NULL, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, NULL, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, NULL, __VA_ARGS__)
#define log_error(...) log_write(LOG_LEVEL_ERROR, NULL, __VA_ARGS__)

#endif
