/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs another program from a daemon's loop: argv array, deadline, output limit, reaped by pidfd/SIGCHLD in the loop,
 * never blocking. The child gets: CLOEXEC everywhere, stdin /dev/null unless given, a clean signal mask, its own
 * process group, PR_SET_PDEATHSIG only if asked. At the deadline the group gets TERM, 2 s later KILL.
 */
#ifndef EW_COMMON_PROCESS_H
#define EW_COMMON_PROCESS_H

#include "common/buf.h"
#include "common/err.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct process process_t;

typedef struct process_result {
    int exit_code; /* 128+n for signal n; -1 if it never ran */
    bool is_timed_out;
    bool is_truncated;  /* output over the limit was dropped */
    const char *output; /* stdout and stderr as they came, NUL-terminated, borrowed for the callback */
    size_t output_len;
    uint32_t duration_ms;
} process_result_t;

typedef void (*process_done_fn)(void *arg, const process_result_t *result);

typedef struct process_options {
    const char *const *argv;     /* argv[0] looked up in PATH */
    const char *const *env;      /* NULL = the daemon's */
    const char *workdir;         /* NULL = the daemon's */
    int fd_stdin;                /* -1 = /dev/null; borrowed */
    int fd_stdout;               /* -1 = captured; borrowed */
    int fd_stderr;               /* -1 = captured; borrowed */
    int netns_fd;                /* -1 = the daemon's network; else entered before exec */
    const char *cgroup_procs[8]; /* cgroup.procs files the child joins before exec; NULL ends the list */
    bool mask_proc_sys_net_core; /* private mount namespace with an empty /proc/sys/net/core (gVisor facts B4) */
    uint32_t timeout_ms;         /* required */
    size_t output_max;           /* required, bytes kept */
} process_options_t;

/* Starts it; `done` is called exactly once, later, from the loop, unless process_cancel came first. */
process_t *process_start(struct event_base *base, const process_options_t *options, process_done_fn done, void *arg,
                         err_t **e);
pid_t process_pid(const process_t *p);
/* Whether the child is one of those started here, cancelled ones too, and still to be reaped here: for a subreaper's
 * loop, which would take its exit status away. */
bool process_reaps(pid_t pid);
/* Kills the group, reaps in the background, never calls `done`. */
void process_cancel(process_t **p);

/* Watches a process that need not be a child (pidfd): `gone` is called once when it has ended. exit_status as waitpid's
 * when it was our child or re-parented to us, else -1. */
typedef struct pid_watch pid_watch_t;
pid_watch_t *pid_watch_new(struct event_base *base, pid_t pid, void (*gone)(void *arg, int wait_status), void *arg,
                           err_t **e);
void pid_watch_destroy(pid_watch_t **w);

#endif
