// SPDX-License-Identifier: Apache-2.0
#include "proto/proto.h"

#include "common/clock.h"
#include "common/mem.h"
#include "proto/messages.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <msgpack.h>
#include <stdio.h>

TestSuite(proto, .timeout = 60);

/* ---- any message, filled by its rows ---- */

#define KEEP_MAX 512

/* Holds what a filled struct points to. */
typedef struct keep {
    buf_t item[KEEP_MAX];
    size_t count;
} keep_t;

static buf_t *keep_new(keep_t *k)
{
    cr_assert_lt(k->count, KEEP_MAX);
    buf_init(&k->item[k->count], 0);
    return &k->item[k->count++];
}

static void keep_free(keep_t *k)
{
    for (size_t i = 0; i < k->count; i++)
        buf_free(&k->item[i]);
}

static void fill(const proto_desc_t *d, void *msg, keep_t *k, bool only_required);

/* A text that the row takes: its first choice, else as many bytes as fit of a longer one. */
static const char *fill_text(const proto_field_t *f, keep_t *k)
{
    static const char sample[] = "some t\xc3\xa9xt for a field";
    buf_t *b = keep_new(k);
    if (f->kind == PROTO_JSON)
        buf_append_str(b, "{\"k\":[1]}");
    else if (*f->extra != '\0')
        buf_append(b, f->extra, strcspn(f->extra, "|"));
    else
        buf_append(b, sample, f->max < sizeof sample - 1 ? (size_t)f->max : sizeof sample - 1);
    return buf_cstr(b);
}

static void add_nested(const proto_field_t *f, buf_t *b, keep_t *k)
{
    const proto_desc_t *d = proto_desc_by_name(f->extra);
    err_t *e = NULL;
    cr_assert_not_null(d, "%s", f->extra);
    auto_free void *inner = mem_alloc(d->size);
    fill(d, inner, k, false);
    cr_assert_eq(proto_list_add_msg(b, d->id, inner, &e), 0, "%s", err_message(e));
}

static proto_list_t fill_list(const proto_field_t *f, keep_t *k)
{
    buf_t *b = keep_new(k);
    uint32_t count = f->max < 2 ? (uint32_t)f->max : 2;
    for (uint32_t i = 0; i < count; i++)
        if (f->kind == PROTO_MSGS) {
            add_nested(f, b, k);
        } else {
            proto_list_add_str(b, i ? "" : "first");
            if (f->kind == PROTO_MAP)
                proto_list_add_strn(b, "value=1", 7);
        }
    return proto_list_of(count, b);
}

static void fill_field(const proto_field_t *f, void *m, keep_t *k)
{
    buf_t *b;
    switch (f->kind) {
    case PROTO_STR:
    case PROTO_JSON:
        *(const char **)m = fill_text(f, k);
        return;
    case PROTO_BULK:
        b = keep_new(k);
        buf_append(b, "\0\x01\xff bulk bytes 123456789012345678", f->max < 30 ? (size_t)f->max : 30);
        *(proto_bytes_t *)m = (proto_bytes_t){b->data, b->len};
        return;
    case PROTO_U32:
        *(uint32_t *)m = f->max < UINT32_MAX ? (uint32_t)f->max : UINT32_MAX;
        return;
    case PROTO_U64:
        *(uint64_t *)m = f->max;
        return;
    case PROTO_I64:
        *(int64_t *)m = -(int64_t)f->max;
        return;
    case PROTO_BOOL:
        *(bool *)m = true;
        return;
    case PROTO_LIST:
    case PROTO_MAP:
    case PROTO_MSGS:
        *(proto_list_t *)m = fill_list(f, k);
        return;
    case PROTO_MSG:
        b = keep_new(k);
        add_nested(f, b, k);
        *(proto_nested_t *)m = (proto_nested_t){b->data, b->len};
        return;
    }
}

static void fill(const proto_desc_t *d, void *msg, keep_t *k, bool only_required)
{
    for (size_t i = 0; i < d->field_count; i++)
        if (!only_required || (d->fields[i].flags & PROTO_REQ)) {
            ((bool *)msg)[i] = true;
            fill_field(&d->fields[i], (char *)msg + d->fields[i].offset, k);
        }
}

