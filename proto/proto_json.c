// SPDX-License-Identifier: Apache-2.0
/* JSON → encoded message → JSON by the rows of messages.h. JSON Schema is in proto_schema.c. */
#include "proto/proto_json.h"

#include "common/mem.h"
#include "common/text.h"

#include <inttypes.h>

#define UNKNOWN_MAX 10
#define UNKNOWN_NAME_MAX 64
#define FIELDS_MAX 64
#define PATH_MAX_BYTES 200

/* ------------------------------------------------------------------ JSON → message */

typedef struct reader {
    const proto_desc_t *d;
    const char *prefix; /* "resource_limits." inside a nested message, for errors */
    buf_t *out;
    buf_t *unknown;
    unsigned *unknown_count;
    unsigned depth;
    err_t **e;
} reader_t;

/* Raw bytes that follow the array. Those that came as base64 stand in `decoded`, from `offset` on. */
typedef struct bulk {
    const void *data;
    size_t offset;
    size_t len;
} bulk_t;

typedef struct bulks {
    bulk_t item[FIELDS_MAX];
    size_t count;
    buf_t decoded;
} bulks_t;

static int read_message(reader_t *r, const json_t *object);

static int fail(const reader_t *r, const proto_field_t *f, const char *why)
{
    return err_set(r->e, ERR_BAD_REQUEST, "%s%s %s", r->prefix, f->name, why);
}

static int fail_limit(const reader_t *r, const proto_field_t *f, const char *what, uint64_t max, const char *unit)
{
    return err_set(r->e, ERR_BAD_REQUEST, "%s%s %s %" PRIu64 "%s", r->prefix, f->name, what, max, unit);
}

static int fail_choice(const reader_t *r, const proto_field_t *f)
{
    auto_free char *choices = mem_strdup(f->extra);
    for (char *p = choices; *p != '\0'; p++)
        if (*p == '|')
            *p = ' ';
    return err_set(r->e, ERR_BAD_REQUEST, "%s%s must be one of: %s", r->prefix, f->name, choices);
}

static bool has_nul(const json_t *string)
{
    return strlen(json_string_value(string)) != json_string_length(string);
}

static bool is_choice(const char *choices, const char *s)
{
    size_t len = strlen(s);
    for (const char *p = choices; *p != '\0';) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, s, n) == 0)
            return true;
        p += n + (p[n] == '|');
    }
    return false;
}

static int read_str(reader_t *r, const proto_field_t *f, const json_t *value)
{
    if (!json_is_string(value))
        return fail(r, f, "must be a string");
    if (has_nul(value))
        return fail(r, f, "must not contain NUL characters");
    if (json_string_length(value) > f->max)
        return fail_limit(r, f, "is longer than", f->max, " bytes");
    if (*f->extra != '\0' && !is_choice(f->extra, json_string_value(value)))
        return fail_choice(r, f);
    proto_put_strz(r->out, json_string_value(value), json_string_length(value));
    return 0;
}

static int read_json(reader_t *r, const proto_field_t *f, const json_t *value)
{
    if (!json_is_object(value))
        return fail(r, f, "must be an object");
    char *text = json_dumps(value, JSON_COMPACT);
    if (text == NULL)
        return fail(r, f, "cannot be written as JSON");
    size_t len = strlen(text);
    if (len <= f->max)
        proto_put_strz(r->out, text, len);
    if (f->flags & PROTO_SECRET)
        mem_wipe(text, len);
    free(text);
    return len > f->max ? fail_limit(r, f, "is longer than", f->max, " bytes of JSON") : 0;
}

static int read_bulk(reader_t *r, const proto_field_t *f, const json_t *value, bool is_base64, bulks_t *bulks)
{
    bulk_t *bulk = &bulks->item[bulks->count];
    if (!json_is_string(value))
        return fail(r, f, "must be a string");
    size_t len = json_string_length(value);
    *bulk = (bulk_t){.data = json_string_value(value), .len = len};
    if (is_base64) {
        /* Decoding needs three bytes for four characters: refuse before it takes memory. */
        if (len / 4 * 3 > f->max + 2)
            return fail_limit(r, f, "is longer than", f->max, " bytes");
        *bulk = (bulk_t){.offset = bulks->decoded.len};
        if (!base64_decode(&bulks->decoded, json_string_value(value), len))
            return fail(r, f, "is not valid base64");
        bulk->len = bulks->decoded.len - bulk->offset;
    }
    if (bulk->len > f->max)
        return fail_limit(r, f, "is longer than", f->max, " bytes");
    proto_put_uint(r->out, bulk->len);
    bulks->count++;
    return 0;
}

