// SPDX-License-Identifier: Apache-2.0
/* The tables of messages.h as data, and the codec between structs and bytes. */
#include "proto/proto.h"

#include "common/mem.h"
#include "proto/messages.h"

#include <inttypes.h>

#define PROTO_ID_MAX 255
#define REQ PROTO_REQ

/* Each message's rows stand in a function of their own, where `row_struct` names its struct for offsetof. */
#define FIELD_ROW(fkind, fname, fmax, fflags, fextra, fdoc) \
    {#fname, PROTO_##fkind, (fflags), (uint64_t)(fmax), offsetof(row_struct, fname), (fextra), (fdoc)},
#define DESC_FUNCTION(mid, message, mdoc)                                                                         \
    static const proto_desc_t *desc_##message(void)                                                               \
    {                                                                                                             \
        typedef struct message row_struct;                                                                        \
        static const proto_field_t fields[] = {FIELDS_##message(FIELD_ROW)};                                      \
        static const proto_desc_t desc = {(mid), #message, (mdoc), sizeof(row_struct), fields, COUNT_OF(fields)}; \
        return &desc;                                                                                             \
    }
PROTO_MESSAGES(DESC_FUNCTION)

typedef const proto_desc_t *(*desc_fn)(void);
#define DESC_BY_ID(mid, message, mdoc) [mid] = desc_##message,
static const desc_fn desc_by_id[PROTO_ID_MAX + 1] = {PROTO_MESSAGES(DESC_BY_ID)};
#define DESC_LISTED(mid, message, mdoc) desc_##message,
static const desc_fn desc_list[] = {PROTO_MESSAGES(DESC_LISTED)};

const proto_desc_t *proto_desc(unsigned msg_id)
{
    return msg_id <= PROTO_ID_MAX && desc_by_id[msg_id] ? desc_by_id[msg_id]() : NULL;
}

size_t proto_desc_count(void)
{
    return COUNT_OF(desc_list);
}

const proto_desc_t *proto_desc_at(size_t i)
{
    return desc_list[i]();
}

const proto_desc_t *proto_desc_by_name(const char *msg_name)
{
    for (size_t i = 0; i < COUNT_OF(desc_list); i++)
        if (strcmp(desc_list[i]()->name, msg_name) == 0)
            return desc_list[i]();
    return NULL;
}

/* ---- access to a struct through its rows ---- */

static void *member(const void *msg, const proto_field_t *f)
{
    return (char *)(uintptr_t)msg + f->offset; /* @UNSAFE: offset comes from offsetof */
}

static bool has_get(const void *msg, size_t i)
{
    return ((const bool *)msg)[i];
}

static void has_set(void *msg, size_t i)
{
    ((bool *)msg)[i] = true;
}

size_t proto_element_max(const proto_field_t *f)
{
    size_t max = 0;
    for (const char *p = f->extra; *p >= '0' && *p <= '9'; p++)
        max = max * 10 + (size_t)(*p - '0');
    return max ? max : PROTO_ELEMENT_MAX;
}

/* True if `s` is one of the choices "a|b|c"; an empty list of choices takes everything. */
static bool is_choice(const char *choices, const char *s, size_t len)
{
    if (*choices == '\0')
        return true;
    for (const char *p = choices;; p++) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, s, n) == 0)
            return true;
        p += n;
        if (*p == '\0')
            return false;
    }
}

/* ---- encoding ---- */

static int encode_fail(const proto_desc_t *d, const proto_field_t *f, const char *why, err_t **e)
{
    return err_set(e, ERR_INTERNAL, "cannot encode %s.%s: %s", d->name, f->name, why);
}

static int encode_str(const proto_desc_t *d, const proto_field_t *f, const char *s, buf_t *out, err_t **e)
{
    size_t len = strlen(s);
    if (len > f->max)
        return encode_fail(d, f, "longer than its row allows", e);
    if (f->kind == PROTO_STR && !is_choice(f->extra, s, len))
        return encode_fail(d, f, "not one of its choices", e);
    if (len == 0 && (f->flags & PROTO_NONEMPTY))
        return encode_fail(d, f, "empty", e);
    proto_put_strz(out, s, len);
    return 0;
}