static void encode_filled(const proto_desc_t *d, bool only_required, void *msg, keep_t *k, buf_t *out)
{
    auto_err err_t *e = NULL;
    fill(d, msg, k, only_required);
    buf_init(out, 0);
    cr_assert_eq(proto_encode(d->id, msg, out, &e), 0, "%s", err_message(e));
}

static bool is_same_field(const proto_field_t *f, const void *a, const void *b)
{
    switch (f->kind) {
    case PROTO_STR:
    case PROTO_JSON:
        return *(const char *const *)b && strcmp(*(const char *const *)a, *(const char *const *)b) == 0;
    case PROTO_BULK:
        return ((const proto_bytes_t *)a)->len == ((const proto_bytes_t *)b)->len &&
               memcmp(((const proto_bytes_t *)a)->data, ((const proto_bytes_t *)b)->data,
                      ((const proto_bytes_t *)a)->len) == 0;
    case PROTO_U32:
        return *(const uint32_t *)a == *(const uint32_t *)b;
    case PROTO_U64:
    case PROTO_I64:
        return *(const uint64_t *)a == *(const uint64_t *)b;
    case PROTO_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case PROTO_LIST:
    case PROTO_MAP:
    case PROTO_MSGS:
        return ((const proto_list_t *)a)->count == ((const proto_list_t *)b)->count &&
               ((const proto_list_t *)a)->len == ((const proto_list_t *)b)->len &&
               memcmp(((const proto_list_t *)a)->bytes, ((const proto_list_t *)b)->bytes,
                      ((const proto_list_t *)a)->len) == 0;
    case PROTO_MSG:
        return ((const proto_nested_t *)a)->len == ((const proto_nested_t *)b)->len &&
               memcmp(((const proto_nested_t *)a)->bytes, ((const proto_nested_t *)b)->bytes,
                      ((const proto_nested_t *)a)->len) == 0;
    }
    return false;
}

/* ---- tests ---- */

Test(proto, a_request_goes_out_and_comes_back)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t out;
    struct write_request request = {.file_path = "/workspace/a", .content = {"text", 4}, .mode = 0644}, back;
    buf_init(&out, 0);
    cr_assert_eq(proto_encode(MSG_write_request, &request, &out, &e), 0);
    cr_assert_eq(proto_decode(MSG_write_request, &back, out.data, out.len, &e), 0);
    cr_assert_str_eq(back.file_path, "/workspace/a");
    cr_assert_eq(back.content.len, 4);
    cr_assert_arr_eq(back.content.data, "text", 4);
    cr_assert_eq(back.mode, 0644);
    cr_assert(back.has.mode);
    cr_assert_not(back.has.sync);
}

Test(proto, every_message_comes_back_as_it_went)
{
    for (size_t n = 0; n < 2 * proto_desc_count(); n++) {
        const proto_desc_t *d = proto_desc_at(n / 2);
        auto_err err_t *e = NULL;
        auto_buf buf_t out;
        keep_t k = {.count = 0};
        auto_free void *msg = mem_alloc(d->size);
        auto_free void *back = mem_alloc(d->size);
        encode_filled(d, n % 2, msg, &k, &out);
        cr_assert_eq(proto_decode(d->id, back, out.data, out.len, &e), 0, "%s: %s", d->name, err_message(e));
        for (size_t i = 0; i < d->field_count; i++) {
            const proto_field_t *f = &d->fields[i];
            cr_expect_eq(((bool *)back)[i], ((bool *)msg)[i], "%s.%s", d->name, f->name);
            if (((bool *)msg)[i])
                cr_expect(is_same_field(f, (char *)msg + f->offset, (char *)back + f->offset), "%s.%s", d->name,
                          f->name);
        }
        keep_free(&k);
    }
}

