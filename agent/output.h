/* SPDX-License-Identifier: Apache-2.0
 *
 * What a command wrote to one of its pipes: its first bytes (for the reply) and its last ones (a ring, addressed by
 * offset from the start of the output). Memory grows as needed up to both limits.
 */
#ifndef EW_AGENT_OUTPUT_H
#define EW_AGENT_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

typedef struct output {
    uint8_t *head;
    size_t head_len;
    size_t head_cap;
    size_t head_max;
    uint8_t *ring; /* byte `o` of the output is at o % ring_cap */
    size_t ring_cap;
    size_t ring_len;
    size_t ring_max;
    uint64_t total;
} output_t;

void output_init(output_t *o, size_t head_max, size_t ring_max);
void output_free(output_t *o);
void output_append(output_t *o, const uint8_t *bytes, size_t len);
uint64_t output_start(const output_t *o); /* oldest offset in the ring */
/* The longest run at `offset` that lies in one piece; 0 when offset is outside the ring. */
size_t output_peek(const output_t *o, uint64_t offset, const uint8_t **bytes);

#endif