/* `values` whole msgpack values that fill the bytes exactly: a builder that failed half way must not become a message.
 */
static bool holds_values(const uint8_t *bytes, size_t len, uint64_t values)
{
    if (bytes == NULL)
        return values == 0 && len == 0;
    while (values-- > 0) {
        size_t n = proto_walk(bytes, len);
        if (n == 0)
            return false;
        bytes += n;
        len -= n;
    }
    return len == 0;
}

static int encode_list(const proto_desc_t *d, const proto_field_t *f, const proto_list_t *list, buf_t *out, err_t **e)
{
    uint64_t values = (uint64_t)list->count * (f->kind == PROTO_MAP ? 2 : 1);
    if (list->count > f->max || values > UINT32_MAX)
        return encode_fail(d, f, "more elements than its row allows", e);
    if (!holds_values(list->bytes, list->len, values))
        return encode_fail(d, f, "its bytes do not hold what its count says", e);
    proto_put_array(out, (uint32_t)values);
    buf_append(out, list->bytes, list->len);
    return 0;
}

/* A field that is absent: NULL, empty or zero, and not marked in `has`. */
static bool is_absent(const void *msg, const proto_field_t *f, size_t i)
{
    const void *m = member(msg, f);
    switch (f->kind) {
    case PROTO_STR:
    case PROTO_JSON:
        return *(const char *const *)m == NULL;
    case PROTO_BULK:
        return ((const proto_bytes_t *)m)->data == NULL;
    case PROTO_MSG:
        return ((const proto_nested_t *)m)->bytes == NULL;
    case PROTO_U32:
        return *(const uint32_t *)m == 0 && !has_get(msg, i);
    case PROTO_U64:
        return *(const uint64_t *)m == 0 && !has_get(msg, i);
    case PROTO_I64:
        return *(const int64_t *)m == 0 && !has_get(msg, i);
    case PROTO_BOOL:
        return !*(const bool *)m && !has_get(msg, i);
    case PROTO_LIST:
    case PROTO_MAP:
    case PROTO_MSGS:
        return ((const proto_list_t *)m)->count == 0 && !has_get(msg, i);
    }
    return true;
}

static uint64_t magnitude(int64_t value)
{
    return value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
}

static int encode_uint(const proto_desc_t *d, const proto_field_t *f, uint64_t value, buf_t *out, err_t **e)
{
    if (value > f->max)
        return encode_fail(d, f, "larger than its row allows", e);
    proto_put_uint(out, value);
    return 0;
}

static int encode_field(const proto_desc_t *d, const proto_field_t *f, const void *m, buf_t *out, err_t **e)
{
    switch (f->kind) {
    case PROTO_STR:
    case PROTO_JSON:
        return encode_str(d, f, *(const char *const *)m, out, e);
    case PROTO_BULK:
        if (((const proto_bytes_t *)m)->len == 0 && (f->flags & PROTO_NONEMPTY))
            return encode_fail(d, f, "empty", e);
        return encode_uint(d, f, ((const proto_bytes_t *)m)->len, out, e);
    case PROTO_U32:
        return encode_uint(d, f, *(const uint32_t *)m, out, e);
    case PROTO_U64:
        return encode_uint(d, f, *(const uint64_t *)m, out, e);
    case PROTO_I64:
        if (magnitude(*(const int64_t *)m) > f->max)
            return encode_fail(d, f, "outside what its row allows", e);
        proto_put_int(out, *(const int64_t *)m);
        return 0;
    case PROTO_BOOL:
        proto_put_bool(out, *(const bool *)m);
        return 0;
    case PROTO_LIST:
    case PROTO_MAP:
    case PROTO_MSGS:
        return encode_list(d, f, m, out, e);
    case PROTO_MSG:
        if (((const proto_nested_t *)m)->len > f->max)
            return encode_fail(d, f, "longer than its row allows", e);
        if (!holds_values(((const proto_nested_t *)m)->bytes, ((const proto_nested_t *)m)->len, 1))
            return encode_fail(d, f, "not one whole message", e);
        buf_append(out, ((const proto_nested_t *)m)->bytes, ((const proto_nested_t *)m)->len);
        return 0;
    }
    return encode_fail(d, f, "unknown kind", e);
}

