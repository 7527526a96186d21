// SPDX-License-Identifier: Apache-2.0
#include "agent/proc.h"

#include "agent/call.h"
#include "agent/loop.h"
#include "agent/proc_io.h"
#include "agent/signal_names.h"
#include "agent/spawn.h"
#include "common/clock.h"
#include "common/mem.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define REAP_TURN 64 /* orphans of a fork bomb come faster than they can be reaped: other work gets its turn */

static proc_t *procs; /* oldest first */
static proc_t **procs_end = &procs;
static uint32_t last_id;
static bool has_garbage;
static void (*listed_end)(proc_t *proc);

void procs_init(void (*on_listed_end)(proc_t *proc))
{
    listed_end = on_listed_end;
}

proc_t *procs_first(void)
{
    return procs;
}

proc_t *proc_find(uint32_t process_id)
{
    for (proc_t *p = procs; p != NULL; p = p->next)
        if (p->is_listed && p->id == process_id)
            return p;
    return NULL;
}

bool proc_is_running(const proc_t *proc)
{
    return !proc->is_ended;
}

int64_t proc_exit_code(const proc_t *proc)
{
    if (proc->is_timed_out)
        return -1;
    if (!proc->is_reaped)
        return 0;
    return WIFSIGNALED(proc->wait_status) ? 128 + WTERMSIG(proc->wait_status) : WEXITSTATUS(proc->wait_status);
}

const char *proc_signal_name(const proc_t *proc)
{
    return proc->is_reaped && WIFSIGNALED(proc->wait_status) ? signal_name(WTERMSIG(proc->wait_status)) : NULL;
}

uint64_t proc_duration_us(const proc_t *proc)
{
    return (proc->ended_us ? proc->ended_us : loop_clock_us()) - proc->started_us;
}

/* ---- observers ---- */

void proc_observe(proc_t *proc, proc_observer_t *observer, proc_fn fn, void *arg)
{
    proc_observer_t **end = &proc->observers;
    *observer = (proc_observer_t){.proc = proc, .fn = fn, .arg = arg};
    while (*end != NULL)
        end = &(*end)->next;
    *end = observer;
}

void proc_unobserve(proc_observer_t *observer)
{
    proc_t *proc = observer->proc;
    if (proc == NULL)
        return;
    if (proc->notify_next == observer)
        proc->notify_next = observer->next;
    proc_observer_t **at = &proc->observers;
    while (*at != NULL && *at != observer)
        at = &(*at)->next;
    if (*at != NULL)
        *at = observer->next;
    observer->proc = NULL;
}

void proc_notify(proc_t *proc, enum proc_event event)
{
    for (proc_observer_t *o = proc->observers; o != NULL; o = proc->notify_next) {
        proc->notify_next = o->next;
        o->fn(o->arg, proc, event);
    }
    proc->notify_next = NULL;
}

/* ---- life ---- */

static void proc_free(proc_t *proc)
{
    loop_cancel(proc->timer);
    proc_io_close(proc);
    tree_free(&proc->tree);
    output_free(&proc->out[0]);
    output_free(&proc->out[1]);
    free(proc->command);
    free(proc->tag);
    free(proc);
}

static void garbage_mark(proc_t *proc)
{
    if (!proc->is_listed && !proc->is_owned && proc->is_ended)
        proc->is_garbage = has_garbage = true;
}

void procs_turn(void)
{
    if (!has_garbage)
        return;
    has_garbage = false;
    for (proc_t **at = &procs; *at != NULL;) {
        proc_t *proc = *at;
        if (!proc->is_garbage) {
            at = &proc->next;
            continue;
        }
        *at = proc->next;
        proc_free(proc);
    }
    procs_end = &procs;
    while (*procs_end != NULL)
        procs_end = &(*procs_end)->next;
}