Test(proto, every_message_cut_short_anywhere_is_refused)
{
    for (size_t n = 0; n < proto_desc_count(); n++) {
        const proto_desc_t *d = proto_desc_at(n);
        auto_buf buf_t out;
        keep_t k = {.count = 0};
        auto_free void *msg = mem_alloc(d->size);
        auto_free void *back = mem_alloc(d->size);
        encode_filled(d, false, msg, &k, &out);
        for (size_t len = 0; len < out.len; len++) {
            /* A copy of exactly that size: the sanitizer sees a read past its end. */
            auto_free void *cut = len ? memcpy(mem_alloc(len), out.data, len) : NULL;
            auto_err err_t *e = NULL;
            cr_expect_eq(proto_decode(d->id, back, cut, len, &e), -1, "%s at %zu", d->name, len);
            cr_expect_eq(err_code(e), ERR_BAD_REQUEST);
        }
        buf_append_byte(&out, 0);
        auto_err err_t *e = NULL;
        cr_expect_eq(proto_decode(d->id, back, out.data, out.len, &e), -1, "%s with a byte too many", d->name);
        keep_free(&k);
    }
}

Test(proto, any_changed_byte_is_survived)
{
    for (size_t n = 0; n < proto_desc_count(); n++) {
        const proto_desc_t *d = proto_desc_at(n);
        auto_buf buf_t out;
        keep_t k = {.count = 0};
        auto_free void *msg = mem_alloc(d->size);
        auto_free void *back = mem_alloc(d->size);
        encode_filled(d, false, msg, &k, &out);
        for (size_t i = 0; i < out.len; i++) {
            static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0x90, 0xc0, 0xc1,
                                             0xc4, 0xc6, 0xcf, 0xd3, 0xdd, 0xff};
            uint8_t kept = out.data[i];
            for (size_t v = 0; v < COUNT_OF(values); v++) {
                auto_err err_t *e = NULL;
                auto_buf buf_t again;
                buf_init(&again, 0);
                out.data[i] = values[v];
                /* What decodes must encode again. */
                if (proto_decode(d->id, back, out.data, out.len, &e) == 0)
                    cr_expect_eq(proto_encode(d->id, back, &again, &e), 0, "%s: %s", d->name, err_message(e));
            }
            out.data[i] = kept;
        }
        keep_free(&k);
    }
}

#define BYTES(...) {__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__})

