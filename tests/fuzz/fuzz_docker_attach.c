// SPDX-License-Identifier: Apache-2.0
// LINK: services/gvisord/docker_demux.c agent/blocks.c common/cobs.c common/buf.c common/mem.c
/* Docker's attach stream in pieces: the same output however it is cut. And the agent's end of the blocks that go down.
 */
#include "agent/blocks.h"
#include "common/cobs.h"
#include "services/gvisord/docker_demux.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_output(void *arg, const uint8_t *bytes, size_t len)
{
    uint64_t *sum = arg;
    for (size_t i = 0; i < len; i++)
        *sum = *sum * 31 + bytes[i] + 1;
}

static void on_feed(const uint8_t *bytes, size_t len)
{
    uint64_t sum = 0;
    on_output(&sum, bytes, len);
}

static void on_begin(void)
{
}

static void check_round_trip(const uint8_t *data, size_t size)
{
    static const uint8_t tag[COBS_TAG_SIZE] = {1, 0, 2};
    auto_buf buf_t out = {0};
    size = size < COBS_PAYLOAD_MAX ? size : COBS_PAYLOAD_MAX;
    cobs_append(&out, tag, data, size);
    if (memchr(out.data + 1, 0, out.len - 2) || out.len - 2 > COBS_BLOCK_MAX)
        abort();
    long len = cobs_decode(out.data + 1, out.len - 2);
    if (len != (long)(size + COBS_TAG_SIZE) || (size > 0 && memcmp(out.data + 1 + COBS_TAG_SIZE, data, size) != 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    docker_demux_t whole = {0}, cut = {0};
    uint64_t sums[2] = {0};
    int rc = docker_demux_take(&whole, data, size, on_output, &sums[0]), cut_rc = 0;
    for (size_t i = 0; i < size && cut_rc == 0; i++)
        cut_rc = docker_demux_take(&cut, data + i, 1, on_output, &sums[1]);
    if (rc != cut_rc || sums[0] != sums[1])
        abort();
    blocks_take(data, size, on_feed, on_begin);
    check_round_trip(data, size);
    return 0;
}
