/* SPDX-License-Identifier: Apache-2.0
 *
 * What /proc tells about processes: trees where no cgroup can tell, counts and memory.
 */
#ifndef EW_AGENT_PROC_SCAN_H
#define EW_AGENT_PROC_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Live processes that descend from leader, are in its session, or have `tag` ("NAME=value") in the environment they
 * were started with. The agent itself is never one. Calls fn for each, returns their number. */
size_t proc_scan_tree(pid_t leader, const char *tag, void (*fn)(void *arg, pid_t pid), void *arg);
uint32_t proc_scan_count(void);
uint64_t proc_rss_bytes(pid_t pid); /* 0 if it is gone */
/* MemTotal - MemAvailable of /proc/meminfo; 0 if that cannot be read. */
uint64_t proc_memory_used(void);

#endif