Test(proto, hostile_bytes_are_refused)
{
    static const struct {
        const char *why;
        unsigned id;
        uint8_t bytes[32];
        size_t len;
    } rows[] = {
        {"no array", MSG_read_request, BYTES(0x01)},
        {"nil", MSG_read_request, BYTES(0xc0)},
        {"a map", MSG_read_request, BYTES(0x81, 0x01, 0x01)},
        {"required field missing", MSG_read_request, BYTES(0x90)},
        {"required field nil", MSG_read_request, BYTES(0x91, 0xc0)},
        {"array32 that claims 4 billion", MSG_read_request, BYTES(0xdd, 0xff, 0xff, 0xff, 0xff, 0xc4, 2, 'a', 0)},
        {"array16 that claims 65535", MSG_read_request, BYTES(0xdc, 0xff, 0xff, 0xc4, 2, 'a', 0)},
        {"more fields than the message has", MSG_file_ref, BYTES(0x92, 0xc4, 2, 'a', 0, 0xc0)},
        {"string without NUL", MSG_file_ref, BYTES(0x91, 0xc4, 1, 'a')},
        {"string with a NUL inside", MSG_file_ref, BYTES(0x91, 0xc4, 3, 'a', 0, 0)},
        {"string of no bytes at all", MSG_file_ref, BYTES(0x91, 0xc4, 0)},
        {"empty string in a field that needs one", MSG_file_ref, BYTES(0x91, 0xc4, 1, 0)},
        {"bin32 that claims 4 GiB", MSG_file_ref, BYTES(0x91, 0xc6, 0xff, 0xff, 0xff, 0xff, 'a', 0)},
        {"bin16 longer than what is there", MSG_file_ref, BYTES(0x91, 0xc5, 0, 9, 'a', 0)},
        {"msgpack str instead of bin", MSG_file_ref, BYTES(0x91, 0xa2, 'a', 0)},
        {"ext type", MSG_file_ref, BYTES(0x91, 0xd4, 1, 'a')},
        {"float", MSG_process_ref, BYTES(0x91, 0xca, 0, 0, 0, 0)},
        {"number instead of string", MSG_file_ref, BYTES(0x91, 0x05)},
        {"string instead of number", MSG_process_ref, BYTES(0x91, 0xc4, 2, '1', 0)},
        {"negative instead of unsigned", MSG_process_ref, BYTES(0x91, 0xff)},
        {"number over 32 bits", MSG_process_ref, BYTES(0x91, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0)},
        {"number instead of bool", MSG_empty, BYTES(0x91, 0x01)},
        {"number over its row's limit", MSG_tunnel_connect_request, BYTES(0x91, 0xce, 0, 1, 0, 0)},
        {"the smallest integer, whose absolute value overflows", MSG_process_wait_request,
         BYTES(0x92, 0x01, 0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0)},
        {"u64 above what an i64 holds", MSG_process_wait_request,
         BYTES(0x92, 0x01, 0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)},
        {"value that is no choice", MSG_pressure, BYTES(0x91, 0xc4, 4, 'c', 'p', 'u', 0)},
        {"prefix of a choice", MSG_pressure, BYTES(0x91, 0xc4, 4, 'm', 'e', 'm', 0)},
        {"list that claims more than is there", MSG_process_start_request,
         BYTES(0x91, 0xdd, 0x7f, 0xff, 0xff, 0xff, 0xc4, 1, 0)},
        {"list of numbers", MSG_process_start_request, BYTES(0x91, 0x91, 0x01)},
        {"map with a key and no value", MSG_process_start_request,
         BYTES(0x93, 0x91, 0xc4, 1, 0, 0xc0, 0x91, 0xc4, 1, 0)},
        {"list of messages that are none", MSG_process_list_reply, BYTES(0x91, 0x91, 0x01)},
        {"nested message with too many fields", MSG_workspace_create,
         BYTES(0x96, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0x94, 0xc0, 0xc0, 0xc0, 0xc0)},
        {"nested depth bomb", MSG_workspace_create,
         BYTES(0x96, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91)},
        {"raw bytes announced and not there", MSG_bash_reply, BYTES(0x91, 0x05)},
        {"fewer raw bytes than announced", MSG_bash_reply, BYTES(0x91, 0x03, 'a', 'b')},
        {"more raw bytes than announced", MSG_bash_reply, BYTES(0x91, 0x01, 'a', 'b')},
        {"raw bytes over the row's limit", MSG_bash_reply, BYTES(0x91, 0xce, 0, 1, 0, 0)},
        {"raw lengths whose sum is 2^64", MSG_bash_reply,
         BYTES(0x92, 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0, 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0)},
        {"raw bytes without the array's own", MSG_bash_reply, BYTES(0x93, 0x02, 0x00, 0x00)},
        {"nothing", MSG_bash_reply, {0}, 0},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        auto_err err_t *e = NULL;
        auto_free void *msg = mem_alloc(proto_desc(rows[i].id)->size);
        auto_free void *bytes = rows[i].len ? memcpy(mem_alloc(rows[i].len), rows[i].bytes, rows[i].len) : NULL;
        cr_expect_eq(proto_decode(rows[i].id, msg, bytes, rows[i].len, &e), -1, "%s", rows[i].why);
        cr_expect_eq(err_code(e), ERR_BAD_REQUEST, "%s", rows[i].why);
    }
}

Test(proto, a_shorter_array_is_an_older_sender)
{
    static const uint8_t bytes[] = {0x91, 0xc4, 2, 'a', 0};
    auto_err err_t *e = NULL;
    struct read_request request;
    cr_assert_eq(proto_decode(MSG_read_request, &request, bytes, sizeof bytes, &e), 0);
    cr_assert_str_eq(request.file_path, "a");
    cr_assert_not(request.has.offset);
}

Test(proto, walking_stops_at_depth_and_at_the_end)
{
    uint8_t deep[64];
    memset(deep, 0x91, sizeof deep);
    deep[PROTO_DEPTH_MAX] = 0xc0;
    cr_assert_eq(proto_walk(deep, sizeof deep), PROTO_DEPTH_MAX + 1);
    deep[PROTO_DEPTH_MAX] = 0x91;
    cr_assert_eq(proto_walk(deep, sizeof deep), 0);
    cr_assert_eq(proto_walk(NULL, 0), 0);
    static const uint8_t cut[] = {0x92, 0x01};
    cr_assert_eq(proto_walk(cut, sizeof cut), 0);
    static const uint8_t unused[] = {0xc1};
    cr_assert_eq(proto_walk(unused, sizeof unused), 0);
}

