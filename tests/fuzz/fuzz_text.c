// SPDX-License-Identifier: Apache-2.0
/* Everything of text.h that reads text from outside. */
// LINK: common/text.c common/buf.c common/mem.c
#include "common/mem.h"
#include "common/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_buf buf_t decoded = {0}, encoded = {0}, again = {0};
    auto_free char *text = mem_strndup((const char *)data, size);
    uint8_t bytes[16];
    uint64_t u;
    int64_t i;
    uint32_t milli;
    if (base64_decode(&decoded, (const char *)data, size)) {
        base64_encode(&encoded, decoded.data, decoded.len);
        if (!base64_decode(&again, buf_cstr(&encoded), encoded.len) || again.len != decoded.len ||
            (again.len > 0 && memcmp(again.data, decoded.data, again.len) != 0))
            abort();
    }
    size_t valid = utf8_valid_prefix(data, size);
    for (size_t max = 0; max <= size && size < 256; max++) {
        size_t cut = utf8_cut(data, size, max);
        if (cut > max || cut + 3 < max || (max <= valid && !utf8_is_valid(data, cut)))
            abort();
    }
    text_to_size(text, &u);
    text_to_u64(text, &u);
    text_to_i64(text, &i);
    text_to_milli(text, &milli);
    hex_decode(bytes, sizeof bytes, text);
    return 0;
}
