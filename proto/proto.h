/* SPDX-License-Identifier: Apache-2.0
 *
 * The codec that turns the tables of proto/messages.h into structs and bytes and back. Part of the agent: no libc
 * beyond the basics, no allocation while decoding, safe on hostile bytes.
 *
 * Wire form of a message: one msgpack array with one element per row, in order; nil or a missing tail = absent; a
 * longer array is refused. STR, JSON and the strings in LIST and MAP travel as msgpack bin *with* their terminating NUL
 * (checked, and no other NUL), so that a decoded struct points into the frame and nothing is copied. BULK fields hold
 * their length in the array; their bytes follow the array, in row order, raw.
 *
 * A decoded struct borrows from the bytes it was decoded from. An encoded message copies everything.
 */
#ifndef EW_PROTO_PROTO_H
#define EW_PROTO_PROTO_H

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTO_ELEMENT_MAX 8192 /* bytes of one string in a LIST or MAP, unless the row's `extra` is a number */
#define PROTO_DEPTH_MAX 6

/* Bytes that travel raw. data NULL = absent. */
typedef struct proto_bytes {
    const void *data;
    size_t len;
} proto_bytes_t;

/* LIST, MAP and MSGS: `count` encoded elements (MAP: 2 × count strings). Read with proto_iter_*, build with
 * proto_list_*. */
typedef struct proto_list {
    uint32_t count;
    const uint8_t *bytes;
    size_t len;
} proto_list_t;

/* MSG: one nested message, still encoded. bytes NULL = absent. */
typedef struct proto_nested {
    const uint8_t *bytes;
    size_t len;
} proto_nested_t;

enum proto_kind {
    PROTO_STR,  /* const char *   UTF-8 is not checked here; max = bytes without NUL */
    PROTO_JSON, /* const char *   JSON text, embedded as such in REST bodies */
    PROTO_BULK, /* proto_bytes_t  raw bytes behind the array */
    PROTO_U32,  /* uint32_t       max = largest value */
    PROTO_U64,  /* uint64_t */
    PROTO_I64,  /* int64_t        max = largest absolute value */
    PROTO_BOOL, /* bool */
    PROTO_LIST, /* proto_list_t   of strings; max = elements */
    PROTO_MAP,  /* proto_list_t   string to string; max = pairs */
    PROTO_MSG,  /* proto_nested_t max = bytes; extra = message name */
    PROTO_MSGS, /* proto_list_t   of messages; max = elements; extra = message name */
};

enum proto_flag {
    PROTO_REQ = 1,       /* must be present */
    PROTO_OMIT = 2,      /* left out of REST replies when zero, false or empty */
    PROTO_HIDE = 4,      /* never shown in REST (inner fields) */
    PROTO_SECRET = 8,    /* never logged, never in errors */
    PROTO_NONEMPTY = 16, /* present and "" is refused like absent ("<name> is required") */
};

typedef struct proto_field {
    const char *name;
    enum proto_kind kind;
    unsigned flags;
    uint64_t max;
    size_t offset;
    const char
        *extra; /* STR: choices "a|b|c"; MSG/MSGS: message name; LIST/MAP: element bytes as a number; "" = none */
    const char *doc;
} proto_field_t;

typedef struct proto_desc {
    unsigned id;
    const char *name;
    const char *doc;
    size_t size; /* of the struct, which begins with `has`: one bool per field, in row order */
    const proto_field_t *fields;
    size_t field_count;
} proto_desc_t;

const proto_desc_t *proto_desc(unsigned msg_id);              /* NULL if unknown */
const proto_desc_t *proto_desc_by_name(const char *msg_name); /* NULL if unknown */
size_t proto_element_max(const proto_field_t *f);             /* bytes of one string in a LIST or MAP */
size_t proto_desc_count(void);
const proto_desc_t *proto_desc_at(size_t i);

/* Appends the encoded message. Fails (internal_error) if a field breaks its row. A scalar equal to 0, a NULL pointer
 * and an empty list are written as absent unless `has.<field>` is set. */
int proto_encode(unsigned msg_id, const void *msg, buf_t *out, err_t **e);

/* Fills the struct (zeroed first) from exactly `len` bytes. Error code: bad_request naming message and field. */
int proto_decode(unsigned msg_id, void *msg, const void *bytes, size_t len, err_t **e);

/* Walks any msgpack value at `bytes` without allocating: its length in bytes, or 0 if it is cut short, nested deeper
 * than PROTO_DEPTH_MAX, or of a type that messages never use. */
size_t proto_walk(const uint8_t *bytes, size_t len);

/* Reading lists: `proto_iter_t it = proto_iter(&msg.files); const char *s; while (proto_iter_str(&it, &s)) …`
 * The list was checked when the message was decoded, so these cannot fail half way. */
typedef struct proto_iter {
    uint32_t left; /* values left (MAP: keys and values count one each) */
    const uint8_t *at;
    const uint8_t *end;
} proto_iter_t;
proto_iter_t proto_iter(const proto_list_t *list);
proto_iter_t proto_iter_map(const proto_list_t *map);
bool proto_iter_str(proto_iter_t *it, const char **s);
bool proto_iter_msg(proto_iter_t *it, proto_nested_t *nested);

/* Building lists: append elements to a buf_t, count them, then point a proto_list_t at it. */
void proto_list_add_str(buf_t *b, const char *s);
void proto_list_add_strn(buf_t *b, const char *s, size_t len);
int proto_list_add_msg(buf_t *b, unsigned msg_id, const void *msg, err_t **e);
static inline proto_list_t proto_list_of(uint32_t count, const buf_t *b)
{
    return (proto_list_t){.count = count, .bytes = b->data, .len = b->len};
}

/* ---- writing msgpack by hand (proto_json.c and the lists use them) ---- */
void proto_put_nil(buf_t *b);
void proto_put_bool(buf_t *b, bool value);
void proto_put_uint(buf_t *b, uint64_t value);
void proto_put_int(buf_t *b, int64_t value);
void proto_put_strz(buf_t *b, const char *s, size_t len); /* bin with NUL */
void proto_put_array(buf_t *b, uint32_t count);

/* ---- reading by hand: a cursor over checked or hostile bytes; every get returns false on any mismatch ---- */
typedef struct proto_cursor {
    const uint8_t *at;
    const uint8_t *end;
} proto_cursor_t;
bool proto_get_nil(proto_cursor_t *c);
bool proto_get_bool(proto_cursor_t *c, bool *value);
bool proto_get_uint(proto_cursor_t *c, uint64_t *value);
bool proto_get_int(proto_cursor_t *c, int64_t *value);
bool proto_get_strz(proto_cursor_t *c, const char **s, size_t *len);
bool proto_get_array(proto_cursor_t *c, uint32_t *count);

#endif
