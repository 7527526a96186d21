// SPDX-License-Identifier: Apache-2.0
/* Watching programs that run. Their end comes by pidfd: no SIGCHLD, no race with a pid used again. */
#include "common/process.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/process_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/queue.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILL_AFTER_MS 2000 /* TERM, then this long, then KILL */
#define READ_SIZE (64 * 1024)
#define READS_PER_TURN 8

struct process {
    LIST_ENTRY(process) entry; /* while it is a child that this file reaps */
    bool is_listed;
    pid_t pid;
    int pidfd;
    int fd_output; /* -1: nothing is captured, or it was closed by all writers */
    struct event *ended, *readable, *timer;
    process_done_fn done; /* NULL once cancelled */
    void *arg;
    buf_t output;
    size_t output_max;
    uint64_t started_ms;
    bool is_timed_out;
    bool is_truncated;
    bool is_done; /* `done` runs */
};

/* Of the whole daemon: who else reaps children must leave these alone. */
static LIST_HEAD(process_list, process) running = LIST_HEAD_INITIALIZER(running);

static void process_free(process_t *p)
{
    if (p->is_listed)
        LIST_REMOVE(p, entry);
    struct event *events[] = {p->ended, p->readable, p->timer};
    for (size_t i = 0; i < COUNT_OF(events); i++)
        if (events[i] != NULL)
            event_free(events[i]);
    fd_close_p(&p->pidfd);
    fd_close_p(&p->fd_output);
    buf_free(&p->output);
    free(p);
}

static void after_ms(struct event *timer, uint32_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    event_add(timer, &tv);
}

/* One read. False: nothing more now. */
static bool read_output(process_t *p)
{
    static char scratch[READ_SIZE];
    ssize_t n;
    do
        n = read(p->fd_output, scratch, sizeof scratch);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        event_del(p->readable);
        fd_close_p(&p->fd_output);
        p->fd_output = -1;
        return false;
    }
    size_t room = p->output_max - p->output.len;
    size_t keep = (size_t)n < room ? (size_t)n : room;
    buf_append(&p->output, scratch, keep);
    if (keep < (size_t)n)
        p->is_truncated = true;
    return true;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    process_t *p = arg;
    (void)fd;
    (void)what;
    for (int i = 0; i < READS_PER_TURN && p->fd_output >= 0; i++)
        if (!read_output(p))
            break;
}

/* As waitpid's status; -1 if it is not ours to reap. */
static int reap(int pidfd)
{
    siginfo_t info = {0};
    int rc;
    do
        rc = waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);
    while (rc < 0 && errno == EINTR);
    if (rc < 0 || info.si_pid == 0)
        return -1;
    if (info.si_code == CLD_EXITED)
        return W_EXITCODE(info.si_status, 0);
    return W_EXITCODE(0, info.si_status) | (info.si_code == CLD_DUMPED ? WCOREFLAG : 0);
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
    process_t *p = arg;
    (void)fd;
    (void)what;
    int status = reap(p->pidfd);
    if (p->done == NULL) {
        process_free(p);
        return;
    }
    /* What it wrote is in the pipe by now. A background child may keep the pipe open and even go on writing: do not
     * wait for it. */
    for (size_t i = 0; i <= (1024 * 1024) / READ_SIZE && p->fd_output >= 0; i++)
        if (!read_output(p))
            break;
    process_result_t result = {
        .exit_code = status < 0          ? -1
                     : WIFEXITED(status) ? WEXITSTATUS(status)
                                         : 128 + WTERMSIG(status),
        .is_timed_out = p->is_timed_out,
        .is_truncated = p->is_truncated,
        .output = buf_cstr(&p->output),
        .output_len = p->output.len,
        .duration_ms = (uint32_t)(clock_monotonic_ms() - p->started_ms),
    };
    p->is_done = true;
    p->done(p->arg, &result);
    process_free(p);
}

/* The group: what the program started itself and did not move elsewhere. */
static void kill_group(const process_t *p, int number)
{
    if (kill(-p->pid, number) < 0 && errno != ESRCH)
        log_warn("cannot send signal %d to process group %d: %s", number, (int)p->pid, strerror(errno));
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    process_t *p = arg;
    (void)fd;
    (void)what;
    kill_group(p, p->is_timed_out ? SIGKILL : SIGTERM);
    if (!p->is_timed_out)
        after_ms(p->timer, KILL_AFTER_MS);
    p->is_timed_out = true;
}

