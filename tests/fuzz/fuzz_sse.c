// SPDX-License-Identifier: Apache-2.0
// LINK: cli/sse.c common/buf.c common/mem.c
// A stream in two pieces, cut where the first byte says, must give what it gives in one.
#include "cli/sse.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool record(void *arg, const char *event, const char *id, const char *text, size_t len)
{
    buf_append_str(arg, event);
    buf_append_str(arg, id);
    buf_append(arg, text, len);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    size_t cut = data[0] % size;
    buf_t out[2];
    for (int i = 0; i < 2; i++) {
        sse_t parser;
        buf_init(&out[i], 0);
        sse_init(&parser, record, &out[i]);
        sse_feed(&parser, data + 1, i == 0 ? size - 1 : (cut < size - 1 ? cut : size - 1));
        sse_feed(&parser, data + 1 + cut, i == 0 || cut >= size - 1 ? 0 : size - 1 - cut);
        sse_free(&parser);
    }
    if (out[0].len != out[1].len || (out[0].len > 0 && memcmp(out[0].data, out[1].data, out[0].len) != 0)) {
        abort();
    }
    buf_free(&out[0]);
    buf_free(&out[1]);
    return 0;
}
