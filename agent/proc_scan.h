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

uint64_t proc_start_time(pid_t pid); /* when it started; 0 if it is gone */
/* Live processes that descend from leader, are in its session, or have `tag` ("NAME=value") in the environment they
 * were started with. leader_start is proc_start_time() of it: another process may have its number by now. The agent
 * itself is never one. Calls fn for each, returns their number. */
size_t proc_scan_tree(pid_t leader, uint64_t leader_start, const char *tag, void (*fn)(void *arg, pid_t pid),
                      void *arg);
uint32_t proc_scan_count(void);
uint64_t proc_rss_bytes(pid_t pid); /* 0 if it is gone */
/* MemTotal - MemAvailable of /proc/meminfo; 0 if that cannot be read. */
uint64_t proc_memory_used(void);

#endif
