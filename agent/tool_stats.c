// SPDX-License-Identifier: Apache-2.0
#include "agent/call.h"
#include "agent/proc_scan.h"
#include "agent/session.h"
#include "agent/spawn.h"
#include "common/clock.h"
#include "common/mem.h"

#include <errno.h>
#include <spawn.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEASURE_RUNS 9

static void stats_reply(agent_call_t *call, uint64_t fork_exec_us)
{
    struct statvfs disk = {0};
    struct agent_stats_reply reply = {
        .uptime_ms = clock_monotonic_ms() - session_started_ms(),
        .processes = proc_scan_count(),
        .memory_used_bytes = proc_memory_used(),
        .fork_exec_us = fork_exec_us,
    };
    if (statvfs(agent_workspace(), &disk) == 0) {
        reply.disk_total_bytes = (uint64_t)disk.f_blocks * disk.f_frsize;
        reply.disk_free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    }
    call_reply(call, &reply);
}

/* Microseconds of one vfork, exec and wait of the shell that bash uses; 0 if it cannot be started. */
static uint64_t fork_exec_once(const char *shell)
{
    char *argv[] = {(char *)(uintptr_t)shell, (char *)"-c", (char *)"true", NULL};
    pid_t pid;
    uint64_t started_us = clock_monotonic_us();
    if (posix_spawn(&pid, shell, NULL, NULL, argv, environ) != 0)
        return 0;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return clock_monotonic_us() - started_us;
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The floor for bash: the median of a few runs one after the other, as a busy caller's commands come. Blocks for those
 * milliseconds, which is what is measured. 0 without a shell. */
static uint64_t fork_exec_measure(void)
{
    const char *shell = shell_find();
    uint64_t times[MEASURE_RUNS];
    if (shell == NULL)
        return 0;
    for (size_t i = 0; i < MEASURE_RUNS; i++)
        times[i] = fork_exec_once(shell);
    qsort(times, MEASURE_RUNS, sizeof times[0], by_time);
    return times[MEASURE_RUNS / 2];
}

static void stats_start(agent_call_t *call, const void *message)
{
    const struct agent_stats_request *request = message;
    stats_reply(call, request->measure_fork ? fork_exec_measure() : 0);
}

const agent_tool_t tool_agent_stats = {
    .verb = VERB_agent_stats,
    .start = stats_start,
};