/* Forgets the oldest ended ones beyond the limits. */
static void listed_trim(void)
{
    size_t count = 0, bytes = 0;
    for (proc_t *p = procs; p != NULL; p = p->next) {
        if (p->is_listed && p->is_ended && !p->is_garbage) {
            count++;
            bytes += p->out[0].ring_cap + p->out[1].ring_cap;
        }
    }
    for (proc_t *p = procs; p != NULL && (count > PROC_LISTED_ENDED_MAX || bytes > PROC_ENDED_RING_BYTES);
         p = p->next) {
        /* One that a call is waiting for is not forgotten under its hands. */
        if (!p->is_listed || !p->is_ended || p->is_owned || p->observers != NULL || p->is_garbage)
            continue;
        count--;
        bytes -= p->out[0].ring_cap + p->out[1].ring_cap;
        p->is_listed = false;
        garbage_mark(p);
    }
}

static void proc_end(proc_t *proc)
{
    if (proc->is_ended)
        return;
    proc->is_ended = true;
    if (proc->ended_us == 0)
        proc->ended_us = loop_clock_us();
    loop_cancel(proc->timer);
    proc->timer = 0;
    proc_io_drain(proc);
    proc_io_close(proc);
    tree_free(&proc->tree);
    proc_notify(proc, PROC_ENDED);
    if (proc->is_listed) {
        listed_end(proc);
        listed_trim();
    }
    garbage_mark(proc);
}

static void proc_check_end(proc_t *proc)
{
    if (proc->is_exited && !proc->is_ended && tree_count(proc->tree) == 0)
        proc_end(proc);
}

static void proc_exit(proc_t *proc, int wait_status)
{
    proc->is_reaped = true;
    proc->wait_status = wait_status;
    proc_io_drain(proc);
    proc->is_exited = true;
    /* Whether anything is left is known before anyone asks. */
    proc->has_left = tree_count(proc->tree) > 0;
    proc->ended_us = loop_clock_us();
    proc_notify(proc, PROC_EXITED);
    if (proc->has_left)
        proc->ended_us = 0;
    else
        proc_end(proc);
}

static void proc_reaped(pid_t pid, int status)
{
    for (proc_t *p = procs; p != NULL; p = p->next) {
        if (p->pid == pid && !p->is_reaped) {
            proc_exit(p, status);
            return;
        }
    }
}

bool procs_reap(void)
{
    int status;
    pid_t pid = 0;
    bool is_any = false;
    for (int turn = 0; turn < REAP_TURN && (pid = waitpid(-1, &status, WNOHANG)) > 0; turn++) {
        is_any = true;
        proc_reaped(pid, status);
    }
    for (proc_t *p = procs; is_any && p != NULL; p = p->next)
        proc_check_end(p);
    return pid > 0;
}

static void on_tree_gone(void *arg)
{
    proc_t *proc = arg;
    /* Its end may be known before SIGCHLD was handled. */
    int status;
    if (!proc->is_reaped && waitpid(proc->pid, &status, WNOHANG) == proc->pid)
        proc_exit(proc, status);
    proc_check_end(proc);
}

void proc_kill(proc_t *proc, bool is_timeout)
{
    if (proc->is_ended)
        return;
    proc->is_timed_out = proc->is_timed_out || is_timeout;
    tree_kill(proc->tree, TREE_GRACE_MS, on_tree_gone, proc);
}

void proc_kill_now(proc_t *proc)
{
    if (!proc->is_ended)
        tree_kill(proc->tree, 0, on_tree_gone, proc);
}

static void on_timeout(void *arg)
{
    proc_t *proc = arg;
    proc->timer = 0;
    proc_kill(proc, true);
}

void proc_release(proc_t *proc)
{
    proc->is_owned = false;
    if (!proc->is_listed && !proc->is_ended)
        proc_kill(proc, false);
    garbage_mark(proc);
}

static size_t listed_running(void)
{
    size_t count = 0;
    for (proc_t *p = procs; p != NULL; p = p->next)
        count += p->is_listed && !p->is_ended;
    return count;
}

