/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes JSON into a buf_t with open/close calls; escapes every string; puts the commas. Misuse (a value where a key is
 * due) aborts. Reading JSON is jansson's job.
 */
#ifndef EW_COMMON_JSON_WRITER_H
#define EW_COMMON_JSON_WRITER_H

#include "common/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_WRITER_DEPTH_MAX 24

typedef struct json_writer {
    buf_t *out;
    unsigned depth;
    bool has_item[JSON_WRITER_DEPTH_MAX];
    bool is_object[JSON_WRITER_DEPTH_MAX];
    bool is_after_key;
} json_writer_t;

void json_writer_init(json_writer_t *w, buf_t *out);
void json_write_open_object(json_writer_t *w);
void json_write_close_object(json_writer_t *w);
void json_write_open_array(json_writer_t *w);
void json_write_close_array(json_writer_t *w);
void json_write_key(json_writer_t *w, const char *key);
void json_write_str(json_writer_t *w, const char *s); /* NULL writes null */
/* Invalid UTF-8 becomes U+FFFD; returns false if that was needed. */
bool json_write_strn(json_writer_t *w, const void *bytes, size_t len);
void json_write_base64(json_writer_t *w, const void *bytes, size_t len);
void json_write_int(json_writer_t *w, int64_t value);
void json_write_uint(json_writer_t *w, uint64_t value);
void json_write_double(json_writer_t *w, double value);
void json_write_bool(json_writer_t *w, bool value);
void json_write_null(json_writer_t *w);
void json_write_raw(json_writer_t *w, const char *text, size_t len); /* text is JSON already */

#endif