static int read_number(reader_t *r, const proto_field_t *f, const json_t *value)
{
    if (!json_is_integer(value))
        return fail(r, f, "must be a whole number");
    int64_t number = json_integer_value(value);
    uint64_t magnitude = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    if (number < 0 && f->kind != PROTO_I64)
        return fail(r, f, "must not be negative");
    uint64_t max = f->kind == PROTO_U32 && f->max > UINT32_MAX ? UINT32_MAX : f->max;
    if (magnitude > max && number < 0)
        return err_set(r->e, ERR_BAD_REQUEST, "%s%s must not be below -%" PRIu64, r->prefix, f->name, max);
    if (magnitude > max)
        return fail_limit(r, f, "must not be above", max, "");
    proto_put_int(r->out, number);
    return 0;
}

static int read_element(reader_t *r, const proto_field_t *f, const char *text, size_t len, bool is_nul_free)
{
    size_t max = proto_element_max(f);
    if (!is_nul_free)
        return fail(r, f, "must not contain NUL characters");
    if (len > max)
        return fail_limit(r, f, "has an element longer than", max, " bytes");
    proto_put_strz(r->out, text, len);
    return 0;
}

static int read_list(reader_t *r, const proto_field_t *f, const json_t *value)
{
    size_t i;
    const json_t *item;
    if (!json_is_array(value))
        return fail(r, f, "must be an array of strings");
    if (json_array_size(value) > f->max)
        return fail_limit(r, f, "has more than", f->max, " elements");
    proto_put_array(r->out, (uint32_t)json_array_size(value));
    json_array_foreach(value, i, item)
    {
        if (!json_is_string(item))
            return fail(r, f, "must be an array of strings");
        if (read_element(r, f, json_string_value(item), json_string_length(item), !has_nul(item)) != 0)
            return -1;
    }
    return 0;
}

static int read_map(reader_t *r, const proto_field_t *f, const json_t *value)
{
    if (!json_is_object(value))
        return fail(r, f, "must be an object of strings");
    if (json_object_size(value) > f->max)
        return fail_limit(r, f, "has more than", f->max, " entries");
    proto_put_array(r->out, (uint32_t)json_object_size(value) * 2);
    for (void *it = json_object_iter((json_t *)(uintptr_t)value); it != NULL;
         it = json_object_iter_next((json_t *)(uintptr_t)value, it)) {
        const char *key = json_object_iter_key(it);
        const json_t *item = json_object_iter_value(it);
        if (!json_is_string(item))
            return fail(r, f, "must be an object of strings");
        if (read_element(r, f, key, strlen(key), true) != 0 ||
            read_element(r, f, json_string_value(item), json_string_length(item), !has_nul(item)) != 0)
            return -1;
    }
    return 0;
}

static int read_nested(reader_t *r, const proto_field_t *f, const json_t *value)
{
    char prefix[PATH_MAX_BYTES];
    reader_t inner = *r;
    size_t before = r->out->len;
    if (!json_is_object(value))
        return fail(r, f, "must be an object");
    inner.d = proto_desc_by_name(f->extra);
    if (inner.d == NULL || r->depth >= PROTO_DEPTH_MAX)
        return err_set(r->e, ERR_INTERNAL, "row %s.%s names no message", r->d->name, f->name);
    snprintf(prefix, sizeof prefix, "%s%s.", r->prefix, f->name);
    inner.prefix = prefix;
    inner.depth = r->depth + 1;
    if (read_message(&inner, value) != 0)
        return -1;
    if (f->kind == PROTO_MSG && r->out->len - before > f->max)
        return fail_limit(r, f, "is larger than", f->max, " bytes");
    return 0;
}

