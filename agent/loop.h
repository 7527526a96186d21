/* SPDX-License-Identifier: Apache-2.0
 *
 * The agent's event loop: poll() with no timer when idle (an idle sandbox must cost nothing). Descriptors and one-shot
 * timers. Handlers may add and remove anything, themselves included. Limits: LOOP_FDS_MAX descriptors.
 */
#ifndef EW_AGENT_LOOP_H
#define EW_AGENT_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#define LOOP_FDS_MAX 4096

typedef void (*loop_fd_fn)(void *arg, int fd, short revents);
typedef void (*loop_timer_fn)(void *arg);

/* Watches fd (replacing an earlier watch of it); events 0 removes. False: LOOP_FDS_MAX reached. */
bool loop_watch(int fd, short events, loop_fd_fn fn, void *arg);
/* One-shot timer; returns a handle > 0. */
uint64_t loop_after(uint32_t ms, loop_timer_fn fn, void *arg);
void loop_cancel(uint64_t timer); /* 0 and fired ones are fine */
/* The agent's own clock, which timers go by: CLOCK_MONOTONIC without the time between loop_freeze and loop_thaw. A
 * sandbox can be kept on disk for a month meanwhile; CLOCK_MONOTONIC may jump over that or not, and no command has used
 * up its time by it. While frozen, only what is due already fires. */
uint64_t loop_clock_us(void);
uint64_t loop_clock_ms(void);
void loop_freeze(void);
void loop_thaw(void);
/* Called every turn without sleeping while it returns true; one idle function. */
void loop_set_idle(bool (*fn)(void));
void loop_run(void); /* until loop_stop */
void loop_stop(void);

#endif
