// SPDX-License-Identifier: Apache-2.0
/* A byte stream as a daemon reads it from a sandbox: frames one after another, envelopes decoded and encoded again. */
// LINK: proto/envelope.c
#include "proto/envelope.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[UUID_TEXT_SIZE];
    uint8_t again[ENVELOPE_SIZE];
    envelope_t env;
    uuid16_t uuid;
    for (;;) {
        long total = stream_frame_length(data, size, STREAM_FRAME_UP_MAX);
        if (total <= 0)
            return 0;
        if ((size_t)total > size || (size_t)total > STREAM_FRAME_UP_MAX || total < STREAM_LENGTH_SIZE + ENVELOPE_SIZE)
            abort();
        if (envelope_decode(&env, data + STREAM_LENGTH_SIZE, ENVELOPE_SIZE)) {
            envelope_encode(&env, again);
            uuid16_format(&env.sandbox, text);
            if (memcmp(again, data + STREAM_LENGTH_SIZE, ENVELOPE_SIZE) != 0 || !uuid16_parse(&uuid, text) ||
                memcmp(&uuid, &env.sandbox, sizeof uuid) != 0)
                abort();
        }
        data += total;
        size -= (size_t)total;
    }
}
