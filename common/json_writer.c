// SPDX-License-Identifier: Apache-2.0
#include "common/json_writer.h"

#include "common/text.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_writer_init(json_writer_t *w, buf_t *out)
{
    *w = (json_writer_t){.out = out};
}

/* Before a value: the comma of an array; in an object a key must have come. Level 0 holds one value. */
static void before_value(json_writer_t *w)
{
    if (w->is_after_key) {
        w->is_after_key = false;
        return;
    }
    assert(!w->is_object[w->depth]);
    assert(w->depth > 0 || !w->has_item[0]);
    if (w->has_item[w->depth])
        buf_append_byte(w->out, ',');
    w->has_item[w->depth] = true;
}

static void open_level(json_writer_t *w, bool is_object)
{
    before_value(w);
    assert(w->depth + 1 < JSON_WRITER_DEPTH_MAX);
    w->depth++;
    w->has_item[w->depth] = false;
    w->is_object[w->depth] = is_object;
    buf_append_byte(w->out, is_object ? '{' : '[');
}

static void close_level(json_writer_t *w, bool is_object)
{
    assert(w->depth > 0 && w->is_object[w->depth] == is_object && !w->is_after_key);
    w->depth--;
    buf_append_byte(w->out, is_object ? '}' : ']');
}

void json_write_open_object(json_writer_t *w)
{
    open_level(w, true);
}

void json_write_close_object(json_writer_t *w)
{
    close_level(w, true);
}

void json_write_open_array(json_writer_t *w)
{
    open_level(w, false);
}

void json_write_close_array(json_writer_t *w)
{
    close_level(w, false);
}

static void escape_byte(buf_t *out, uint8_t byte)
{
    static const char letters[32] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    if (byte == '"' || byte == '\\') {
        uint8_t pair[2] = {'\\', byte};
        buf_append(out, pair, sizeof pair);
    } else if (letters[byte] != '\0') {
        uint8_t pair[2] = {'\\', (uint8_t)letters[byte]};
        buf_append(out, pair, sizeof pair);
    } else {
        static const char digits[] = "0123456789abcdef";
        uint8_t six[6] = {'\\', 'u', '0', '0', (uint8_t)digits[byte >> 4], (uint8_t)digits[byte & 15]};
        buf_append(out, six, sizeof six);
    }
}

#define EVERY_BYTE(b) (0x0101010101010101ULL * (b))

/* True if none of eight bytes needs an escape ("Bit Twiddling Hacks", hasless and haszero); false may be wrong, true is
 * not. */
static bool is_plain_word(const uint8_t *p)
{
    uint64_t w, quote, backslash;
    memcpy(&w, p, sizeof w);
    quote = w ^ EVERY_BYTE('"');
    backslash = w ^ EVERY_BYTE('\\');
    uint64_t found =
        ((w - EVERY_BYTE(0x20)) & ~w) | ((quote - EVERY_BYTE(1)) & ~quote) | ((backslash - EVERY_BYTE(1)) & ~backslash);
    return (found & EVERY_BYTE(0x80)) == 0;
}

/* Valid UTF-8 with quotes, backslashes and control characters escaped; what lies between goes over in one piece. */
static void write_escaped(buf_t *out, const uint8_t *p, size_t len)
{
    size_t start = 0;
    for (size_t i = 0; i < len; i++) {
        while (len - i > 8 && is_plain_word(p + i))
            i += 8;
        if (p[i] >= 0x20 && p[i] != '"' && p[i] != '\\')
            continue;
        buf_append(out, p + start, i - start);
        escape_byte(out, p[i]);
        start = i + 1;
    }
    buf_append(out, p + start, len - start);
}

/* Quotes included. Returns whether all of it was valid. */
static bool write_string(buf_t *out, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    bool is_clean = true;
    buf_append_byte(out, '"');
    while (len > 0) {
        size_t valid = utf8_valid_prefix(p, len);
        write_escaped(out, p, valid);
        if (valid == len)
            break;
        buf_append_str(out, "\xef\xbf\xbd");
        is_clean = false;
        p += valid + 1;
        len -= valid + 1;
    }
    buf_append_byte(out, '"');
    return is_clean;
}

void json_write_key(json_writer_t *w, const char *key)
{
    assert(w->depth > 0 && w->is_object[w->depth] && !w->is_after_key);
    if (w->has_item[w->depth])
        buf_append_byte(w->out, ',');
    w->has_item[w->depth] = true;
    w->is_after_key = true;
    write_string(w->out, key, strlen(key));
    buf_append_byte(w->out, ':');
}

void json_write_str(json_writer_t *w, const char *s)
{
    if (s == NULL)
        json_write_null(w);
    else
        json_write_strn(w, s, strlen(s));
}

bool json_write_strn(json_writer_t *w, const void *bytes, size_t len)
{
    before_value(w);
    return write_string(w->out, bytes, len);
}

void json_write_base64(json_writer_t *w, const void *bytes, size_t len)
{
    before_value(w);
    buf_append_byte(w->out, '"');
    base64_encode(w->out, bytes, len);
    buf_append_byte(w->out, '"');
}

void json_write_int(json_writer_t *w, int64_t value)
{
    before_value(w);
    buf_printf(w->out, "%" PRId64, value);
}

void json_write_uint(json_writer_t *w, uint64_t value)
{
    before_value(w);
    buf_printf(w->out, "%" PRIu64, value);
}

void json_write_double(json_writer_t *w, double value)
{
    char text[32];
    if (!isfinite(value)) { /* JSON has no word for them */
        json_write_null(w);
        return;
    }
    before_value(w);
    /* The shortest of the three that reads back as the same number. */
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_append_str(w->out, text);
}

void json_write_bool(json_writer_t *w, bool value)
{
    before_value(w);
    buf_append_str(w->out, value ? "true" : "false");
}

void json_write_null(json_writer_t *w)
{
    before_value(w);
    buf_append_str(w->out, "null");
}

void json_write_raw(json_writer_t *w, const char *text, size_t len)
{
    before_value(w);
    buf_append(w->out, text, len);
}
