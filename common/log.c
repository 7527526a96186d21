// SPDX-License-Identifier: Apache-2.0
#include "common/log.h"

#include "common/clock.h"
#include "common/json_writer.h"
#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOG_MESSAGE_MAX 2000
#define LOG_LINE_MAX (64 * 1024) /* message and three context words, every byte escaped as six */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static struct {
    const char *daemon;
    enum log_level level;
    bool is_text;
} log_state = {.daemon = "?", .level = LOG_LEVEL_INFO};

void log_open(const char *daemon, enum log_level level)
{
    const char *format = getenv("LOG_FORMAT");
    log_state.daemon = daemon;
    log_state.level = level;
    log_state.is_text = format != NULL && strcmp(format, "text") == 0;
}

void log_set_text(bool is_text)
{
    log_state.is_text = is_text;
}

bool log_is_on(enum log_level level)
{
    return level >= log_state.level;
}

bool log_level_parse(const char *text, enum log_level *level)
{
    for (size_t i = 0; i < COUNT_OF(level_names); i++)
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    return false;
}

static void format_time(char *out, size_t size)
{
    uint64_t ms = clock_realtime_ms();
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    snprintf(out, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
             tm.tm_min, tm.tm_sec, (unsigned)(ms % 1000));
}

static void add_context(json_writer_t *w, const char *key, const char *value)
{
    if (value == NULL)
        return;
    json_write_key(w, key);
    json_write_strn(w, value, strnlen(value, LOG_MESSAGE_MAX));
}

static void line_json(buf_t *out, const char *ts, enum log_level level, const log_ctx_t *ctx, const char *msg,
                      size_t len)
{
    json_writer_t w;
    json_writer_init(&w, out);
    json_write_open_object(&w);
    json_write_key(&w, "ts");
    json_write_str(&w, ts);
    json_write_key(&w, "level");
    json_write_str(&w, level_names[level]);
    json_write_key(&w, "daemon");
    json_write_str(&w, log_state.daemon);
    json_write_key(&w, "msg");
    json_write_strn(&w, msg, len);
    if (ctx != NULL) {
        add_context(&w, "trace", ctx->trace);
        add_context(&w, "sandbox", ctx->sandbox);
        add_context(&w, "request", ctx->request);
    }
    json_write_close_object(&w);
}

/* A terminal obeys control characters: text from outside must not reach it raw. */
static void add_printable(buf_t *out, const char *s, size_t len)
{
    const uint8_t *p = (const uint8_t *)s;
    while (len > 0) {
        size_t n = utf8_valid_prefix(p, len);
        for (size_t i = 0; i < n; i++)
            if (p[i] < 0x20 || p[i] == 0x7f)
                buf_printf(out, "\\x%02x", p[i]);
            else if (p[i] == 0xc2 && p[i + 1] < 0xa0) /* C1 controls, U+0080 to U+009F */
                buf_printf(out, "\\u%04x", p[++i]);
            else
                buf_append_byte(out, p[i]);
        if (n == len)
            break;
        buf_printf(out, "\\x%02x", p[n]);
        p += n + 1;
        len -= n + 1;
    }
}

static void add_word(buf_t *out, const char *key, const char *value)
{
    if (value == NULL)
        return;
    buf_printf(out, " %s=", key);
    add_printable(out, value, strnlen(value, LOG_MESSAGE_MAX));
}

static void line_text(buf_t *out, const char *ts, enum log_level level, const log_ctx_t *ctx, const char *msg,
                      size_t len)
{
    buf_printf(out, "%s %-5s %s: ", ts, level_names[level], log_state.daemon);
    add_printable(out, msg, len);
    if (ctx != NULL) {
        add_word(out, "trace", ctx->trace);
        add_word(out, "sandbox", ctx->sandbox);
        add_word(out, "request", ctx->request);
    }
}

void log_write(enum log_level level, const log_ctx_t *ctx, const char *fmt, ...)
{
    int saved_errno = errno;
    char msg[LOG_MESSAGE_MAX + 5]; /* four bytes more show whether the cut splits a character */
    char ts[64];
    va_list ap;
    if (!log_is_on(level))
        return;
    va_start(ap, fmt);
    int len = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (len < 0)
        return;
    size_t shown = utf8_cut(msg, strlen(msg), LOG_MESSAGE_MAX);
    auto_buf buf_t line;
    buf_init(&line, LOG_LINE_MAX);
    format_time(ts, sizeof ts);
    if (log_state.is_text)
        line_text(&line, ts, level, ctx, msg, shown);
    else
        line_json(&line, ts, level, ctx, msg, shown);
    buf_append_byte(&line, '\n');
    /* One write, so that lines of several daemons on one pipe stay whole (up to PIPE_BUF). A full or closed stderr must
     * never stop a daemon. */
    ssize_t ignored = write(STDERR_FILENO, line.data, line.len);
    (void)ignored;
    errno = saved_errno;
}