/* What stands for an absent field. Required numbers may well be zero; everything else that is required must be there.
 */
static int encode_absent(const proto_desc_t *d, const proto_field_t *f, buf_t *out, err_t **e)
{
    if (!(f->flags & PROTO_REQ)) {
        proto_put_nil(out);
        return 0;
    }
    switch (f->kind) {
    case PROTO_U32:
    case PROTO_U64:
    case PROTO_I64:
        proto_put_uint(out, 0);
        return 0;
    case PROTO_BOOL:
        proto_put_bool(out, false);
        return 0;
    case PROTO_LIST:
    case PROTO_MAP:
    case PROTO_MSGS:
        proto_put_array(out, 0);
        return 0;
    case PROTO_STR:
    case PROTO_JSON:
    case PROTO_BULK:
    case PROTO_MSG:
        break;
    }
    return encode_fail(d, f, "required, but not given", e);
}

static int encode_fields(const proto_desc_t *d, const void *msg, buf_t *out, err_t **e)
{
    proto_put_array(out, (uint32_t)d->field_count);
    for (size_t i = 0; i < d->field_count; i++) {
        const proto_field_t *f = &d->fields[i];
        int result = is_absent(msg, f, i) ? encode_absent(d, f, out, e) : encode_field(d, f, member(msg, f), out, e);
        if (result != 0)
            return -1;
    }
    for (size_t i = 0; i < d->field_count; i++)
        if (d->fields[i].kind == PROTO_BULK && !is_absent(msg, &d->fields[i], i)) {
            const proto_bytes_t *bulk = member(msg, &d->fields[i]);
            buf_append(out, bulk->data, bulk->len);
        }
    if (buf_failed(out))
        return err_set(e, ERR_PAYLOAD_TOO_LARGE, "message %s is larger than its buffer may grow", d->name);
    return 0;
}

int proto_encode(unsigned msg_id, const void *msg, buf_t *out, err_t **e)
{
    const proto_desc_t *d = proto_desc(msg_id);
    size_t before = out->len;
    if (d == NULL)
        return err_set(e, ERR_INTERNAL, "cannot encode message %u: no such message", msg_id);
    if (encode_fields(d, msg, out, e) == 0)
        return 0;
    buf_truncate(out, before);
    return -1;
}

/* ---- decoding ---- */

typedef struct decoder {
    const proto_desc_t *d;
    proto_cursor_t c;
    uint64_t bulk_total;
    unsigned depth;
    err_t **e;
} decoder_t;

static int decode_fail(decoder_t *dec, const proto_field_t *f, const char *why)
{
    return err_set(dec->e, ERR_BAD_REQUEST, "%s.%s: %s", dec->d->name, f->name, why);
}

static int check_nested(const proto_desc_t *d, proto_cursor_t *c, unsigned depth, err_t **e);

static int decode_str(decoder_t *dec, const proto_field_t *f, const char **s)
{
    size_t len;
    if (!proto_get_strz(&dec->c, s, &len))
        return decode_fail(dec, f, "must be a string without NUL bytes");
    if (len > f->max)
        return decode_fail(dec, f, "longer than its limit");
    if (f->kind == PROTO_STR && !is_choice(f->extra, *s, len))
        return decode_fail(dec, f, "not one of the allowed values");
    if (len == 0 && (f->flags & PROTO_NONEMPTY))
        return decode_fail(dec, f, "must not be empty");
    return 0;
}

