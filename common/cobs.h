/* SPDX-License-Identifier: Apache-2.0
 *
 * Consistent overhead byte stuffing: any bytes as bytes without 0, so that a 0 between two blocks is never content and
 * what is torn is seen. For transports that may end in the middle of a write (Docker's attach connection): whole
 * blocks arrive or nothing of them. Freestanding.
 *
 * On such a transport every block is `0 cobs(tag, payload) 0`. The tag is random for each connection; a connection
 * begins with the block `tag, COBS_HELLO` and from then on blocks with another tag are a dead daemon's and dropped.
 */
#ifndef EW_COMMON_COBS_H
#define EW_COMMON_COBS_H

#include "common/buf.h"

#define COBS_TAG_SIZE 8
#define COBS_PAYLOAD_MAX ((size_t)4096)
#define COBS_HELLO "emergent attach 1"
#define COBS_HELLO_SIZE (sizeof COBS_HELLO - 1)
/* One block without its zeros. */
#define COBS_BLOCK_MAX (COBS_TAG_SIZE + COBS_PAYLOAD_MAX + (COBS_TAG_SIZE + COBS_PAYLOAD_MAX) / 254 + 1)

/* Appends `0 block 0` of tag and payload (at most COBS_PAYLOAD_MAX). */
void cobs_append(buf_t *out, const uint8_t tag[COBS_TAG_SIZE], const void *payload, size_t len);
/* In place, of a block without its zeros; the length of what it was, -1: it is torn. */
long cobs_decode(uint8_t *block, size_t len);

#endif
