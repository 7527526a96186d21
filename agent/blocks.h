/* SPDX-License-Identifier: Apache-2.0
 *
 * Input over a transport that may be torn anywhere and mixed with the rest of a dead daemon's (common/cobs.h); the
 * provider says so by AGENT_LINK=blocks in the environment. What is whole and of the newest connection goes on.
 */
#ifndef EW_AGENT_BLOCKS_H
#define EW_AGENT_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool blocks_are_used(void);
/* Calls feed for each payload, begin when a new connection has begun: half a frame of the old one is void. */
void blocks_take(const uint8_t *bytes, size_t len, void (*feed)(const uint8_t *bytes, size_t len), void (*begin)(void));

#endif