static int decode_strings(decoder_t *dec, const proto_field_t *f, uint32_t values)
{
    size_t len, max = proto_element_max(f);
    const char *s;
    for (uint32_t i = 0; i < values; i++) {
        if (!proto_get_strz(&dec->c, &s, &len))
            return decode_fail(dec, f, "elements must be strings without NUL bytes");
        if (len > max)
            return decode_fail(dec, f, "an element is longer than its limit");
    }
    return 0;
}

static int decode_messages(decoder_t *dec, const proto_field_t *f, uint32_t values)
{
    const proto_desc_t *d = proto_desc_by_name(f->extra);
    for (uint32_t i = 0; i < values; i++)
        if (d == NULL || check_nested(d, &dec->c, dec->depth + 1, dec->e) != 0)
            return *dec->e ? -1 : decode_fail(dec, f, "unknown message");
    return 0;
}

static int decode_list(decoder_t *dec, const proto_field_t *f, proto_list_t *list)
{
    uint32_t values;
    if (!proto_get_array(&dec->c, &values))
        return decode_fail(dec, f, "must be a list that is all there");
    uint32_t per = f->kind == PROTO_MAP ? 2 : 1;
    if (values % per != 0 || values / per > f->max)
        return decode_fail(dec, f, "has more elements than its limit");
    const uint8_t *start = dec->c.at;
    int result = f->kind == PROTO_MSGS ? decode_messages(dec, f, values) : decode_strings(dec, f, values);
    if (result != 0)
        return -1;
    *list = (proto_list_t){values / per, start, (size_t)(dec->c.at - start)};
    return 0;
}

static int decode_msg(decoder_t *dec, const proto_field_t *f, proto_nested_t *nested)
{
    const proto_desc_t *d = proto_desc_by_name(f->extra);
    const uint8_t *start = dec->c.at;
    if (d == NULL)
        return decode_fail(dec, f, "unknown message");
    if (check_nested(d, &dec->c, dec->depth + 1, dec->e) != 0)
        return -1;
    *nested = (proto_nested_t){start, (size_t)(dec->c.at - start)};
    return nested->len > f->max ? decode_fail(dec, f, "larger than its limit") : 0;
}

static int decode_uint(decoder_t *dec, const proto_field_t *f, uint64_t *value)
{
    if (!proto_get_uint(&dec->c, value))
        return decode_fail(dec, f, "must be a whole number, not negative");
    return *value > f->max ? decode_fail(dec, f, "larger than its limit") : 0;
}

static int decode_int(decoder_t *dec, const proto_field_t *f, int64_t *value)
{
    if (!proto_get_int(&dec->c, value))
        return decode_fail(dec, f, "must be a whole number");
    return magnitude(*value) > f->max ? decode_fail(dec, f, "outside its limits") : 0;
}

/* The length now; the bytes when the array has been read (take_bulk). */
static int decode_bulk(decoder_t *dec, const proto_field_t *f, proto_bytes_t *bulk)
{
    uint64_t len;
    if (decode_uint(dec, f, &len) != 0)
        return -1;
    uint64_t left = (uint64_t)(dec->c.end - dec->c.at);
    if (len == 0 && (f->flags & PROTO_NONEMPTY))
        return decode_fail(dec, f, "must not be empty");
    /* Compared with what is left each time, so that the sum can never wrap around. */
    if (dec->bulk_total > left || len > left - dec->bulk_total)
        return decode_fail(dec, f, "more raw bytes announced than there are");
    dec->bulk_total += len;
    bulk->len = (size_t)len;
    return 0;
}

