// SPDX-License-Identifier: Apache-2.0
#include "common/text.h"

#include <string.h>
#include <strings.h>

/* ---- UTF-8 ---- */

/* Length of the character at `p`, or 0 if no valid one starts there. Ranges: Unicode 15, table 3-7. */
static size_t utf8_char(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0];
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    size_t n = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (left < n)
        return 0;
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

size_t utf8_valid_prefix(const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    size_t at = 0;
    while (at < len) {
        uint64_t word;
        if (len - at >= sizeof word) { /* plain ASCII goes eight bytes at a time */
            memcpy(&word, p + at, sizeof word);
            if ((word & 0x8080808080808080ULL) == 0) {
                at += sizeof word;
                continue;
            }
        }
        size_t n = utf8_char(p + at, len - at);
        if (n == 0)
            break;
        at += n;
    }
    return at;
}

bool utf8_is_valid(const void *bytes, size_t len)
{
    return utf8_valid_prefix(bytes, len) == len;
}

size_t utf8_cut(const void *bytes, size_t len, size_t max)
{
    const uint8_t *p = bytes;
    if (len <= max)
        return len;
    /* A character that the cut would split starts at most three bytes before it. */
    for (size_t back = 1; back <= 3 && back <= max; back++) {
        size_t start = max - back;
        if ((p[start] & 0xc0) == 0x80)
            continue;
        return utf8_char(p + start, len - start) > back ? start : max;
    }
    return max;
}

/* ---- base64 (RFC 4648) ---- */

void base64_encode(buf_t *out, const void *bytes, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = bytes;
    if (len == 0)
        return;
    if (len > SIZE_MAX / 2) {
        out->is_failed = true;
        return;
    }
    size_t need = (len + 2) / 3 * 4;
    uint8_t *o = buf_reserve(out, need);
    if (o == NULL)
        return;
    for (; len >= 3; len -= 3, p += 3, o += 4) {
        o[0] = (uint8_t)digits[p[0] >> 2];
        o[1] = (uint8_t)digits[(p[0] & 3) << 4 | p[1] >> 4];
        o[2] = (uint8_t)digits[(p[1] & 15) << 2 | p[2] >> 6];
        o[3] = (uint8_t)digits[p[2] & 63];
    }
    if (len > 0) {
        uint8_t second = len == 2 ? p[1] : 0;
        o[0] = (uint8_t)digits[p[0] >> 2];
        o[1] = (uint8_t)digits[(p[0] & 3) << 4 | second >> 4];
        o[2] = len == 2 ? (uint8_t)digits[(second & 15) << 2] : '=';
        o[3] = '=';
    }
    buf_commit(out, need);
}

/* 0..63, or -1. The two alphabets differ in the last two digits. */
static int base64_value(char c, bool *is_standard, bool *is_url)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '/') {
        *is_standard = true;
        return c == '+' ? 62 : 63;
    }
    if (c == '-' || c == '_') {
        *is_url = true;
        return c == '-' ? 62 : 63;
    }
    return -1;
}

bool base64_decode(buf_t *out, const char *text, size_t len)
{
    bool is_standard = false, is_url = false;
    if (len > 0 && text[len - 1] == '=') { /* padding, when there, must be complete */
        if (len % 4 != 0)
            return false;
        len -= text[len - 2] == '=' ? 2 : 1;
    }
    if (len % 4 == 1)
        return false;
    if (len == 0)
        return !buf_failed(out);
    uint8_t *start = buf_reserve(out, len / 4 * 3 + 2);
    uint8_t *o = start;
    if (o == NULL)
        return false;
    uint32_t bits = 0;
    unsigned held = 0;
    for (size_t i = 0; i < len; i++) {
        int value = base64_value(text[i], &is_standard, &is_url);
        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            *o++ = (uint8_t)(bits >> held);
        }
    }
    if ((bits & ((1U << held) - 1)) != 0 || (is_standard && is_url))
        return false;
    buf_commit(out, (size_t)(o - start));
    return true;
}

/* ---- hexadecimal ---- */

void hex_encode(char *out, const void *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = bytes;
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[p[i] >> 4];
        *out++ = digits[p[i] & 15];
    }
    *out = '\0';
}

bool hex_decode(uint8_t *out, size_t out_len, const char *text)
{
    for (size_t i = 0; i < out_len; i++) {
        int high = hex_value(text[2 * i]);
        int low = high < 0 ? -1 : hex_value(text[2 * i + 1]); /* never reads past a NUL */
        if (low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return text[2 * out_len] == '\0';
}

/* ---- numbers ---- */

/* Reads digits at *p (at least one) and moves it. False on overflow. */
static bool read_digits(const char **p, uint64_t *value, unsigned *count)
{
    const char *s = *p;
    uint64_t v = 0;
    for (; *s >= '0' && *s <= '9'; s++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return false;
    if (count != NULL)
        *count = (unsigned)(s - *p);
    if (s == *p)
        return false;
    *p = s;
    *value = v;
    return true;
}

bool text_to_u64(const char *text, uint64_t *value)
{
    uint64_t v;
    if (!read_digits(&text, &v, NULL) || *text != '\0')
        return false;
    *value = v;
    return true;
}

bool text_to_i64(const char *text, int64_t *value)
{
    uint64_t magnitude;
    bool is_negative = *text == '-';
    if (!text_to_u64(text + is_negative, &magnitude) || magnitude > (uint64_t)INT64_MAX + is_negative)
        return false;
    *value = is_negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

/* Optional ".digits" at *p, as `fraction` / `scale`. */
static bool read_fraction(const char **p, uint64_t *fraction, uint64_t *scale)
{
    unsigned count = 0;
    *fraction = 0;
    *scale = 1;
    if (**p != '.')
        return true;
    (*p)++;
    if (!read_digits(p, fraction, &count) || count > 18)
        return false;
    while (count-- > 0)
        *scale *= 10;
    return true;
}

/* The exponent of 1024 that a suffix means; -1 if it is none. "", "B", "K", "KB", "KiB", … */
static int suffix_power(const char *s)
{
    static const char letters[] = "KMGTPE";
    if (*s == '\0' || strcasecmp(s, "b") == 0)
        return 0;
    for (int i = 0; letters[i] != '\0'; i++)
        if ((*s | 0x20) == (letters[i] | 0x20))
            return s[1] == '\0' || strcasecmp(s + 1, "b") == 0 || strcasecmp(s + 1, "ib") == 0 ? i + 1 : -1;
    return -1;
}

bool text_to_size(const char *text, uint64_t *bytes)
{
    uint64_t whole, fraction, scale;
    if (!read_digits(&text, &whole, NULL) || !read_fraction(&text, &fraction, &scale))
        return false;
    int power = suffix_power(text);
    if (power < 0 || (power == 0 && scale != 1)) /* there is no half byte */
        return false;
    uint64_t unit = 1ULL << (10 * power);
    if (__builtin_mul_overflow(whole, unit, &whole))
        return false;
    unsigned __int128 part = (unsigned __int128)fraction * unit / scale;
    return !__builtin_add_overflow(whole, (uint64_t)part, bytes);
}

bool text_to_milli(const char *text, uint32_t *milli)
{
    uint64_t whole, fraction, scale;
    if (!read_digits(&text, &whole, NULL) || whole > 1024 || !read_fraction(&text, &fraction, &scale) ||
        *text != '\0' || scale > 1000)
        return false;
    uint64_t value = whole * 1000 + fraction * (1000 / scale);
    if (value == 0 || value > 1024 * 1000)
        return false;
    *milli = (uint32_t)value;
    return true;
}
