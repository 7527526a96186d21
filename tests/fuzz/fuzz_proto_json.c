// SPDX-License-Identifier: Apache-2.0
/* The first byte picks the message; the rest is a REST body. What is accepted must decode, and be writable as JSON that
 * parses. */
// LINK: proto/proto_json.c proto/proto.c proto/pack.c common/json_writer.c
// LINK: common/text.c common/buf.c common/err.c common/mem.c
#include "common/mem.h"
#include "proto/messages.h"
#include "proto/proto_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const proto_desc_t *d = size > 0 ? proto_desc_at(data[0] % proto_desc_count()) : NULL;
    json_t *object = d ? json_loadb((const char *)data + 1, size - 1, JSON_ALLOW_NUL, NULL) : NULL;
    auto_err err_t *e = NULL;
    auto_buf buf_t encoded = {0}, unknown = {0}, text = {0};
    json_writer_t w;
    if (object != NULL && proto_from_json(d->id, object, &encoded, &unknown, &e) == 0) {
        json_writer_init(&w, &text);
        if (proto_to_json(d->id, encoded.data, encoded.len, data[0] & 1, &w, &e) != 0)
            abort();
        json_t *again = json_loads(buf_cstr(&text), JSON_ALLOW_NUL, NULL);
        if (again == NULL)
            abort();
        json_decref(again);
    }
    json_decref(object);
    return 0;
}
