// SPDX-License-Identifier: Apache-2.0
/*
 * The in-sandbox agent. PID 1 of a sandbox, or an ordinary process (tests; providers whose PID 1 is another's): then it
 * mounts nothing and ends when its input ends. Frames come on descriptor 0 and go out on 1; it never prints.
 *
 * AGENT_WORKSPACE: directory instead of /workspace. AGENT_CGROUP: writable cgroup directory for trees of an ordinary
 * process. AGENT_LINK=blocks: input comes over a transport that may be torn (agent/blocks.h).
 */
#include "agent/calls.h"
#include "agent/link.h"
#include "agent/loop.h"
#include "agent/machine.h"
#include "agent/pressure.h"
#include "agent/proc.h"
#include "agent/session.h"
#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define FD_HIGH 200 /* above what commands and scripts use by number */

static bool is_init;
static bool is_stopping;
static bool has_children_to_reap;
static int signal_fd = -1;

/* A command must never get at the stream: away from 0 and 1 before anything else, closed at exec. */
static int fd_move(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, FD_HIGH);
    if (high >= 0)
        close(fd);
    return high;
}

static bool stdio_null(void)
{
    int fd = open("/dev/null", O_RDWR);
    if (fd != 0)
        return false; /* the lowest free one, or there is no /dev/null */
    return dup2(0, 1) == 1 && dup2(0, 2) == 2;
}

/* An ordinary process takes its commands with it. */
static void stop_begin(void)
{
    if (is_stopping)
        return;
    is_stopping = true;
    procs_kill_all();
}

static void on_closed(void)
{
    /* PID 1 that ends takes the sandbox with it: whether that is due is the daemon's to say. */
    if (!is_init)
        stop_begin();
}

static void on_signal(void *arg, int fd, short revents)
{
    struct signalfd_siginfo info;
    (void)arg;
    (void)revents;
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo == SIGTERM && !is_init)
            stop_begin();
    has_children_to_reap = true; /* in on_turn */
}

static bool on_turn(void)
{
    if (has_children_to_reap)
        has_children_to_reap = procs_reap();
    bool has_steps = calls_turn();
    procs_turn();
    bool has_output = link_flush();
    calls_end_finished();
    if (is_stopping && procs_are_ended())
        loop_stop();
    return has_steps || has_output || has_children_to_reap;
}

static void on_listed_end(proc_t *proc)
{
    session_notice("process_end", proc->id, NULL);
}

static bool signals_open(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return false;
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return signal_fd >= 0 && loop_watch(signal_fd, POLLIN, on_signal, NULL);
}

static void machine_init(void)
{
    const char *cgroup = getenv("AGENT_CGROUP");
    if (is_init) {
        machine_loopback_up();
        trees_init(machine_cgroup_open());
        /* Root inside must not trace or read the one process that has more than it. */
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        return;
    }
    /* Orphans come to us, as they would to PID 1. */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    trees_init(cgroup != NULL ? machine_cgroup_use(cgroup) : -1);
}

int main(void)
{
    int fd_in = fd_move(0);
    int fd_out = fd_move(1);
    is_init = getpid() == 1;
    close(2);
    (void)close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    if (is_init)
        machine_mount_missing();
    if (fd_in < 0 || fd_out < 0 || !stdio_null() || !signals_open())
        return 1;
    spawn_init();
    machine_init();
    session_init(is_init);
    pressure_init(is_init);
    procs_init(on_listed_end);
    loop_set_idle(on_turn);
    link_init(fd_in, fd_out, on_closed);
    loop_run();
    return 0;
}
