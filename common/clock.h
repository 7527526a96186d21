/* SPDX-License-Identifier: Apache-2.0
 *
 * Clocks and random bytes. Freestanding. Aborts if the kernel has no random bytes to give.
 */
#ifndef EW_COMMON_CLOCK_H
#define EW_COMMON_CLOCK_H

#include <stddef.h>
#include <stdint.h>

uint64_t clock_realtime_ms(void);
uint64_t clock_realtime_ns(void);
uint64_t clock_monotonic_ms(void);
uint64_t clock_monotonic_us(void);
void random_bytes(void *out, size_t len);

#endif
