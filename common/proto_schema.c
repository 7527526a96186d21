// SPDX-License-Identifier: Apache-2.0
/* JSON Schema (2020-12, as in OpenAPI 3.1) of a message. */
#include "proto/proto_json.h"

#include "common/mem.h"

#include <stdio.h>

static void write_pair(json_writer_t *w, const char *key, const char *value)
{
    json_write_key(w, key);
    json_write_str(w, value);
}

static void write_count(json_writer_t *w, const char *key, uint64_t value)
{
    json_write_key(w, key);
    json_write_uint(w, value);
}

static void write_strings(const proto_field_t *f, json_writer_t *w)
{
    write_pair(w, "type", "string");
    if (f->flags & PROTO_NONEMPTY)
        write_count(w, "minLength", 1);
    if (*f->extra == '\0') {
        write_count(w, "maxLength", f->max); /* the limit is in bytes; characters are never more */
        return;
    }
    json_write_key(w, "enum");
    json_write_open_array(w);
    for (const char *p = f->extra; *p != '\0';) {
        size_t n = strcspn(p, "|");
        json_write_strn(w, p, n);
        p += n + (p[n] == '|');
    }
    json_write_close_array(w);
}

static void write_integer(const proto_field_t *f, json_writer_t *w)
{
    write_pair(w, "type", "integer");
    uint64_t max = f->kind == PROTO_U32 && f->max > UINT32_MAX ? UINT32_MAX : f->max;
    bool is_bounded = max < INT64_MAX;
    if (f->kind != PROTO_I64 || is_bounded) {
        json_write_key(w, "minimum");
        json_write_int(w, f->kind == PROTO_I64 ? -(int64_t)max : 0);
    }
    if (is_bounded)
        write_count(w, "maximum", max);
    write_pair(w, "format", "int64");
}

static void write_ref(const proto_field_t *f, json_writer_t *w)
{
    auto_free char *ref = mem_printf("#/components/schemas/%s", f->extra);
    write_pair(w, "$ref", ref);
}

static void write_array(const proto_field_t *f, json_writer_t *w)
{
    write_pair(w, "type", "array");
    write_count(w, "maxItems", f->max);
    json_write_key(w, "items");
    json_write_open_object(w);
    if (f->kind == PROTO_MSGS) {
        write_ref(f, w);
    } else {
        write_pair(w, "type", "string");
        write_count(w, "maxLength", proto_element_max(f));
    }
    json_write_close_object(w);
}

static void write_map(const proto_field_t *f, json_writer_t *w)
{
    write_pair(w, "type", "object");
    write_count(w, "maxProperties", f->max);
    json_write_key(w, "additionalProperties");
    json_write_open_object(w);
    write_pair(w, "type", "string");
    write_count(w, "maxLength", proto_element_max(f));
    json_write_close_object(w);
}

static void write_type(const proto_field_t *f, json_writer_t *w)
{
    switch (f->kind) {
    case PROTO_STR:
    case PROTO_BULK:
        write_strings(f, w);
        return;
    case PROTO_JSON:
        write_pair(w, "type", "object");
        return;
    case PROTO_U32:
    case PROTO_U64:
    case PROTO_I64:
        write_integer(f, w);
        return;
    case PROTO_BOOL:
        write_pair(w, "type", "boolean");
        return;
    case PROTO_LIST:
    case PROTO_MSGS:
        write_array(f, w);
        return;
    case PROTO_MAP:
        write_map(f, w);
        return;
    case PROTO_MSG:
        write_ref(f, w);
        return;
    }
}

