// SPDX-License-Identifier: Apache-2.0
#include "agent/pressure.h"

#include "agent/loop.h"
#include "agent/proc.h"
#include "agent/proc_scan.h"
#include "agent/session.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#define SETTLE_MS 3000 /* a killed process's memory is still counted for a while, by the host longer than by us */
#define WORTH_PART 64  /* ending less than this part of the budget helps nobody … */
#define WORTH_PART_SETTLING 8 /* … and even less while the last victim's memory comes back */

static struct {
    bool is_init;
    uint64_t budget;
    uint64_t until_ms;
    uint64_t timer;
    uint64_t killed_ms;
    uint64_t host_extra; /* what the host counts above what is seen here */
} pressure;

struct sum {
    uint64_t bytes;
    uint64_t largest_bytes;
    pid_t largest;
};

void pressure_init(bool is_init)
{
    pressure.is_init = is_init;
}

void pressure_set_budget(uint64_t bytes)
{
    pressure.budget = bytes;
}

void pressure_reset(void)
{
    loop_cancel(pressure.timer);
    pressure.timer = pressure.until_ms = pressure.killed_ms = pressure.host_extra = 0;
}

static void sum_add(void *arg, pid_t pid)
{
    struct sum *sum = arg;
    uint64_t bytes = proc_rss_bytes(pid);
    sum->bytes += bytes;
    if (bytes >= sum->largest_bytes) {
        sum->largest_bytes = bytes;
        sum->largest = pid;
    }
}

/* Of all commands together; *victim is the largest tree. */
static uint64_t trees_sum(proc_t **victim, struct sum *victim_sum)
{
    uint64_t bytes = 0;
    *victim = NULL;
    for (proc_t *p = procs_first(); p != NULL; p = p->next) {
        struct sum sum = {0};
        if (p->is_ended)
            continue;
        tree_each(p->tree, sum_add, &sum);
        bytes += sum.bytes;
        if (sum.largest > 0 && (*victim == NULL || sum.bytes > victim_sum->bytes)) {
            *victim = p;
            *victim_sum = sum;
        }
    }
    return bytes;
}

static uint64_t used_now(uint64_t trees_bytes)
{
    return pressure.is_init ? proc_memory_used() : trees_bytes;
}

static void victim_end(proc_t *victim, const struct sum *sum)
{
    char detail[160];
    snprintf(detail, sizeof detail,
             "memory ran out: ended pid %d with %" PRIu64 " MiB, of a command with %" PRIu64 " MiB", (int)sum->largest,
             sum->largest_bytes >> 20, sum->bytes >> 20);
    victim->is_oom_hit = true;
    pressure.killed_ms = loop_clock_ms();
    pressure.host_extra = 0;
    (void)kill(sum->largest, SIGKILL);
    session_notice("oom_kill", victim->id, detail);
}

static bool is_settling(void)
{
    return pressure.killed_ms != 0 && loop_clock_ms() - pressure.killed_ms < SETTLE_MS;
}

static void on_poll(void *arg)
{
    struct sum sum = {0};
    proc_t *victim;
    (void)arg;
    pressure.timer = 0;
    uint64_t used = used_now(trees_sum(&victim, &sum)) + pressure.host_extra;
    uint64_t worth = pressure.budget / (is_settling() ? WORTH_PART_SETTLING : WORTH_PART);
    if (victim != NULL && used >= pressure.budget / 100 * PRESSURE_PERCENT && sum.largest_bytes >= worth)
        victim_end(victim, &sum);
    if (loop_clock_ms() < pressure.until_ms)
        pressure.timer = loop_after(PRESSURE_POLL_MS, on_poll, NULL);
}

void pressure_begin(uint64_t used_bytes)
{
    struct sum sum = {0};
    proc_t *victim;
    if (pressure.budget == 0)
        return;
    uint64_t used = used_now(trees_sum(&victim, &sum));
    /* The host's count decides over life and death; what it sees beyond ours stays about the same for a while. */
    pressure.host_extra = used_bytes > used && !is_settling() ? used_bytes - used : 0;
    pressure.until_ms = loop_clock_ms() + PRESSURE_WATCH_MS;
    if (pressure.timer == 0)
        on_poll(NULL);
}
