// SPDX-License-Identifier: Apache-2.0
/* msgpack, the small part of it that messages use: nil, bool, integers, bin, array. Written by hand because a decoder
 * that walks hostile bytes in place needs no allocation at all, and because the agent is linked without any library for
 * it. Interoperates with msgpack-c (tests/unit/test_proto.c compares). */
#include "proto/proto.h"

#include <string.h>

enum {
    MP_NIL = 0xc0,
    MP_FALSE = 0xc2,
    MP_TRUE = 0xc3,
    MP_BIN8 = 0xc4,
    MP_BIN32 = 0xc6,
    MP_U8 = 0xcc,
    MP_U64 = 0xcf,
    MP_I8 = 0xd0,
    MP_I16 = 0xd1,
    MP_I32 = 0xd2,
    MP_I64 = 0xd3,
    MP_ARRAY16 = 0xdc,
    MP_ARRAY32 = 0xdd,
    MP_FIXARRAY = 0x90,
    MP_FIXARRAY_MAX = 15,
    MP_FIXINT_MAX = 0x7f,
    MP_NEGATIVE_FIXINT = 0xe0,
};

static void put_be(buf_t *b, uint8_t type, uint64_t value, unsigned bytes)
{
    uint8_t out[9] = {type};
    for (unsigned i = 0; i < bytes; i++)
        out[1 + i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    buf_append(b, out, 1 + bytes);
}

/* The exponent of the smallest of 1, 2, 4 or 8 bytes that holds the value. */
static unsigned width_log2(uint64_t value)
{
    return value <= UINT8_MAX ? 0 : value <= UINT16_MAX ? 1 : value <= UINT32_MAX ? 2 : 3;
}

void proto_put_nil(buf_t *b)
{
    buf_append_byte(b, MP_NIL);
}

void proto_put_bool(buf_t *b, bool value)
{
    buf_append_byte(b, value ? MP_TRUE : MP_FALSE);
}

void proto_put_uint(buf_t *b, uint64_t value)
{
    if (value <= MP_FIXINT_MAX) {
        buf_append_byte(b, (uint8_t)value);
        return;
    }
    unsigned log2 = width_log2(value);
    put_be(b, (uint8_t)(MP_U8 + log2), value, 1U << log2);
}

void proto_put_int(buf_t *b, int64_t value)
{
    if (value >= 0) {
        proto_put_uint(b, (uint64_t)value);
        return;
    }
    if (value >= -32) {
        buf_append_byte(b, (uint8_t)value);
        return;
    }
    unsigned log2 = value >= INT8_MIN ? 0 : value >= INT16_MIN ? 1 : value >= INT32_MIN ? 2 : 3;
    put_be(b, (uint8_t)(MP_I8 + log2), (uint64_t)value, 1U << log2);
}

void proto_put_strz(buf_t *b, const char *s, size_t len)
{
    uint64_t with_nul = (uint64_t)len + 1;
    unsigned log2 = width_log2(with_nul);
    if (log2 == 3) {
        b->is_failed = true;
        return;
    }
    put_be(b, (uint8_t)(MP_BIN8 + log2), with_nul, 1U << log2);
    buf_append(b, s, len);
    buf_append_byte(b, 0);
}

void proto_put_array(buf_t *b, uint32_t count)
{
    if (count <= MP_FIXARRAY_MAX)
        buf_append_byte(b, (uint8_t)(MP_FIXARRAY | count));
    else if (count <= UINT16_MAX)
        put_be(b, MP_ARRAY16, count, 2);
    else
        put_be(b, MP_ARRAY32, count, 4);
}

/* ---- reading: every function checks the type byte, then the bytes left, and moves only on success ---- */

static size_t left(const proto_cursor_t *c)
{
    return (size_t)(c->end - c->at);
}

static bool get_be(proto_cursor_t *c, unsigned bytes, uint64_t *value)
{
    if (left(c) < 1 + (size_t)bytes)
        return false;
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | c->at[1 + i];
    c->at += 1 + bytes;
    *value = v;
    return true;
}

bool proto_get_nil(proto_cursor_t *c)
{
    if (left(c) < 1 || c->at[0] != MP_NIL)
        return false;
    c->at++;
    return true;
}

bool proto_get_bool(proto_cursor_t *c, bool *value)
{
    if (left(c) < 1 || (c->at[0] != MP_TRUE && c->at[0] != MP_FALSE))
        return false;
    *value = *c->at++ == MP_TRUE;
    return true;
}

bool proto_get_uint(proto_cursor_t *c, uint64_t *value)
{
    if (left(c) < 1)
        return false;
    uint8_t type = c->at[0];
    if (type <= MP_FIXINT_MAX) {
        *value = type;
        c->at++;
        return true;
    }
    return type >= MP_U8 && type <= MP_U64 && get_be(c, 1U << (type - MP_U8), value);
}

bool proto_get_int(proto_cursor_t *c, int64_t *value)
{
    uint64_t u;
    proto_cursor_t saved = *c;
    if (proto_get_uint(c, &u)) {
        if (u <= INT64_MAX) {
            *value = (int64_t)u;
            return true;
        }
        *c = saved;
        return false;
    }
    if (left(c) < 1)
        return false;
    uint8_t type = c->at[0];
    if (type >= MP_NEGATIVE_FIXINT) {
        *value = (int8_t)type;
        c->at++;
        return true;
    }
    if (type < MP_I8 || type > MP_I64)
        return false;
    if (!get_be(c, 1U << (type - MP_I8), &u))
        return false;
    *value = type == MP_I8 ? (int8_t)u : type == MP_I16 ? (int16_t)u : type == MP_I32 ? (int32_t)u : (int64_t)u;
    return true;
}

bool proto_get_strz(proto_cursor_t *c, const char **s, size_t *len)
{
    proto_cursor_t next = *c;
    uint64_t n;
    if (left(c) < 1 || c->at[0] < MP_BIN8 || c->at[0] > MP_BIN32 || !get_be(&next, 1U << (c->at[0] - MP_BIN8), &n))
        return false;
    if (n == 0 || n > left(&next))
        return false;
    if (memchr(next.at, 0, (size_t)n) != next.at + n - 1) /* exactly one NUL, at the end */
        return false;
    *s = (const char *)next.at;
    *len = (size_t)n - 1;
    c->at = next.at + n;
    return true;
}

bool proto_get_array(proto_cursor_t *c, uint32_t *count)
{
    proto_cursor_t next = *c;
    uint64_t n;
    if (left(c) < 1)
        return false;
    uint8_t type = c->at[0];
    if ((type & 0xf0) == MP_FIXARRAY) {
        n = type & MP_FIXARRAY_MAX;
        next.at++;
    } else if (type != MP_ARRAY16 && type != MP_ARRAY32) {
        return false;
    } else if (!get_be(&next, type == MP_ARRAY16 ? 2 : 4, &n)) {
        return false;
    }
    if (n > left(&next)) /* every element needs a byte: refuse the claim before anyone believes it */
        return false;
    *count = (uint32_t)n;
    *c = next;
    return true;
}

static bool walk(proto_cursor_t *c, unsigned depth)
{
    bool flag;
    int64_t i;
    uint64_t u;
    uint32_t count;
    const char *s;
    size_t len;
    if (proto_get_nil(c) || proto_get_bool(c, &flag) || proto_get_uint(c, &u) || proto_get_int(c, &i) ||
        proto_get_strz(c, &s, &len))
        return true;
    if (depth >= PROTO_DEPTH_MAX || !proto_get_array(c, &count))
        return false;
    while (count-- > 0)
        if (!walk(c, depth + 1))
            return false;
    return true;
}

size_t proto_walk(const uint8_t *bytes, size_t len)
{
    if (len == 0) /* bytes may be NULL then */
        return 0;
    proto_cursor_t c = {bytes, bytes + len};
    return walk(&c, 0) ? (size_t)(c.at - bytes) : 0;
}

/* ---- lists ---- */

static proto_iter_t iter_over(const proto_list_t *list, uint32_t values)
{
    if (list->len == 0) /* absent: bytes may be NULL */
        return (proto_iter_t){0};
    return (proto_iter_t){values, list->bytes, list->bytes + list->len};
}

proto_iter_t proto_iter(const proto_list_t *list)
{
    return iter_over(list, list->count);
}

proto_iter_t proto_iter_map(const proto_list_t *map)
{
    return iter_over(map, map->count * 2);
}

bool proto_iter_str(proto_iter_t *it, const char **s)
{
    proto_cursor_t c = {it->at, it->end};
    size_t len;
    if (it->left == 0 || !proto_get_strz(&c, s, &len))
        return false;
    it->left--;
    it->at = c.at;
    return true;
}

bool proto_iter_msg(proto_iter_t *it, proto_nested_t *nested)
{
    size_t len = it->left > 0 ? proto_walk(it->at, (size_t)(it->end - it->at)) : 0;
    if (len == 0)
        return false;
    *nested = (proto_nested_t){it->at, len};
    it->left--;
    it->at += len;
    return true;
}

void proto_list_add_str(buf_t *b, const char *s)
{
    proto_put_strz(b, s, strlen(s));
}

void proto_list_add_strn(buf_t *b, const char *s, size_t len)
{
    proto_put_strz(b, s, len);
}

int proto_list_add_msg(buf_t *b, unsigned msg_id, const void *msg, err_t **e)
{
    return proto_encode(msg_id, msg, b, e);
}
