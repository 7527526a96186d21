/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/gvisord.h"

#include "common/mem.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define REAP_AGAIN_MS 10

static struct {
    pid_t *pids;
    size_t count, cap;
    struct event *again;
} own;

void reaper_own(pid_t pid)
{
    if (own.count == own.cap) {
        own.cap = own.cap ? own.cap * 2 : 32;
        own.pids = mem_realloc(own.pids, own.cap * sizeof *own.pids);
    }
    own.pids[own.count++] = pid;
}

void reaper_disown(pid_t pid)
{
    for (size_t i = 0; i < own.count; i++)
        if (own.pids[i] == pid) {
            own.pids[i] = own.pids[--own.count];
            return;
        }
}

static bool is_own(pid_t pid)
{
    if (process_reaps(pid))
        return true;
    for (size_t i = 0; i < own.count; i++)
        if (own.pids[i] == pid)
            return true;
    return false;
}

/* Nothing can be made, stopped or removed any more. Nothing is told to sandboxes and hubs, either: it is as if the
 * daemon had been killed, too, and whoever watches it starts the next one. */
static void worker_lost(gvisord_t *gv)
{
    gv->has_lost_worker = true;
    event_base_loopbreak(gv->daemon.base);
}

/* Looks before it takes: the child at the head may be one that process.c or a pid watch is about to wait for; then the
 * rest is looked at a moment later. */
static void reap(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    gvisord_t *gv = arg;
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return;
        if (info.si_pid == worker_pid(gv->worker)) {
            worker_lost(gv);
            return;
        }
        if (is_own(info.si_pid)) {
            struct timeval tv = {.tv_usec = REAP_AGAIN_MS * 1000};
            evtimer_add(own.again, &tv);
            return;
        }
        (void)waitpid(info.si_pid, NULL, WNOHANG);
    }
}

int reaper_start(gvisord_t *gv, err_t **e)
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot become a subreaper");
    reaper_own(worker_pid(gv->worker));
    own.again = evtimer_new(gv->daemon.base, reap, gv);
    gv->child_signal = evsignal_new(gv->daemon.base, SIGCHLD, reap, gv);
    return event_add(gv->child_signal, NULL) < 0 ? err_set(e, ERR_INTERNAL, "cannot watch for ended children") : 0;
}

void reaper_stop(gvisord_t *gv)
{
    if (gv->child_signal)
        event_free(gv->child_signal);
    if (own.again)
        event_free(own.again);
    gv->child_signal = own.again = NULL;
    free(own.pids);
    own.pids = NULL;
    own.count = own.cap = 0;
}
