/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/worker.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define OLD_JOBS_WAIT_MS 60000 /* one may be writing the memory of a sandbox to disk */
#define LOCK_POLL_MS 20
#define LOCK_FILE "worker.lock"
#define CHILDREN_MAX 1024
#define DONE_PER_TURN 32

struct worker_job {
    TAILQ_ENTRY(worker_job) entry;
    worker_t *worker;
    uint64_t id;
    worker_done_fn done;
    void *arg;
    struct event *timeout;
};
TAILQ_HEAD(job_list, worker_job);

struct worker {
    int fd;
    pid_t pid;
    uint64_t next_id;
    struct event_base *base;
    struct event *event;
    struct job_list jobs;
};

/* What crosses the socket ahead of the JSON. The function's address is the same on both sides: one is a fork of the
 * other. */
typedef struct message_head {
    uint64_t id;
    worker_fn fn;
    int32_t code; /* of the reply: enum err_code */
} message_head_t;

/* ---- the worker's side ---- */

typedef struct worker_side {
    int fd;
    int lock_fd;
    struct {
        pid_t pid;
        uint64_t id;
    } children[CHILDREN_MAX];
} worker_side_t;

static void reply(int fd, uint64_t id, enum err_code code, const char *text)
{
    message_head_t head = {.id = id, .code = (int32_t)code};
    struct iovec iov[2] = {{.iov_base = &head, .iov_len = sizeof head},
                           {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    (void)sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static pid_t job_parent; /* of a job's process: the worker */

bool worker_is_orphaned(void)
{
    return job_parent != 0 && getppid() != job_parent;
}

static void run_job(worker_side_t *side, const message_head_t *head, const char *text, size_t len)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    (void)flock(side->lock_fd, LOCK_SH);
    auto_err err_t *e = NULL;
    json_error_t je;
    json_t *args = json_loadb(text, len, 0, &je), *result = json_object();
    int rc =
        args ? head->fn(args, result, &e) : err_set(&e, ERR_INTERNAL, "a job's arguments are not JSON: %s", je.text);
    auto_free char *out = rc == 0 ? json_dumps(result, JSON_COMPACT) : NULL;
    if (rc == 0)
        reply(side->fd, head->id, ERR_NONE, out ? out : "{}");
    else
        reply(side->fd, head->id, err_code(e), err_message(e));
    json_decref(args);
    json_decref(result);
}

static void start_job(worker_side_t *side, const char *bytes, size_t len)
{
    message_head_t head;
    if (len < sizeof head)
        return;
    memcpy(&head, bytes, sizeof head);
    size_t slot = 0;
    while (slot < CHILDREN_MAX && side->children[slot].pid)
        slot++;
    if (slot == CHILDREN_MAX) {
        reply(side->fd, head.id, ERR_OVERLOADED, "too many jobs at once");
        return;
    }
    pid_t self = getpid(), pid = fork();
    if (pid < 0) {
        reply(side->fd, head.id, ERR_INTERNAL, "cannot fork for a job");
    } else if (pid == 0) {
        job_parent = self;
        /* The lock must be this process's own: flock() belongs to the open file. */
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", side->lock_fd);
        side->lock_fd = open(path, O_RDWR | O_CLOEXEC);
        run_job(side, &head, bytes + sizeof head, len - sizeof head);
        _exit(0);
    } else {
        side->children[slot].pid = pid;
        side->children[slot].id = head.id;
    }
}

static void reap_jobs(worker_side_t *side)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (size_t i = 0; i < CHILDREN_MAX; i++)
            if (side->children[i].pid == pid) {
                side->children[i].pid = 0;
                if (!WIFEXITED(status))
                    reply(side->fd, side->children[i].id, ERR_INTERNAL, "the job's process crashed");
            }
}

/* Descriptors of the daemon, first of all its lock on the state directory: a job that goes on after the daemon would
 * keep the next one from starting. */
static void close_foreign(const worker_side_t *side)
{
    unsigned low = (unsigned)(side->fd < side->lock_fd ? side->fd : side->lock_fd),
             high = (unsigned)(side->fd < side->lock_fd ? side->lock_fd : side->fd);
    if (low > STDERR_FILENO + 1)
        (void)close_range(STDERR_FILENO + 1, low - 1, 0);
    if (high > low + 1)
        (void)close_range(low + 1, high - 1, 0);
    (void)close_range(high + 1, ~0U, 0);
}

static void worker_main(worker_side_t *side)
{
    close_foreign(side);
    prctl(PR_SET_NAME, "gvisord-worker");
    setpgid(0, 0); /* Ctrl-C at a terminal goes to the daemon; this ends with it */
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    signal(SIGPIPE, SIG_IGN);
    int sfd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    static char buffer[WORKER_MESSAGE_MAX];
    struct pollfd fds[2] = {{.fd = side->fd, .events = POLLIN}, {.fd = sfd, .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            _exit(1);
        if (fds[1].revents) {
            struct signalfd_siginfo info;
            while (read(sfd, &info, sizeof info) > 0)
                ;
            reap_jobs(side);
        }
        if (fds[0].revents) {
            ssize_t n = recv(side->fd, buffer, sizeof buffer, 0);
            if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
                _exit(0); /* the daemon is gone */
            if (n > 0)
                start_job(side, buffer, (size_t)n);
        }
    }
}

/* ---- the daemon's side ---- */

static int lock_open(const char *state_dir, err_t **e)
{
    auto_free char *path = mem_printf("%s/%s", state_dir, LOCK_FILE);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 ? err_set_errno(e, ERR_INTERNAL, errno, "cannot open %s", path) : fd;
}

int worker_wait_for_old(const char *state_dir, err_t **e)
{
    auto_close int fd = lock_open(state_dir, e);
    if (fd < 0)
        return -1;
    uint64_t until = clock_monotonic_ms() + OLD_JOBS_WAIT_MS;
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (clock_monotonic_ms() > until)
            return err_set(e, ERR_INTERNAL,
                           "a job of an earlier gvisord still runs in %s; find it with `fuser %s/%s` and end it",
                           state_dir, state_dir, LOCK_FILE);
        /* Another process's lock has no event to wait for with a deadline. */
        poll(NULL, 0, LOCK_POLL_MS);
    }
    return 0;
}

worker_t *worker_start(const char *state_dir, err_t **e)
{
    int pair[2];
    auto_close int lock_fd = lock_open(state_dir, e);
    if (lock_fd < 0)
        return NULL;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        err_set_errno(e, ERR_INTERNAL, errno, "cannot make the worker's socket");
        return NULL;
    }
    pid_t pid = fork();
    if (pid < 0) {
        err_set_errno(e, ERR_INTERNAL, errno, "cannot fork the worker");
        close(pair[0]);
        close(pair[1]);
        return NULL;
    }
    if (pid == 0) {
        static worker_side_t side;
        side.fd = pair[1];
        side.lock_fd = lock_fd;
        close(pair[0]);
        worker_main(&side);
        _exit(0);
    }
    close(pair[1]);
    worker_t *w = mem_alloc(sizeof *w);
    w->fd = pair[0];
    w->pid = pid;
    TAILQ_INIT(&w->jobs);
    return w;
}

