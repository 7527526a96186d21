// SPDX-License-Identifier: Apache-2.0
#include "common/buf.h"

#include "common/mem.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#define BUF_FIRST_CAP 256
#define BUF_LARGEST_MAX (SIZE_MAX / 4) /* so that doubling and the NUL cannot overflow */

void buf_init(buf_t *b, size_t max)
{
    *b = (buf_t){.max = max};
}

void buf_free(buf_t *b)
{
    free(b->data);
    *b = (buf_t){.max = b->max};
}

void buf_reset(buf_t *b)
{
    b->len = 0;
    b->is_failed = false;
}

static bool grow(buf_t *b, size_t extra)
{
    size_t max = b->max ? b->max : BUF_DEFAULT_MAX;
    if (max > BUF_LARGEST_MAX)
        max = BUF_LARGEST_MAX;
    if (b->is_failed || extra > max || b->len > max - extra) {
        b->is_failed = true;
        return false;
    }
    size_t need = b->len + extra + 1; /* one for buf_cstr's NUL */
    if (need <= b->cap)
        return true;
    size_t cap = b->cap ? b->cap : BUF_FIRST_CAP;
    while (cap < need)
        cap *= 2;
    if (cap > max + 1)
        cap = max + 1;
    b->data = mem_realloc(b->data, cap);
    b->cap = cap;
    return true;
}

uint8_t *buf_reserve(buf_t *b, size_t len)
{
    return grow(b, len) ? b->data + b->len : NULL;
}

void buf_commit(buf_t *b, size_t len)
{
    assert(len == 0 || len < b->cap - b->len); /* more than was reserved: memory is overwritten already */
    b->len += len;
}

void buf_append(buf_t *b, const void *bytes, size_t len)
{
    if (len == 0 || !grow(b, len))
        return;
    memcpy(b->data + b->len, bytes, len);
    b->len += len;
}

void buf_append_str(buf_t *b, const char *s)
{
    buf_append(b, s, strlen(s));
}

void buf_append_byte(buf_t *b, uint8_t byte)
{
    buf_append(b, &byte, 1);
}

void buf_printf(buf_t *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (len < 0 || !grow(b, (size_t)len)) {
        b->is_failed = true;
        return;
    }
    va_start(ap, fmt);
    vsnprintf((char *)b->data + b->len, (size_t)len + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)len;
}

void buf_consume(buf_t *b, size_t len)
{
    if (len >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}

void buf_truncate(buf_t *b, size_t len)
{
    if (len < b->len)
        b->len = len;
}

const char *buf_cstr(buf_t *b)
{
    if (b->is_failed || b->data == NULL)
        return "";
    b->data[b->len] = '\0';
    return (const char *)b->data;
}

char *buf_steal(buf_t *b)
{
    if (b->data == NULL)
        return mem_strdup("");
    b->data[b->len] = '\0';
    char *text = (char *)b->data;
    *b = (buf_t){.max = b->max};
    return text;
}