/* What BULK has beside its own name. */
static void write_bulk_variants(const proto_field_t *f, bool is_request, json_writer_t *w)
{
    auto_free char *base64 = mem_printf("%s_base64", f->name);
    auto_free char *lossy = mem_printf("%s_lossy", f->name);
    json_write_key(w, base64);
    json_write_open_object(w);
    write_pair(w, "type", "string");
    write_pair(w, "contentEncoding", "base64");
    auto_free char *doc = is_request ? mem_printf("the same as %s, for bytes that are not UTF-8", f->name)
                                     : mem_printf("instead of %s, when base64 was asked for", f->name);
    write_pair(w, "description", doc);
    json_write_close_object(w);
    if (is_request)
        return;
    json_write_key(w, lossy);
    json_write_open_object(w);
    write_pair(w, "type", "boolean");
    auto_free char *why = mem_printf("%s had bytes that are not UTF-8, shown as U+FFFD", f->name);
    write_pair(w, "description", why);
    json_write_close_object(w);
}

static void write_property(const proto_field_t *f, bool is_request, json_writer_t *w)
{
    json_write_key(w, f->name);
    json_write_open_object(w);
    write_type(f, w);
    if (*f->doc != '\0')
        write_pair(w, "description", f->doc);
    if (f->flags & PROTO_SECRET) {
        json_write_key(w, "writeOnly");
        json_write_bool(w, true);
    }
    json_write_close_object(w);
    if (f->kind == PROTO_BULK)
        write_bulk_variants(f, is_request, w);
}

/* Always there. A BULK field has two names, so it is never required by one of them. */
static bool is_required(const proto_field_t *f, bool is_request)
{
    if (f->flags & PROTO_HIDE || f->kind == PROTO_BULK)
        return false;
    if (is_request)
        return f->flags & PROTO_REQ;
    return !(f->flags & PROTO_OMIT) && f->kind != PROTO_JSON && f->kind != PROTO_MSG;
}

static void write_required(const proto_desc_t *d, bool is_request, json_writer_t *w)
{
    bool is_open = false;
    for (size_t i = 0; i < d->field_count; i++) {
        if (!is_required(&d->fields[i], is_request))
            continue;
        if (!is_open) {
            json_write_key(w, "required");
            json_write_open_array(w);
            is_open = true;
        }
        json_write_str(w, d->fields[i].name);
    }
    if (is_open)
        json_write_close_array(w);
}

static void write_one_of_names(json_writer_t *w, const char *name)
{
    json_write_open_object(w);
    json_write_key(w, "required");
    json_write_open_array(w);
    json_write_str(w, name);
    json_write_close_array(w);
    json_write_close_object(w);
}

/* "old_string or old_string_base64" of every required BULK field. */
static void write_required_bulk(const proto_desc_t *d, json_writer_t *w)
{
    bool is_open = false;
    for (size_t i = 0; i < d->field_count; i++) {
        const proto_field_t *f = &d->fields[i];
        if (f->kind != PROTO_BULK || !(f->flags & PROTO_REQ) || (f->flags & PROTO_HIDE))
            continue;
        if (!is_open) {
            json_write_key(w, "allOf");
            json_write_open_array(w);
            is_open = true;
        }
        auto_free char *base64 = mem_printf("%s_base64", f->name);
        json_write_open_object(w);
        json_write_key(w, "oneOf");
        json_write_open_array(w);
        write_one_of_names(w, f->name);
        write_one_of_names(w, base64);
        json_write_close_array(w);
        json_write_close_object(w);
    }
    if (is_open)
        json_write_close_array(w);
}

void proto_json_schema(unsigned msg_id, bool is_request, json_writer_t *w)
{
    const proto_desc_t *d = proto_desc(msg_id);
    json_write_open_object(w);
    write_pair(w, "type", "object");
    if (d != NULL) {
        write_pair(w, "description", d->doc);
        json_write_key(w, "properties");
        json_write_open_object(w);
        for (size_t i = 0; i < d->field_count; i++)
            if (!(d->fields[i].flags & PROTO_HIDE))
                write_property(&d->fields[i], is_request, w);
        json_write_close_object(w);
        write_required(d, is_request, w);
        if (is_request)
            write_required_bulk(d, w);
    }
    json_write_close_object(w);
}
