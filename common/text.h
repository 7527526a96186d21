/* SPDX-License-Identifier: Apache-2.0
 *
 * Text: UTF-8, base64, hexadecimal, numbers, sizes. No allocation but where a buf_t is given. Freestanding (in the
 * agent too).
 */
#ifndef EW_COMMON_TEXT_H
#define EW_COMMON_TEXT_H

#include "common/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the longest valid UTF-8 prefix (strict: no surrogates, no overlong forms, at most U+10FFFF). */
size_t utf8_valid_prefix(const void *bytes, size_t len);
bool utf8_is_valid(const void *bytes, size_t len);
/* Largest cut <= max that does not split a character that is whole in `bytes`; invalid bytes count one each. */
size_t utf8_cut(const void *bytes, size_t len, size_t max);

void base64_encode(buf_t *out, const void *bytes, size_t len);
/* Standard or URL-safe alphabet, padding optional, no white space. False on anything else. */
bool base64_decode(buf_t *out, const char *text, size_t len);

/* Of one digit of either case, else -1. */
static inline int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

void hex_encode(char *out, const void *bytes, size_t len);       /* writes 2*len+1 bytes */
bool hex_decode(uint8_t *out, size_t out_len, const char *text); /* exactly 2*out_len digits */

/* Whole decimal number, nothing before or after it. */
bool text_to_u64(const char *text, uint64_t *value);
bool text_to_i64(const char *text, int64_t *value);
/* "4G", "512M", "64k", "1.5G", "4GiB", "1048576": powers of 1024, any case; false if malformed, negative or too large.
 */
bool text_to_size(const char *text, uint64_t *bytes);
/* "2", "0.5", "1.25": thousandths, up to 1024 CPUs; false for zero and for anything else. */
bool text_to_milli(const char *text, uint32_t *milli);

#endif