static int read_messages(reader_t *r, const proto_field_t *f, const json_t *value)
{
    size_t i;
    const json_t *item;
    if (!json_is_array(value))
        return fail(r, f, "must be an array of objects");
    if (json_array_size(value) > f->max)
        return fail_limit(r, f, "has more than", f->max, " elements");
    proto_put_array(r->out, (uint32_t)json_array_size(value));
    json_array_foreach(value, i, item) if (read_nested(r, f, item) != 0) return -1;
    return 0;
}

static int read_value(reader_t *r, const proto_field_t *f, const json_t *value)
{
    switch (f->kind) {
    case PROTO_STR:
        return read_str(r, f, value);
    case PROTO_JSON:
        return read_json(r, f, value);
    case PROTO_U32:
    case PROTO_U64:
    case PROTO_I64:
        return read_number(r, f, value);
    case PROTO_BOOL:
        if (!json_is_boolean(value))
            return fail(r, f, "must be true or false");
        proto_put_bool(r->out, json_is_true(value));
        return 0;
    case PROTO_LIST:
        return read_list(r, f, value);
    case PROTO_MAP:
        return read_map(r, f, value);
    case PROTO_MSG:
        return read_nested(r, f, value);
    case PROTO_MSGS:
        return read_messages(r, f, value);
    case PROTO_BULK:
        break;
    }
    return err_set(r->e, ERR_INTERNAL, "row %s.%s has a kind that JSON cannot give", r->d->name, f->name);
}