static void finish(worker_job_t *job, const json_t *result, const err_t *err)
{
    TAILQ_REMOVE(&job->worker->jobs, job, entry);
    event_free(job->timeout);
    if (job->done)
        job->done(job->arg, result, err);
    free(job);
}

static void fail(worker_job_t *job, enum err_code code, const char *text)
{
    auto_err err_t *e = NULL;
    err_set(&e, code, "%s", text);
    finish(job, NULL, e);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    fail(arg, ERR_INTERNAL, "a disk or network job did not end in time");
}

static worker_job_t *job_find(worker_t *w, uint64_t id)
{
    worker_job_t *job;
    TAILQ_FOREACH(job, &w->jobs, entry)
    {
        if (job->id == id)
            return job;
    }
    return NULL;
}

static void on_message(worker_t *w, const char *bytes, size_t len)
{
    message_head_t head;
    if (len < sizeof head)
        return;
    memcpy(&head, bytes, sizeof head);
    worker_job_t *job = job_find(w, head.id);
    if (!job)
        return;
    if (head.code == ERR_NONE) {
        json_t *result = json_loadb(bytes + sizeof head, len - sizeof head, 0, NULL);
        finish(job, result, NULL);
        json_decref(result);
    } else {
        auto_free char *text = mem_strndup(bytes + sizeof head, len - sizeof head);
        fail(job, (enum err_code)head.code, text);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    worker_t *w = arg;
    static char buffer[WORKER_MESSAGE_MAX];
    for (int i = 0; i < DONE_PER_TURN; i++) {
        ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (n < 0)
            return;
        if (n == 0) {
            event_del(w->event); /* it has ended; the reaper ends the daemon */
            return;
        }
        on_message(w, buffer, (size_t)n);
    }
}

int worker_attach(worker_t *w, struct event_base *base, err_t **e)
{
    w->base = base;
    w->event = event_new(base, w->fd, EV_READ | EV_PERSIST, on_readable, w);
    if (!w->event || event_add(w->event, NULL) < 0)
        return err_set(e, ERR_INTERNAL, "cannot watch the worker");
    return 0;
}

void worker_stop(worker_t **wp)
{
    worker_t *w = *wp;
    *wp = NULL;
    if (!w)
        return;
    for (worker_job_t *job; (job = TAILQ_FIRST(&w->jobs));) {
        job->done = NULL;
        finish(job, NULL, NULL);
    }
    if (w->event)
        event_free(w->event);
    close(w->fd);
    (void)waitpid(w->pid, NULL, 0);
    free(w);
}

int worker_pid(const worker_t *w)
{
    return w->pid;
}

worker_job_t *worker_run(worker_t *w, worker_fn fn, json_t *args, worker_done_fn done, void *arg, err_t **e)
{
    message_head_t head = {.id = ++w->next_id, .fn = fn};
    auto_free char *text = json_dumps(args, JSON_COMPACT);
    json_decref(args);
    if (!text || strlen(text) + sizeof head > WORKER_MESSAGE_MAX) {
        err_set(e, ERR_INTERNAL, "a job's arguments are too long");
        return NULL;
    }
    struct iovec iov[2] = {{.iov_base = &head, .iov_len = sizeof head}, {.iov_base = text, .iov_len = strlen(text)}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    if (sendmsg(w->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        err_set_errno(e, ERR_OVERLOADED, errno, "the worker takes no job now");
        return NULL;
    }
    worker_job_t *job = mem_alloc(sizeof *job);
    job->worker = w;
    job->id = head.id;
    job->done = done;
    job->arg = arg;
    job->timeout = evtimer_new(w->base, on_timeout, job);
    struct timeval tv = {.tv_sec = WORKER_JOB_TIMEOUT_MS / 1000};
    evtimer_add(job->timeout, &tv);
    TAILQ_INSERT_TAIL(&w->jobs, job, entry);
    return job;
}

void worker_job_deadline(worker_job_t *job, unsigned timeout_ms)
{
    struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
    evtimer_add(job->timeout, &tv);
}

void worker_forget(worker_job_t **job)
{
    if (*job)
        (*job)->done = NULL;
    *job = NULL;
}
