/* SPDX-License-Identifier: Apache-2.0
 *
 * Starts one program with vfork (a fork of PID 1 costs ten times as much inside gVisor): own session, own tree, the
 * user's ids and groups, no_new_privs, and without the capabilities that only PID 1 has.
 */
#ifndef EW_AGENT_SPAWN_H
#define EW_AGENT_SPAWN_H

#include "agent/environ.h"
#include "agent/tree.h"
#include "agent/users.h"
#include "common/err.h"

typedef struct spawn_options {
    char *const *argv;
    const environ_t *env;
    const char *workdir; /* absolute */
    const user_t *user;
    tree_t *tree;
    int fds[3]; /* -1 = /dev/null */
} spawn_options_t;

/* The pid, or -1: tool_unavailable (no such program), bad_request (workdir, not executable, arguments too long),
 * limit_reached (no more processes). */
pid_t spawn(const spawn_options_t *options, err_t **e);

/* The shell of commands: /bin/bash, else /bin/sh, else NULL. */
const char *shell_find(void);

/* Once, at start: what children must not get from the agent's own process. */
void spawn_init(void);

#endif
