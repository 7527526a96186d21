/* SPDX-License-Identifier: Apache-2.0
 *
 * The registry of commands: each is one first process with its tree, pipes and what it wrote. Foreground commands
 * (bash), programs run by tools (agent/exec.h) and background processes are the same thing; only listed ones are shown
 * by the process verbs.
 *
 * A command has exited when its first process has ended and what it wrote until then was read; it has ended when
 * nothing of its tree is alive. Only deadline, cancel, signal and the end of the sandbox kill.
 */
#ifndef EW_AGENT_PROC_H
#define EW_AGENT_PROC_H

#include "agent/environ.h"
#include "agent/output.h"
#include "agent/tree.h"
#include "common/buf.h"
#include "common/err.h"

#define PROC_RING_MAX ((size_t)1024 * 1024) /* of stdout, and of stderr */
#define PROC_LISTED_RUNNING_MAX 1024
#define PROC_LISTED_ENDED_MAX 256
#define PROC_ENDED_RING_BYTES ((size_t)16 * 1024 * 1024) /* of all ended ones together; the oldest are forgotten */
#define PROC_INPUT_MAX ((size_t)4 * 1024 * 1024)
#define PROC_COMMAND_MAX 4096

enum proc_event { PROC_OUTPUT, PROC_INPUT, PROC_EXITED, PROC_ENDED };

typedef struct proc proc_t;
typedef void (*proc_fn)(void *arg, proc_t *proc, enum proc_event event);

/* Lives in its owner; may be removed in its own callback. */
typedef struct proc_observer {
    proc_t *proc;
    proc_fn fn;
    void *arg;
    struct proc_observer *next;
} proc_observer_t;

typedef struct proc_options {
    char *const *argv;
    const char *command;         /* for lists */
    const char *workdir;         /* NULL or "" = /workspace */
    const char *user;            /* NULL or "" = root */
    const proto_list_t *env;     /* MAP or NULL */
    const char *const *env_vars; /* NAME=value, NULL ends it; or NULL */
    bool has_stdin;              /* a pipe, kept open; else /dev/null, or `input` and then the end */
    const void *input;           /* or NULL; copied */
    size_t input_len;
    size_t head_max[2];  /* first bytes of stdout and stderr to keep */
    bool has_ring;       /* keep the last PROC_RING_MAX bytes of each */
    uint64_t timeout_ms; /* 0 = none */
    const char *tag;
} proc_options_t;

struct proc {
    uint32_t id; /* 0 until listed */
    pid_t pid;
    tree_t *tree;
    char *command;
    char *tag;
    uint64_t started_at_ms; /* since 1970 */
    uint64_t started_us;
    uint64_t ended_us;
    bool is_exited;
    bool has_left; /* when the first process ended, others of its tree were alive */
    bool is_ended;
    bool is_timed_out;
    bool is_oom_hit;
    bool is_listed;
    bool is_owned; /* a call or exec holds it */
    bool is_reaped;
    bool is_garbage;
    bool is_paused[2];
    int wait_status;
    int out_fds[2];
    output_t out[2];
    int in_fd;
    bool in_ends; /* close once `in` is written */
    buf_t in;
    size_t in_at;       /* bytes of `in` that are written */
    uint64_t in_queued; /* bytes ever given */
    uint64_t in_written;
    uint64_t timer;
    proc_observer_t *observers;
    proc_observer_t *notify_next;
    proc_t *next;
};

/* Once. `on_noticed` hears of every listed command that has ended. */
void procs_init(void (*on_listed_end)(proc_t *proc));
/* Owned by the caller until proc_release. */
proc_t *proc_start(const proc_options_t *options, err_t **e);
/* Gives it up: a listed one goes on, any other is killed and forgotten. */
void proc_release(proc_t *proc);
int proc_list_it(proc_t *proc, err_t **e); /* gives it a process id; limit_reached */
proc_t *proc_find(uint32_t process_id);    /* NULL if unknown; ended ones are kept for a while */
proc_t *procs_first(void);                 /* all of them, oldest first, by `next` */

void proc_observe(proc_t *proc, proc_observer_t *observer, proc_fn fn, void *arg);
void proc_unobserve(proc_observer_t *observer);

/* TERM, 5 s, KILL. */
void proc_kill(proc_t *proc, bool is_timeout);
/* KILL at once and until nothing is left, forks stopped: what grows cannot outrun it. */
void proc_kill_now(proc_t *proc);
/* Stops reading a pipe, so that a slow client slows its command. */
void proc_pause(proc_t *proc, int which, bool is_paused);
/* conflict: standard input is not open. overloaded: more than PROC_INPUT_MAX wait. */
int proc_input(proc_t *proc, const void *bytes, size_t len, bool is_end, err_t **e);

/* 128+n for signal n; -1 after a timeout. */
int64_t proc_exit_code(const proc_t *proc);
const char *proc_signal_name(const proc_t *proc); /* NULL if it ended by itself */
uint64_t proc_duration_us(const proc_t *proc);
bool proc_is_running(const proc_t *proc); /* it or its tree */

/* After SIGCHLD: reaps a number of processes. True: there may be more. */
bool procs_reap(void);
/* Frees what is done with; once every loop turn. */
void procs_turn(void);
void procs_kill_all(void); /* KILL, without grace */
bool procs_are_ended(void);

#endif
