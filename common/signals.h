/* SPDX-License-Identifier: Apache-2.0
 *
 * Signal dispositions before an exec. Freestanding, async-signal-safe (fit for a vfork child).
 */
#ifndef EW_COMMON_SIGNALS_H
#define EW_COMMON_SIGNALS_H

/* Every signal to its default action, also the two that libc keeps for itself: posix_spawn() (make, for one) leaves
 * them ignored in its children, and so in theirs. 0, or -1 with errno. */
int signals_reset(void);

#endif
