/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs one program to its end for a tool (git): argv, never shell words; its own process tree, killed whole (TERM, 5 s,
 * KILL) at the deadline, on cancel, and when the program ends but leaves something running.
 *
 * Everything in the options is copied. `done` is called exactly once, later, from the loop, unless exec_cancel came
 * first.
 */
#ifndef EW_AGENT_EXEC_H
#define EW_AGENT_EXEC_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct exec exec_t;

typedef struct exec_options {
    const char *const
        *argv;              /* NULL ends it; a name without a slash is looked up in PATH of the command's environment */
    const char *const *env; /* NAME=value, NULL ends it, put over the sandbox's environment; NULL = nothing to add */
    const char *workdir;    /* NULL or "" = /workspace; relative to it */
    const char *user;       /* name or uid[:gid]; NULL or "" = root of the sandbox */
    const void *stdin_bytes; /* NULL = /dev/null */
    size_t stdin_len;
    size_t stdout_max; /* bytes kept; the rest is read and counted */
    size_t stderr_max;
    uint32_t timeout_ms; /* 0 = none */
} exec_options_t;

typedef struct exec_result {
    int exit_code;      /* 128+n for signal n; -1 after a timeout */
    const char *signal; /* "SIGKILL", or NULL */
    bool is_timed_out;
    bool is_oom_hit; /* the agent ended a process of it because memory ran out */
    const uint8_t *out;
    size_t out_len;
    uint64_t out_total; /* out_total > out_len: cut */
    const uint8_t *err;
    size_t err_len;
    uint64_t err_total;
    uint64_t duration_us;
} exec_result_t;

/* The result is borrowed for the callback; the exec_t is freed after it returns. */
typedef void (*exec_done_fn)(void *arg, const exec_result_t *result);

/* NULL + error: tool_unavailable when the program is not there, bad_request for workdir or user, limit_reached for
 * pids. */
exec_t *exec_run(const exec_options_t *options, exec_done_fn done, void *arg, err_t **e);
/* Kills the tree in the background; `done` is not called. */
void exec_cancel(exec_t **x);

#endif
