/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory is short. Reaching the host's limit would end the whole sandbox, so when the daemon says PRESSURE the agent
 * looks every PRESSURE_POLL_MS for PRESSURE_WATCH_MS and, at 95 % of the budget, ends the largest process of the
 * largest tree. Without PRESSURE it costs nothing.
 */
#ifndef EW_AGENT_PRESSURE_H
#define EW_AGENT_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#define PRESSURE_POLL_MS 50
#define PRESSURE_WATCH_MS 10000
#define PRESSURE_PERCENT 95

/* is_init: all memory of the machine counts, else only that of commands. */
void pressure_init(bool is_init);
void pressure_set_budget(uint64_t bytes); /* 0 = none: PRESSURE is ignored */
void pressure_reset(void); /* the sandbox has moved into another memory cgroup: what was seen before says nothing */
void pressure_begin(uint64_t used_bytes); /* as the host counts; 0 = unknown */

#endif