/* The value as JSON has it; NULL = absent (null too, and "" where choices are). */
static const json_t *present(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

static bool is_empty(const json_t *value)
{
    return (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

static int read_field(reader_t *r, const proto_field_t *f, const json_t *object, bulks_t *bulks)
{
    char base64_name[PATH_MAX_BYTES];
    const json_t *value = f->flags & PROTO_HIDE ? NULL : present(object, f->name);
    const json_t *base64 = NULL;
    if (f->kind == PROTO_BULK && !(f->flags & PROTO_HIDE)) {
        snprintf(base64_name, sizeof base64_name, "%s_base64", f->name);
        base64 = present(object, base64_name);
        if (value != NULL && base64 != NULL)
            return err_set(r->e, ERR_BAD_REQUEST, "give either %s%s or %s%s, not both", r->prefix, f->name, r->prefix,
                           base64_name);
        value = value ? value : base64;
    }
    if (f->kind == PROTO_STR && *f->extra != '\0' && is_empty(value))
        value = NULL;
    if (value != NULL && (f->flags & PROTO_NONEMPTY) && is_empty(value))
        return fail(r, f, "is required");
    if (value == NULL) {
        if (f->flags & PROTO_REQ)
            return fail(r, f, "is required");
        proto_put_nil(r->out);
        return 0;
    }
    return f->kind == PROTO_BULK ? read_bulk(r, f, value, base64 != NULL, bulks) : read_value(r, f, value);
}

static bool is_known(const proto_desc_t *d, const char *key)
{
    for (size_t i = 0; i < d->field_count; i++) {
        const proto_field_t *f = &d->fields[i];
        size_t n = strlen(f->name);
        if ((f->flags & PROTO_HIDE) || strncmp(key, f->name, n) != 0)
            continue;
        if (key[n] == '\0' || (f->kind == PROTO_BULK && strcmp(key + n, "_base64") == 0))
            return true;
    }
    return false;
}

static void note_unknown(reader_t *r, const json_t *object)
{
    for (void *it = json_object_iter((json_t *)(uintptr_t)object); it != NULL;
         it = json_object_iter_next((json_t *)(uintptr_t)object, it)) {
        const char *key = json_object_iter_key(it);
        if (is_known(r->d, key))
            continue;
        if ((*r->unknown_count)++ >= UNKNOWN_MAX)
            return;
        if (r->unknown->len > 0)
            buf_append_byte(r->unknown, ',');
        buf_append_str(r->unknown, r->prefix);
        for (size_t i = 0; i < UNKNOWN_NAME_MAX && key[i] != '\0'; i++)
            buf_append_byte(r->unknown, key[i] > ' ' && key[i] < 0x7f && key[i] != ',' ? (uint8_t)key[i] : '?');
    }
}

static int read_message(reader_t *r, const json_t *object)
{
    bulks_t bulks = {.count = 0};
    int result = 0;
    buf_init(&bulks.decoded, 0);
    proto_put_array(r->out, (uint32_t)r->d->field_count);
    for (size_t i = 0; i < r->d->field_count && result == 0; i++)
        result = read_field(r, &r->d->fields[i], object, &bulks);
    if (result == 0 && bulks.count > 0 && r->depth > 0)
        result = err_set(r->e, ERR_INTERNAL, "message %s is nested and has raw bytes", r->d->name);
    for (size_t i = 0; i < bulks.count && result == 0; i++) {
        const bulk_t *bulk = &bulks.item[i];
        if (bulk->len == 0) /* nothing may have been decoded at all */
            continue;
        const uint8_t *data = bulk->data ? bulk->data : bulks.decoded.data + bulk->offset;
        buf_append(r->out, data, bulk->len);
    }
    buf_free(&bulks.decoded);
    if (result == 0 && r->unknown != NULL)
        note_unknown(r, object);
    return result;
}

int proto_from_json(unsigned msg_id, const json_t *object, buf_t *out, buf_t *unknown, err_t **e)
{
    unsigned unknown_count = 0;
    size_t before = out->len;
    reader_t r = {
        .d = proto_desc(msg_id),
        .prefix = "",
        .out = out,
        .unknown = unknown,
        .unknown_count = &unknown_count,
        .e = e,
    };
    if (r.d == NULL)
        return err_set(e, ERR_INTERNAL, "cannot read message %u: no such message", msg_id);
    if (!json_is_object(object))
        return err_set(e, ERR_BAD_REQUEST, "the body must be a JSON object");
    if (read_message(&r, object) != 0) {
        buf_truncate(out, before);
        return -1;
    }
    if (buf_failed(out))
        return err_set(e, ERR_PAYLOAD_TOO_LARGE, "%s is larger than a message may be", r.d->name);
    return 0;
}

/* ------------------------------------------------------------------ message → JSON */

static int write_message(const proto_desc_t *d, const void *bytes, size_t len, unsigned flags, json_writer_t *w,
                         err_t **e);

static void write_bulk(const proto_field_t *f, const proto_bytes_t *bulk, unsigned flags, json_writer_t *w)
{
    char name[PATH_MAX_BYTES];
    if (flags & PROTO_JSON_BASE64) {
        snprintf(name, sizeof name, "%s_base64", f->name);
        json_write_key(w, name);
        json_write_base64(w, bulk->data, bulk->len);
        return;
    }
    json_write_key(w, f->name);
    if (json_write_strn(w, bulk->data, bulk->len))
        return;
    snprintf(name, sizeof name, "%s_lossy", f->name);
    json_write_key(w, name);
    json_write_bool(w, true);
}

/* The text may come from a sandbox: parsed and written anew, so that it can neither break out of its place nor out of a
 * line. */
static void write_json(const proto_field_t *f, const char *text, json_writer_t *w)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    char *compact = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    if (compact != NULL) {
        json_write_key(w, f->name);
        json_write_raw(w, compact, strlen(compact));
    }
    free(compact);
    json_decref(value);
}

static int write_list(const proto_field_t *f, const proto_list_t *list, unsigned flags, json_writer_t *w, err_t **e)
{
    proto_iter_t it = f->kind == PROTO_MAP ? proto_iter_map(list) : proto_iter(list);
    const char *s;
    proto_nested_t nested;
    json_write_key(w, f->name);
    if (f->kind == PROTO_MAP) {
        const char *value;
        json_write_open_object(w);
        while (proto_iter_str(&it, &s) && proto_iter_str(&it, &value)) {
            json_write_key(w, s);
            json_write_str(w, value);
        }
        json_write_close_object(w);
        return 0;
    }
    json_write_open_array(w);
    while (f->kind == PROTO_LIST && proto_iter_str(&it, &s))
        json_write_str(w, s);
    while (f->kind == PROTO_MSGS && proto_iter_msg(&it, &nested)) {
        json_write_open_object(w);
        if (write_message(proto_desc_by_name(f->extra), nested.bytes, nested.len, flags, w, e) != 0)
            return -1;
        json_write_close_object(w);
    }
    json_write_close_array(w);
    return 0;
}

static bool is_zero(const proto_field_t *f, const void *m)
{
    switch (f->kind) {
    case PROTO_STR:
    case PROTO_JSON:
        return *(const char *const *)m == NULL || **(const char *const *)m == '\0';
    case PROTO_BULK:
        return ((const proto_bytes_t *)m)->len == 0;
    case PROTO_U32:
        return *(const uint32_t *)m == 0;
    case PROTO_U64:
    case PROTO_I64:
        return *(const uint64_t *)m == 0;
    case PROTO_BOOL:
        return !*(const bool *)m;
    case PROTO_LIST:
    case PROTO_MAP:
    case PROTO_MSGS:
        return ((const proto_list_t *)m)->count == 0;
    case PROTO_MSG:
        return ((const proto_nested_t *)m)->bytes == NULL;
    }
    return true;
}

static int write_nested(const proto_field_t *f, const proto_nested_t *nested, unsigned flags, json_writer_t *w,
                        err_t **e)
{
    json_write_key(w, f->name);
    json_write_open_object(w);
    if (write_message(proto_desc_by_name(f->extra), nested->bytes, nested->len, flags, w, e) != 0)
        return -1;
    json_write_close_object(w);
    return 0;
}

static int write_field(const proto_field_t *f, const void *m, unsigned flags, json_writer_t *w, err_t **e)
{
    const char *s;
    switch (f->kind) {
    case PROTO_BULK:
        write_bulk(f, m, flags, w);
        return 0;
    case PROTO_JSON:
        if (!is_zero(f, m))
            write_json(f, *(const char *const *)m, w);
        return 0;
    case PROTO_MSG:
        return is_zero(f, m) ? 0 : write_nested(f, m, flags, w, e);
    case PROTO_LIST:
    case PROTO_MAP:
    case PROTO_MSGS:
        return write_list(f, m, flags, w, e);
    case PROTO_STR:
        s = *(const char *const *)m;
        json_write_key(w, f->name);
        json_write_str(w, s ? s : "");
        return 0;
    case PROTO_U32:
        json_write_key(w, f->name);
        json_write_uint(w, *(const uint32_t *)m);
        return 0;
    case PROTO_U64:
        json_write_key(w, f->name);
        json_write_uint(w, *(const uint64_t *)m);
        return 0;
    case PROTO_I64:
        json_write_key(w, f->name);
        json_write_int(w, *(const int64_t *)m);
        return 0;
    case PROTO_BOOL:
        json_write_key(w, f->name);
        json_write_bool(w, *(const bool *)m);
        return 0;
    }
    return 0;
}

static int write_message(const proto_desc_t *d, const void *bytes, size_t len, unsigned flags, json_writer_t *w,
                         err_t **e)
{
    auto_free void *msg = d ? mem_alloc(d->size) : NULL;
    if (d == NULL)
        return err_set(e, ERR_INTERNAL, "cannot write an unknown message");
    if (proto_decode(d->id, msg, bytes, len, e) != 0)
        return err_wrap_code(e, ERR_PROTOCOL, "a peer sent a bad message");
    for (size_t i = 0; i < d->field_count; i++) {
        const proto_field_t *f = &d->fields[i];
        const void *m = (const char *)msg + f->offset; /* @UNSAFE: offset comes from offsetof */
        if ((f->flags & PROTO_HIDE) || ((f->flags & PROTO_OMIT) && is_zero(f, m)))
            continue;
        if (write_field(f, m, flags, w, e) != 0)
            return -1;
    }
    return 0;
}

int proto_to_json_fields(unsigned msg_id, const void *bytes, size_t len, unsigned flags, json_writer_t *w, err_t **e)
{
    return write_message(proto_desc(msg_id), bytes, len, flags, w, e);
}

int proto_to_json(unsigned msg_id, const void *bytes, size_t len, unsigned flags, json_writer_t *w, err_t **e)
{
    size_t before = w->out->len;
    json_writer_t saved = *w;
    json_write_open_object(w);
    if (write_message(proto_desc(msg_id), bytes, len, flags, w, e) != 0) {
        buf_truncate(w->out, before);
        *w = saved;
        return -1;
    }
    json_write_close_object(w);
    return 0;
}
