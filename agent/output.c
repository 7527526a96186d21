// SPDX-License-Identifier: Apache-2.0
#include "agent/output.h"

#include "common/mem.h"

#define FIRST_CAP 4096

void output_init(output_t *o, size_t head_max, size_t ring_max)
{
    *o = (output_t){.head_max = head_max, .ring_max = ring_max};
}

void output_free(output_t *o)
{
    free(o->head);
    free(o->ring);
    *o = (output_t){0};
}

static size_t cap_for(size_t cap, size_t need, size_t max)
{
    if (cap == 0)
        cap = FIRST_CAP;
    while (cap < need)
        cap *= 2;
    return cap < max ? cap : max;
}

static void head_append(output_t *o, const uint8_t *bytes, size_t len)
{
    if (len > o->head_max - o->head_len)
        len = o->head_max - o->head_len;
    if (len == 0)
        return;
    if (o->head_len + len > o->head_cap) {
        o->head_cap = cap_for(o->head_cap, o->head_len + len, o->head_max);
        o->head = mem_realloc(o->head, o->head_cap);
    }
    memcpy(o->head + o->head_len, bytes, len);
    o->head_len += len;
}

static void ring_copy_in(uint8_t *ring, size_t cap, uint64_t offset, const uint8_t *bytes, size_t len)
{
    size_t at = (size_t)(offset % cap);
    size_t first = len < cap - at ? len : cap - at;
    memcpy(ring + at, bytes, first);
    memcpy(ring, bytes + first, len - first);
}

static void ring_grow(output_t *o, size_t need)
{
    size_t cap = cap_for(o->ring_cap, need, o->ring_max);
    uint8_t *ring = mem_alloc(cap);
    const uint8_t *piece;
    for (uint64_t at = output_start(o); at < o->total;) {
        size_t n = output_peek(o, at, &piece);
        ring_copy_in(ring, cap, at, piece, n);
        at += n;
    }
    free(o->ring);
    o->ring = ring;
    o->ring_cap = cap;
}

static void ring_append(output_t *o, const uint8_t *bytes, size_t len)
{
    if (o->ring_max == 0)
        return;
    if (o->ring_len + len > o->ring_cap && o->ring_cap < o->ring_max)
        ring_grow(o, o->ring_len + len);
    size_t skip = len > o->ring_cap ? len - o->ring_cap : 0;
    ring_copy_in(o->ring, o->ring_cap, o->total + skip, bytes + skip, len - skip);
    o->ring_len = o->ring_len + len < o->ring_cap ? o->ring_len + len : o->ring_cap;
}

void output_append(output_t *o, const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return;
    head_append(o, bytes, len);
    ring_append(o, bytes, len);
    o->total += len;
}

uint64_t output_start(const output_t *o)
{
    return o->total - o->ring_len;
}

size_t output_peek(const output_t *o, uint64_t offset, const uint8_t **bytes)
{
    if (offset < output_start(o) || offset >= o->total)
        return 0;
    size_t at = (size_t)(offset % o->ring_cap);
    size_t left = (size_t)(o->total - offset);
    *bytes = o->ring + at;
    return left < o->ring_cap - at ? left : o->ring_cap - at;
}
