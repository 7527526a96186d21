// SPDX-License-Identifier: Apache-2.0
#include "common/signals.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

int signals_reset(void)
{
    /* By the bare call, since libc refuses its own two. The kernel's struct is handler, flags, restorer, mask: zeros
     * are the default action. */
    static const uint64_t action[4];
    for (int number = 1; number < NSIG; number++)
        if (syscall(SYS_rt_sigaction, number, action, NULL, sizeof(uint64_t)) < 0 && errno != EINVAL)
            return -1;
    return 0;
}
