// SPDX-License-Identifier: Apache-2.0
#include "agent/lines.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- counting: 16 bytes at a time with the compiler's vectors, because files may have gigabytes ---- */

typedef uint8_t vec16_t __attribute__((vector_size(16)));

static size_t count_block(const uint8_t *p, size_t vectors)
{
    static const vec16_t newline = {'\n', '\n', '\n', '\n', '\n', '\n', '\n', '\n',
                                    '\n', '\n', '\n', '\n', '\n', '\n', '\n', '\n'};
    vec16_t sums = {0};
    size_t total = 0;
    for (size_t i = 0; i < vectors; i++) {
        vec16_t v;
        memcpy(&v, p + 16 * i, sizeof v);
        sums -= (vec16_t)(v == newline); /* a hit is 0xff, that is -1 */
    }
    for (size_t i = 0; i < 16; i++)
        total += sums[i];
    return total;
}

size_t lines_count_newlines(const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    size_t total = 0;
    while (len >= 16) {
        size_t vectors = len / 16 < 255 ? len / 16 : 255; /* a sum has 8 bits */
        total += count_block(p, vectors);
        p += 16 * vectors;
        len -= 16 * vectors;
    }
    for (; len > 0; len--)
        total += *p++ == '\n';
    return total;
}

/* ---- the window ---- */

void lines_init(lines_t *l, uint64_t first, uint64_t count, size_t max, buf_t *out)
{
    *l = (lines_t){.first = first ? first : 1, .count = count, .max = max, .out = out, .line = 1};
}

static bool is_shown(const lines_t *l)
{
    return l->line >= l->first && l->line - l->first < l->count;
}

static void end_window(lines_t *l)
{
    l->is_over = true;
    l->next_line = l->line;
}

/* The line did not fit: take it back, or cut it when it is the only one. */
static void overflow(lines_t *l)
{
    l->is_truncated = true;
    if (l->line > l->first) {
        buf_truncate(l->out, l->line_start);
        if (!l->is_exact && l->out->len < l->max)
            buf_append_byte(l->out, '\n'); /* the stream goes on behind the last line shown */
        end_window(l);
        return;
    }
    l->is_cut = true;
}

/* A character that the limit splits is not whole in what we hold: its first bytes go. */
static void drop_split_character(buf_t *out)
{
    for (size_t back = 1; back <= 3 && back <= out->len; back++) {
        uint8_t lead = out->data[out->len - back];
        if ((lead & 0xc0) == 0x80)
            continue;
        size_t need = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
        if (need > back)
            buf_truncate(out, out->len - back);
        return;
    }
}

static void append(lines_t *l, const void *bytes, size_t len)
{
    if (l->is_cut || len == 0)
        return;
    size_t room = l->max - l->out->len;
    if (len <= room) {
        buf_append(l->out, bytes, len);
        return;
    }
    if (l->line == l->first) {
        buf_append(l->out, bytes, room);
        if (!l->is_exact)
            drop_split_character(l->out);
    }
    overflow(l);
}

static void start_line(lines_t *l)
{
    char number[24];
    l->is_started = true;
    l->is_cut = false;
    if (l->is_over)
        return;
    l->line_start = l->out->len;
    if (l->line > l->first && !l->is_exact)
        append(l, "\n", 1);
    if (l->is_over)
        return;
    if (!is_shown(l)) {
        if (l->line >= l->first)
            end_window(l);
        return;
    }
    if (l->is_numbered) {
        int n = snprintf(number, sizeof number, "%" PRIu64 ": ", l->line);
        append(l, number, (size_t)n);
    }
}

static void end_line(lines_t *l)
{
    l->line++;
    l->is_started = false;
}

/* Lines before the window, and all behind it, are only counted. Returns the bytes dealt with. */
static size_t skip(lines_t *l, const uint8_t *bytes, size_t len)
{
    if (l->is_over) {
        size_t n = lines_count_newlines(bytes, len);
        l->line += n;
        l->is_started = bytes[len - 1] != '\n';
        return len;
    }
    const uint8_t *at = bytes, *end = bytes + len;
    while (at < end && l->line < l->first) {
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        l->is_started = newline == NULL;
        l->line += newline != NULL;
        at = newline ? newline + 1 : end;
    }
    return (size_t)(at - bytes);
}

void lines_feed(lines_t *l, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    const uint8_t *end = at + len;
    while (at < end) {
        if (l->is_over || l->line < l->first) {
            at += skip(l, at, (size_t)(end - at));
            continue;
        }
        if (!l->is_started) {
            start_line(l);
            if (l->is_over)
                continue;
        }
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        const uint8_t *stop = newline ? newline : end;
        append(l, at, (size_t)(stop - at) + (newline && l->is_exact));
        if (l->is_over)
            continue; /* counts this line's rest from where we are */
        if (newline)
            end_line(l);
        at = newline ? newline + 1 : end;
    }
}

void lines_end(lines_t *l)
{
    l->total = l->line - 1 + (l->is_started ? 1 : 0);
}