Test(proto, encoding_refuses_what_its_row_forbids_and_appends_nothing)
{
    struct bash_request no_command = {.workdir = "/"};
    struct bash_request empty = {.command = ""};
    struct bash_request bad_choice = {.command = "x", .output_encoding = "latin1"};
    struct bash_request late = {.command = "x", .timeout_ms = (int64_t)MAX_TIMEOUT_MS + 1};
    struct bash_request too_much = {.command = "x", .stdin = {"x", MAX_CONTENT + 1}};
    struct bash_request bad_list = {.command = "x",
                                    .env = {.count = 3, .bytes = (const uint8_t *)"\xc4\x01", .len = 3}};
    struct bash_request no_bytes = {.command = "x", .env = {.count = 1}};
    const void *const rows[] = {&no_command, &empty, &bad_choice, &late, &too_much, &bad_list, &no_bytes};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        auto_err err_t *e = NULL;
        auto_buf buf_t out;
        buf_init(&out, 0);
        buf_append_str(&out, "kept");
        cr_expect_eq(proto_encode(MSG_bash_request, rows[i], &out, &e), -1, "row %zu", i);
        cr_expect_eq(err_code(e), ERR_INTERNAL);
        cr_expect_str_eq(buf_cstr(&out), "kept");
    }
    auto_err err_t *e = NULL;
    auto_buf buf_t out;
    struct bash_request without_data = {.command = "x", .stdin = {NULL, 5}};
    buf_init(&out, 0);
    cr_assert_eq(proto_encode(MSG_bash_request, &without_data, &out, &e), 0, "no data pointer is absent");
    buf_free(&out);
    buf_init(&out, 3);
    cr_assert_eq(proto_encode(MSG_bash_request, &without_data, &out, &e), -1);
    cr_assert_eq(err_code(e), ERR_PAYLOAD_TOO_LARGE);
    err_free(&e);
    cr_assert_eq(proto_encode(250, &without_data, &out, &e), -1, "no such message");
}

Test(proto, the_tables_are_sound)
{
    for (size_t n = 0; n < proto_desc_count(); n++) {
        const proto_desc_t *d = proto_desc_at(n);
        cr_expect_eq(proto_desc(d->id), d);
        cr_expect_eq(proto_desc_by_name(d->name), d);
        cr_expect_leq(d->field_count, 64, "%s", d->name);
        for (size_t i = 0; i < d->field_count; i++) {
            const proto_field_t *f = &d->fields[i];
            bool is_nested = f->kind == PROTO_MSG || f->kind == PROTO_MSGS;
            cr_expect(!is_nested || proto_desc_by_name(f->extra) != NULL, "%s.%s", d->name, f->name);
            for (size_t j = 0; is_nested && j < proto_desc_by_name(f->extra)->field_count; j++)
                cr_expect_neq(proto_desc_by_name(f->extra)->fields[j].kind, PROTO_BULK, "%s cannot be nested",
                              f->extra);
        }
    }
    cr_assert_null(proto_desc(0));
    cr_assert_null(proto_desc(UINT32_MAX));
    cr_assert_null(proto_desc_by_name("nothing"));
}

Test(proto, numbers_take_the_shortest_form_and_come_back)
{
    static const int64_t values[] = {
        0,         1,  127, 128, 255,  256,  65535,  65536,  UINT32_MAX, (int64_t)UINT32_MAX + 1,
        INT64_MAX, -1, -32, -33, -128, -129, -32768, -32769, INT32_MIN,  (int64_t)INT32_MIN - 1,
        INT64_MIN};
    static const size_t sizes[] = {1, 1, 1, 2, 2, 3, 3, 5, 5, 9, 9, 1, 1, 2, 2, 3, 3, 5, 5, 9, 9};
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        auto_buf buf_t b;
        buf_init(&b, 0);
        proto_put_int(&b, values[i]);
        cr_expect_eq(b.len, sizes[i], "%lld", (long long)values[i]);
        proto_cursor_t c = {b.data, b.data + b.len};
        int64_t back;
        cr_expect(proto_get_int(&c, &back) && back == values[i] && c.at == c.end);
    }
}

