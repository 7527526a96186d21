// SPDX-License-Identifier: Apache-2.0
#include "common/cobs.h"

#include "common/mem.h"

#define RUN_MAX 254 /* bytes after a code that stands for no 0 */

static void run_append(buf_t *out, const uint8_t *bytes, size_t len)
{
    buf_append_byte(out, (uint8_t)(len + 1));
    buf_append(out, bytes, len);
}

static void encode(buf_t *out, const uint8_t *bytes, size_t len)
{
    size_t at = 0;
    for (;;) {
        size_t left = len - at, most = left < RUN_MAX ? left : RUN_MAX;
        const uint8_t *zero = memchr(bytes + at, 0, most);
        size_t run = zero ? (size_t)(zero - (bytes + at)) : most;
        run_append(out, bytes + at, run);
        at += run;
        if (zero)
            at++; /* the 0 is in the code; one at the very end still needs an empty run after it */
        else if (at == len)
            return;
    }
}

void cobs_append(buf_t *out, const uint8_t tag[COBS_TAG_SIZE], const void *payload, size_t len)
{
    uint8_t plain[COBS_TAG_SIZE + COBS_PAYLOAD_MAX];
    if (len > COBS_PAYLOAD_MAX)
        abort(); /* the caller cuts */
    memcpy(plain, tag, COBS_TAG_SIZE);
    if (len > 0)
        memcpy(plain + COBS_TAG_SIZE, payload, len);
    buf_append_byte(out, 0);
    encode(out, plain, COBS_TAG_SIZE + len);
    buf_append_byte(out, 0);
}

long cobs_decode(uint8_t *block, size_t len)
{
    size_t from = 0, to = 0;
    while (from < len) {
        size_t run = block[from];
        if (run == 0 || run > len - from)
            return -1;
        memmove(block + to, block + from + 1, run - 1);
        to += run - 1;
        from += run;
        if (run - 1 < RUN_MAX && from < len)
            block[to++] = 0;
    }
    return (long)to;
}