/* Opens what the child gets where the caller gave nothing. `ends` are the child's, closed by the caller. */
static int open_stdio(process_t *p, const process_options_t *o, int ends[3], err_t **e)
{
    int capture[2] = {-1, -1};
    int null_fd = -1;
    if (o->fd_stdin < 0 && (null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot open /dev/null");
    ends[0] = null_fd;
    if (o->fd_stdout >= 0 && o->fd_stderr >= 0)
        return 0;
    if (pipe2(capture, O_CLOEXEC) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot make a pipe for the output of %s", o->argv[0]);
    p->fd_output = capture[0];
    ends[1] = capture[1];
    if (fcntl(p->fd_output, F_SETFL, O_NONBLOCK) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot make a pipe non-blocking");
    return 0;
}

static int process_launch(process_t *p, struct event_base *base, const process_options_t *o, err_t **e)
{
    int ends[3] = {-1, -1, -1}; /* ours for its stdin, and for what is captured */
    if (open_stdio(p, o, ends, e) == 0)
        p->pid = process_spawn(o, o->fd_stdin >= 0 ? o->fd_stdin : ends[0], o->fd_stdout >= 0 ? o->fd_stdout : ends[1],
                               o->fd_stderr >= 0 ? o->fd_stderr : ends[1], e);
    fd_close_p(&ends[0]);
    fd_close_p(&ends[1]);
    if (p->pid < 0)
        return -1;
    p->pidfd = pidfd_open(p->pid, 0);
    p->ended = p->pidfd < 0 ? NULL : event_new(base, p->pidfd, EV_READ, on_ended, p);
    p->timer = event_new(base, -1, 0, on_timer, p);
    p->readable = p->fd_output < 0 ? NULL : event_new(base, p->fd_output, EV_READ | EV_PERSIST, on_readable, p);
    if (p->ended != NULL && p->timer != NULL && (p->fd_output < 0 || p->readable != NULL) &&
        event_add(p->ended, NULL) == 0 && (p->readable == NULL || event_add(p->readable, NULL) == 0)) {
        after_ms(p->timer, o->timeout_ms);
        LIST_INSERT_HEAD(&running, p, entry);
        p->is_listed = true;
        return 0;
    }
    err_set(e, ERR_INTERNAL, "cannot watch %s in the event loop", o->argv[0]);
    kill_group(p, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return -1;
}

process_t *process_start(struct event_base *base, const process_options_t *options, process_done_fn done, void *arg,
                         err_t **e)
{
    if (options->argv == NULL || options->argv[0] == NULL || options->timeout_ms == 0 || options->output_max == 0) {
        err_set(e, ERR_INTERNAL, "a program needs a name, a deadline and an output limit");
        return NULL;
    }
    process_t *p = mem_alloc(sizeof *p);
    p->pid = -1;
    p->pidfd = -1;
    p->fd_output = -1;
    p->done = done;
    p->arg = arg;
    p->output_max = options->output_max;
    p->started_ms = clock_monotonic_ms();
    buf_init(&p->output, options->output_max);
    if (process_launch(p, base, options, e) == 0)
        return p;
    process_free(p);
    return NULL;
}

pid_t process_pid(const process_t *p)
{
    return p->pid;
}

bool process_reaps(pid_t pid)
{
    const process_t *p;
    LIST_FOREACH(p, &running, entry)
    if (p->pid == pid)
        return true;
    return false;
}

void process_cancel(process_t **p)
{
    process_t *cancelled = *p;
    *p = NULL;
    if (cancelled == NULL || cancelled->is_done)
        return;
    cancelled->done = NULL;
    event_del(cancelled->timer);
    if (cancelled->readable != NULL)
        event_del(cancelled->readable);
    kill_group(cancelled, SIGKILL); /* on_ended reaps and frees */
}

/* ---- processes of others ---- */

struct pid_watch {
    int pidfd;
    struct event *ended;
    void (*gone)(void *arg, int wait_status);
    void *arg;
};

static void watch_on_ended(evutil_socket_t fd, short what, void *arg)
{
    pid_watch_t *w = arg;
    (void)fd;
    (void)what;
    w->gone(w->arg, reap(w->pidfd)); /* may destroy w */
}

pid_watch_t *pid_watch_new(struct event_base *base, pid_t pid, void (*gone)(void *arg, int wait_status), void *arg,
                           err_t **e)
{
    pid_watch_t *w = mem_alloc(sizeof *w);
    w->gone = gone;
    w->arg = arg;
    w->pidfd = pidfd_open(pid, 0);
    if (w->pidfd < 0) {
        int saved_errno = errno;
        err_set_errno(e, saved_errno == ESRCH ? ERR_NOT_FOUND : ERR_NONE, saved_errno, "cannot watch process %d",
                      (int)pid);
        pid_watch_destroy(&w);
        return NULL;
    }
    w->ended = event_new(base, w->pidfd, EV_READ, watch_on_ended, w);
    if (w->ended == NULL || event_add(w->ended, NULL) < 0) {
        err_set(e, ERR_INTERNAL, "cannot watch process %d in the event loop", (int)pid);
        pid_watch_destroy(&w);
    }
    return w;
}

void pid_watch_destroy(pid_watch_t **w)
{
    if (*w == NULL)
        return;
    if ((*w)->ended != NULL)
        event_free((*w)->ended);
    fd_close_p(&(*w)->pidfd);
    free(*w);
    *w = NULL;
}
