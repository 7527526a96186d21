// SPDX-License-Identifier: Apache-2.0
#include "agent/blocks.h"

#include "common/cobs.h"
#include "common/mem.h"

static struct {
    uint8_t bytes[COBS_BLOCK_MAX];
    size_t len; /* COBS_BLOCK_MAX + 1: too long, up to the next 0 */
    uint8_t tag[COBS_TAG_SIZE];
    bool has_tag;
} block;

bool blocks_are_used(void)
{
    const char *how = getenv("AGENT_LINK");
    return how != NULL && strcmp(how, "blocks") == 0;
}

static void collect(const uint8_t *bytes, size_t len)
{
    if (block.len + len > COBS_BLOCK_MAX) {
        block.len = COBS_BLOCK_MAX + 1;
        return;
    }
    memcpy(block.bytes + block.len, bytes, len);
    block.len += len;
}

static void block_end(void (*feed)(const uint8_t *bytes, size_t len), void (*begin)(void))
{
    long len = block.len > COBS_BLOCK_MAX ? -1 : cobs_decode(block.bytes, block.len);
    block.len = 0;
    if (len < COBS_TAG_SIZE)
        return;
    const uint8_t *payload = block.bytes + COBS_TAG_SIZE;
    size_t size = (size_t)len - COBS_TAG_SIZE;
    if (block.has_tag && memcmp(block.tag, block.bytes, COBS_TAG_SIZE) == 0) {
        feed(payload, size);
    } else if (size == COBS_HELLO_SIZE && memcmp(payload, COBS_HELLO, COBS_HELLO_SIZE) == 0) {
        memcpy(block.tag, block.bytes, COBS_TAG_SIZE);
        block.has_tag = true;
        begin();
    }
}

void blocks_take(const uint8_t *bytes, size_t len, void (*feed)(const uint8_t *bytes, size_t len), void (*begin)(void))
{
    while (len > 0) {
        const uint8_t *zero = memchr(bytes, 0, len);
        size_t part = zero ? (size_t)(zero - bytes) : len;
        collect(bytes, part);
        if (zero && block.len > 0)
            block_end(feed, begin);
        bytes += zero ? part + 1 : part;
        len -= zero ? part + 1 : part;
    }
}
