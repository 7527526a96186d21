/* SPDX-License-Identifier: Apache-2.0
 *
 * One growable byte buffer with a maximum and a sticky failure: append freely, check `buf_failed()` once at the end.
 * Owns its bytes; `buf_free` is idempotent. A buffer whose maximum would be passed keeps what it had and fails.
 */
#ifndef EW_COMMON_BUF_H
#define EW_COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    size_t max; /* 0 = BUF_DEFAULT_MAX */
    bool is_failed;
} buf_t;

#define BUF_DEFAULT_MAX ((size_t)64 << 20)

void buf_init(buf_t *b, size_t max);
void buf_free(buf_t *b);
#define auto_buf __attribute__((cleanup(buf_free)))

void buf_reset(buf_t *b); /* empties, clears the failure, keeps the memory */
void buf_append(buf_t *b, const void *bytes, size_t len);
void buf_append_str(buf_t *b, const char *s);
void buf_append_byte(buf_t *b, uint8_t byte);
void buf_printf(buf_t *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Room for `len` more bytes at the end, or NULL (failed). Follow with buf_commit(). */
uint8_t *buf_reserve(buf_t *b, size_t len);
void buf_commit(buf_t *b, size_t len);
void buf_consume(buf_t *b, size_t len); /* drops bytes from the front */
void buf_truncate(buf_t *b, size_t len);
static inline bool buf_failed(const buf_t *b)
{
    return b->is_failed;
}
/* NUL-terminates (the NUL is not counted) and lends the text; "" for an empty or failed buffer. */
const char *buf_cstr(buf_t *b);
/* Hands the bytes over (NUL-terminated), leaving the buffer empty. Caller frees. */
char *buf_steal(buf_t *b);

#endif
