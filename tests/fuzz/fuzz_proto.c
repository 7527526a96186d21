// SPDX-License-Identifier: Apache-2.0
/* The first byte picks the message; the rest is decoded, its lists are walked, and what was accepted must encode and
 * decode again. */
// LINK: proto/proto.c proto/pack.c common/buf.c common/err.c common/mem.c
#include "common/mem.h"
#include "proto/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const proto_desc_t *d = size > 0 ? proto_desc_at(data[0] % proto_desc_count()) : NULL;
    auto_err err_t *e = NULL;
    auto_buf buf_t again = {0};
    auto_free void *msg = d ? mem_alloc(d->size) : NULL;
    if (d == NULL || proto_decode(d->id, msg, data + 1, size - 1, &e) != 0)
        return 0;
    for (size_t i = 0; i < d->field_count; i++) {
        const proto_field_t *f = &d->fields[i];
        const proto_list_t *list = (const proto_list_t *)((char *)msg + f->offset);
        uint32_t seen = 0;
        const char *s;
        proto_nested_t nested;
        if (f->kind != PROTO_LIST && f->kind != PROTO_MAP && f->kind != PROTO_MSGS)
            continue;
        proto_iter_t it = f->kind == PROTO_MAP ? proto_iter_map(list) : proto_iter(list);
        while (f->kind == PROTO_MSGS ? proto_iter_msg(&it, &nested) : proto_iter_str(&it, &s))
            seen++;
        if (seen != list->count * (f->kind == PROTO_MAP ? 2 : 1))
            abort();
    }
    if (proto_encode(d->id, msg, &again, &e) != 0 || proto_decode(d->id, msg, again.data, again.len, &e) != 0)
        abort();
    return 0;
}