static int decode_field(decoder_t *dec, const proto_field_t *f, void *m)
{
    uint64_t number = 0;
    switch (f->kind) {
    case PROTO_STR:
    case PROTO_JSON:
        return decode_str(dec, f, m);
    case PROTO_BULK:
        return decode_bulk(dec, f, m);
    case PROTO_U32:
        if (decode_uint(dec, f, &number) != 0)
            return -1;
        if (number > UINT32_MAX)
            return decode_fail(dec, f, "larger than 32 bits");
        *(uint32_t *)m = (uint32_t)number;
        return 0;
    case PROTO_U64:
        return decode_uint(dec, f, m);
    case PROTO_I64:
        return decode_int(dec, f, m);
    case PROTO_BOOL:
        return proto_get_bool(&dec->c, m) ? 0 : decode_fail(dec, f, "must be true or false");
    case PROTO_LIST:
    case PROTO_MAP:
    case PROTO_MSGS:
        return decode_list(dec, f, m);
    case PROTO_MSG:
        return decode_msg(dec, f, m);
    }
    return decode_fail(dec, f, "unknown kind");
}

/* Fills `msg`, or only checks when it is NULL (nested messages are decoded when someone looks at them). */
static int decode_array(decoder_t *dec, void *msg)
{
    /* Large enough for every member type; used when only checking. */
    union {
        uint64_t u;
        proto_list_t list;
        proto_bytes_t bytes;
    } scratch = {0};
    uint32_t count;
    if (!proto_get_array(&dec->c, &count) || count > dec->d->field_count)
        return err_set(dec->e, ERR_BAD_REQUEST, "%s: not an array of at most %zu fields", dec->d->name,
                       dec->d->field_count);
    for (size_t i = 0; i < dec->d->field_count; i++) {
        const proto_field_t *f = &dec->d->fields[i];
        if (i >= count || proto_get_nil(&dec->c)) {
            if (f->flags & PROTO_REQ)
                return err_set(dec->e, ERR_BAD_REQUEST, "%s is required", f->name);
            continue;
        }
        if (decode_field(dec, f, msg ? member(msg, f) : &scratch) != 0)
            return -1;
        if (msg != NULL)
            has_set(msg, i);
    }
    return 0;
}

static int check_nested(const proto_desc_t *d, proto_cursor_t *c, unsigned depth, err_t **e)
{
    decoder_t dec = {.d = d, .c = *c, .depth = depth, .e = e};
    if (depth > PROTO_DEPTH_MAX)
        return err_set(e, ERR_BAD_REQUEST, "%s: nested too deeply", d->name);
    if (decode_array(&dec, NULL) != 0)
        return -1;
    if (dec.bulk_total != 0)
        return err_set(e, ERR_BAD_REQUEST, "%s: raw bytes inside a nested message", d->name);
    *c = dec.c;
    return 0;
}

/* Hands out the raw bytes behind the array; they must fill the rest exactly. */
static int take_bulk(decoder_t *dec, void *msg)
{
    if ((uint64_t)(dec->c.end - dec->c.at) != dec->bulk_total)
        return err_set(dec->e, ERR_BAD_REQUEST, "%s: %" PRIu64 " raw bytes announced, %td there", dec->d->name,
                       dec->bulk_total, dec->c.end - dec->c.at);
    for (size_t i = 0; i < dec->d->field_count; i++) {
        if (dec->d->fields[i].kind != PROTO_BULK || !has_get(msg, i))
            continue;
        proto_bytes_t *bulk = member(msg, &dec->d->fields[i]);
        bulk->data = dec->c.at; /* @UNSAFE: the sum of all lengths was compared with what is left */
        dec->c.at += bulk->len;
    }
    return 0;
}

int proto_decode(unsigned msg_id, void *msg, const void *bytes, size_t len, err_t **e)
{
    const proto_desc_t *d = proto_desc(msg_id);
    if (d == NULL)
        return err_set(e, ERR_INTERNAL, "cannot decode message %u: no such message", msg_id);
    memset(msg, 0, d->size);
    if (len == 0) /* bytes may be NULL then */
        return err_set(e, ERR_BAD_REQUEST, "%s: empty", d->name);
    decoder_t dec = {.d = d, .c = {bytes, (const uint8_t *)bytes + len}, .e = e};
    if (decode_array(&dec, msg) == 0 && take_bulk(&dec, msg) == 0)
        return 0;
    memset(msg, 0, d->size); /* nobody reads a half message by mistake */
    return -1;
}
