/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gateway/json_guard.h"

#include <string.h>

/* The index behind the closing quote of the string that begins at `at`, or len. Long strings are contents of files:
 * searched, not stepped through. */
static size_t skip_string(const char *text, size_t len, size_t at)
{
    for (at++; at < len; at++) {
        const char *quote = memchr(text + at, '"', len - at);
        size_t end = quote ? (size_t)(quote - text) : len;
        size_t slashes = 0;
        while (slashes < end - at && text[end - 1 - slashes] == '\\') {
            slashes++;
        }
        if (slashes % 2 == 0) {
            return end < len ? end + 1 : len;
        }
        at = end; /* an escaped quote */
    }
    return len;
}

const char *json_guard(const char *text, size_t len)
{
    size_t depth = 0, values = 0;
    for (size_t i = 0; i < len;) {
        char c = text[i];
        if (c == '"') {
            i = skip_string(text, len, i);
            continue;
        }
        if (c == '[' || c == '{') {
            depth++;
            values++;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        } else if (c == ',') {
            values++;
        }
        if (depth > JSON_GUARD_DEPTH_MAX) {
            return "nested too deeply";
        }
        if (values > JSON_GUARD_VALUES_MAX) {
            return "too many values";
        }
        i++;
    }
    return NULL;
}