/* ---- interoperation with msgpack-c, which only this test uses: loaded, so that nothing else links it ---- */

static msgpack_unpack_return (*unpack_next)(msgpack_unpacked *, const char *, size_t, size_t *);
static void (*zone_free)(msgpack_zone *);

static void load_msgpack(void)
{
    void *library = dlopen("libmsgpackc.so.2", RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(library, "install libmsgpackc2");
    *(void **)&unpack_next = dlsym(library, "msgpack_unpack_next");
    *(void **)&zone_free = dlsym(library, "msgpack_zone_free");
    cr_assert(unpack_next != NULL && zone_free != NULL);
}

Test(proto, msgpack_c_reads_every_message)
{
    load_msgpack();
    for (size_t n = 0; n < proto_desc_count(); n++) {
        const proto_desc_t *d = proto_desc_at(n);
        auto_buf buf_t out;
        keep_t k = {.count = 0};
        size_t at = 0, raw = 0;
        auto_free void *msg = mem_alloc(d->size);
        msgpack_unpacked result = {.zone = NULL};
        encode_filled(d, false, msg, &k, &out);
        cr_assert_eq(unpack_next(&result, (const char *)out.data, out.len, &at), MSGPACK_UNPACK_SUCCESS, "%s", d->name);
        cr_assert_eq(result.data.type, MSGPACK_OBJECT_ARRAY);
        cr_assert_eq(result.data.via.array.size, d->field_count);
        for (size_t i = 0; i < d->field_count; i++) {
            const msgpack_object *o = &result.data.via.array.ptr[i];
            const void *m = (const char *)msg + d->fields[i].offset;
            if (d->fields[i].kind == PROTO_STR)
                cr_expect_str_eq(o->via.bin.ptr, *(const char *const *)m);
            else if (d->fields[i].kind == PROTO_I64)
                cr_expect_eq(o->via.i64, *(const int64_t *)m);
            else if (d->fields[i].kind == PROTO_U64)
                cr_expect_eq(o->via.u64, *(const uint64_t *)m);
            else if (d->fields[i].kind == PROTO_BULK)
                raw += o->via.u64;
        }
        cr_expect_eq(at + raw, out.len, "%s: what follows the array is its raw bytes", d->name);
        zone_free(result.zone);
        keep_free(&k);
    }
}

static void pack_bin(msgpack_packer *p, const char *text)
{
    msgpack_pack_bin(p, strlen(text) + 1);
    msgpack_pack_bin_body(p, text, strlen(text) + 1);
}

Test(proto, what_msgpack_c_writes_is_read)
{
    auto_err err_t *e = NULL;
    msgpack_sbuffer sbuf;
    msgpack_packer p;
    struct bash_request request;
    const char *key, *value;
    auto_free char *command = mem_alloc(70001); /* long enough for bin32 */
    memset(command, 'c', 70000);
    msgpack_sbuffer_init(&sbuf);
    msgpack_packer_init(&p, &sbuf, msgpack_sbuffer_write);
    msgpack_pack_array(&p, 6);
    pack_bin(&p, command);
    msgpack_pack_nil(&p);
    msgpack_pack_int64(&p, 70000);
    msgpack_pack_array(&p, 2);
    pack_bin(&p, "KEY");
    pack_bin(&p, "va=lue");
    pack_bin(&p, "root");
    msgpack_pack_uint8(&p, 5);
    msgpack_sbuffer_write(&sbuf, "input", 5);
    cr_assert_eq(proto_decode(MSG_bash_request, &request, sbuf.data, sbuf.size, &e), 0, "%s", err_message(e));
    cr_assert_str_eq(request.command, command);
    cr_assert_not(request.has.workdir);
    cr_assert_eq(request.timeout_ms, 70000);
    proto_iter_t it = proto_iter_map(&request.env);
    cr_assert(proto_iter_str(&it, &key) && proto_iter_str(&it, &value) && !proto_iter_str(&it, &key));
    cr_assert_str_eq(value, "va=lue");
    cr_assert_str_eq(request.user, "root");
    cr_assert_arr_eq(request.stdin.data, "input", 5);
    msgpack_sbuffer_destroy(&sbuf);
}