int proc_list_it(proc_t *proc, err_t **e)
{
    if (listed_running() >= PROC_LISTED_RUNNING_MAX)
        return err_set(e, ERR_LIMIT_REACHED, "%d background processes run already", PROC_LISTED_RUNNING_MAX);
    proc->is_listed = true;
    proc->id = ++last_id;
    return 0;
}

void procs_kill_all(void)
{
    for (proc_t *p = procs; p != NULL; p = p->next)
        proc_kill_now(p);
}

bool procs_are_ended(void)
{
    for (proc_t *p = procs; p != NULL; p = p->next)
        if (!p->is_ended)
            return false;
    return true;
}

/* ---- start ---- */

static int environ_fill(environ_t *env, const proc_options_t *o, const user_t *user, const tree_t *tree, err_t **e)
{
    environ_init(env, user);
    if (!trees_are_sure() && environ_put_var(env, tree_tag(tree), e) < 0)
        return -1;
    if (o->env != NULL && environ_put_map(env, o->env, e) < 0)
        return -1;
    for (const char *const *var = o->env_vars; var != NULL && *var != NULL; var++)
        if (environ_put_var(env, *var, e) < 0)
            return -1;
    return 0;
}

static int proc_spawn(proc_t *proc, const proc_options_t *o, err_t **e)
{
    char workdir[PATH_MAX];
    user_t user;
    environ_t env = {0};
    int child_fds[3] = {-1, -1, -1};
    int rc = -1;
    proc->tree = tree_new();
    if (proc->tree == NULL && errno == EAGAIN)
        return err_set(e, ERR_LIMIT_REACHED, "the workspace has as many processes as it may have");
    if (proc->tree == NULL)
        return err_set_errno(e, ERR_LIMIT_REACHED, errno, "cannot make a process group");
    if (agent_path(o->workdir != NULL ? o->workdir : "", workdir, sizeof workdir, e) < 0 ||
        user_lookup(o->user, &user, e) < 0)
        return -1;
    if (environ_fill(&env, o, &user, proc->tree, e) == 0 &&
        proc_io_open(proc, o->has_stdin || o->input != NULL, child_fds, e) == 0) {
        spawn_options_t spawn_options = {
            .argv = o->argv,
            .env = &env,
            .workdir = workdir,
            .user = &user,
            .tree = proc->tree,
            .fds = {child_fds[0], child_fds[1], child_fds[2]},
        };
        proc->started_us = loop_clock_us();
        proc->pid = spawn(&spawn_options, e);
        rc = proc->pid < 0 ? -1 : 0;
    }
    for (int i = 0; i < 3; i++)
        fd_close_p(&child_fds[i]);
    environ_free(&env);
    return rc;
}

proc_t *proc_start(const proc_options_t *o, err_t **e)
{
    proc_t *proc = mem_alloc(sizeof *proc);
    proc->in_fd = proc->out_fds[0] = proc->out_fds[1] = -1;
    for (int i = 0; i < 2; i++)
        output_init(&proc->out[i], o->head_max[i], o->has_ring ? PROC_RING_MAX : 0);
    if (proc_spawn(proc, o, e) < 0) {
        proc_free(proc);
        return NULL;
    }
    tree_set_leader(proc->tree, proc->pid);
    proc->is_owned = true;
    proc->command = mem_strndup(o->command, strnlen(o->command, PROC_COMMAND_MAX));
    proc->tag = o->tag != NULL ? mem_strdup(o->tag) : NULL;
    proc->started_at_ms = clock_realtime_ms();
    if (o->timeout_ms > 0)
        proc->timer = loop_after((uint32_t)(o->timeout_ms < UINT32_MAX ? o->timeout_ms : UINT32_MAX), on_timeout, proc);
    *procs_end = proc;
    procs_end = &proc->next;
    proc_io_begin(proc, o->input, o->input_len, !o->has_stdin);
    return proc;
}
