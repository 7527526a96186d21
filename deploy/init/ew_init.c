/* SPDX-License-Identifier: Apache-2.0
 *
 * ew-init: the first process of a container that holds a provider daemon. Sandboxes outlive their daemon, but a
 * container ends with its first process; so the daemon must not be it.
 *
 *   ew-init [--drain] [--stop-seconds N] [--] PROGRAM [ARGUMENT …]
 *
 * Runs PROGRAM and starts it again whenever it ends, after 0.1 s, doubled up to 5 s while it keeps ending at once.
 * Reaps what becomes an orphan: every sandbox when its daemon dies. SIGHUP ends the daemon and starts PROGRAM again
 * from its path: that is how a new binary is taken, sandboxes run on. SIGTERM and SIGINT end the daemon (SIGKILL after
 * N seconds, default 30), then ew-init, and with it the container and every sandbox in it; with --drain the daemon is
 * told to stop them first (SIGUSR2), so that they go on, processes and all, when the container is there again: give
 * the container's own grace period more than N seconds. SIGUSR1 and SIGUSR2 are passed on. A first start that fails
 * within a second is a mistake in the configuration: ew-init ends with the same status.
 */
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define DELAY_MIN_MS 100
#define DELAY_MAX_MS 5000
#define SETTLED_MS 10000 /* who lived that long is started again without a longer delay */
#define FIRST_MS 1000
#define STOP_SECONDS 30
#define STOP_SECONDS_MAX 3600
#define EXIT_USAGE 2
#define EXIT_NO_PROGRAM 127

typedef struct init {
    char **argv;
    pid_t pid; /* 0 = it does not run */
    uint64_t started_ms;
    uint64_t due_ms; /* when to start or, stopping, to kill; 0 = nothing is due */
    uint64_t delay_ms;
    uint64_t stop_ms;
    unsigned starts;
    bool is_stopping;
    bool is_upgrading;
    bool is_draining; /* --drain */
    int status;       /* of ew-init itself, -1 = goes on */
} init_t;

static void child_exec(const init_t *in)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    execvp(in->argv[0], in->argv);
    fprintf(stderr, "ew-init: cannot run %s: %s\n", in->argv[0], strerror(errno));
    _exit(EXIT_NO_PROGRAM);
}

static void start(init_t *in)
{
    in->due_ms = 0;
    in->started_ms = clock_monotonic_ms();
    in->starts++;
    pid_t pid = fork();
    if (pid == 0)
        child_exec(in);
    if (pid < 0) {
        log_error("cannot fork: %s; tried again", strerror(errno));
        in->due_ms = in->started_ms + DELAY_MAX_MS;
        return;
    }
    in->pid = pid;
    log_info("%s runs as process %d", in->argv[0], (int)pid);
}

static int exit_status(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void on_ended(init_t *in, int status)
{
    uint64_t now = clock_monotonic_ms(), lived = now - in->started_ms;
    int code = exit_status(status);
    in->pid = 0;
    if (in->is_stopping) {
        in->status = 0;
    } else if (in->is_upgrading) {
        in->is_upgrading = false;
        start(in);
    } else if (in->starts == 1 && lived < FIRST_MS && code != 0 && WIFEXITED(status)) {
        log_error("%s ended with status %d at its first start", in->argv[0], code);
        in->status = code;
    } else {
        in->delay_ms = lived >= SETTLED_MS || in->delay_ms == 0 ? DELAY_MIN_MS : in->delay_ms * 2;
        in->delay_ms = in->delay_ms > DELAY_MAX_MS ? DELAY_MAX_MS : in->delay_ms;
        in->due_ms = now + in->delay_ms;
        log_warn("%s ended with status %d after %llu ms; started again in %llu ms", in->argv[0], code,
                 (unsigned long long)lived, (unsigned long long)in->delay_ms);
    }
}

static void reap(init_t *in)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == in->pid)
            on_ended(in, status);
}

static void pass_on(const init_t *in, int number)
{
    if (in->pid > 0)
        kill(in->pid, number);
}

static void stop(init_t *in)
{
    if (in->is_stopping)
        return;
    log_info("stopping %s", in->argv[0]);
    in->is_stopping = true;
    in->due_ms = clock_monotonic_ms() + in->stop_ms;
    if (in->pid > 0)
        pass_on(in, in->is_draining ? SIGUSR2 : SIGTERM);
    else
        in->status = 0;
}

static void on_signal(init_t *in, int number)
{
    switch (number) {
    case SIGCHLD:
        reap(in);
        return;
    case SIGTERM:
    case SIGINT:
        stop(in);
        return;
    case SIGHUP:
        if (in->is_stopping)
            return;
        log_info("%s is replaced", in->argv[0]);
        in->is_upgrading = in->pid > 0;
        if (in->pid > 0)
            pass_on(in, SIGTERM);
        else
            start(in);
        return;
    default:
        pass_on(in, number);
    }
}

static void on_due(init_t *in)
{
    if (!in->is_stopping) {
        start(in);
        return;
    }
    log_warn("%s did not stop in time and is killed", in->argv[0]);
    in->due_ms = 0;
    pass_on(in, SIGKILL);
}

static void run(init_t *in, const sigset_t *signals)
{
    start(in);
    while (in->status < 0) {
        uint64_t now = clock_monotonic_ms();
        if (in->due_ms != 0 && in->due_ms <= now) {
            on_due(in);
            continue;
        }
        uint64_t left = in->due_ms == 0 ? 0 : in->due_ms - now;
        struct timespec wait = {.tv_sec = (time_t)(left / 1000), .tv_nsec = (long)(left % 1000) * 1000000};
        int number = in->due_ms == 0 ? sigwaitinfo(signals, NULL) : sigtimedwait(signals, NULL, &wait);
        if (number > 0)
            on_signal(in, number);
    }
}

static int parse(init_t *in, int argc, char **argv)
{
    uint64_t seconds = STOP_SECONDS;
    int at = 1;
    if (at < argc && strcmp(argv[at], "--drain") == 0) {
        in->is_draining = true;
        at++;
    }
    if (at + 1 < argc && strcmp(argv[at], "--stop-seconds") == 0) {
        if (!text_to_u64(argv[at + 1], &seconds) || seconds > STOP_SECONDS_MAX)
            return -1;
        at += 2;
    }
    if (at < argc && strcmp(argv[at], "--") == 0)
        at++;
    in->stop_ms = seconds * 1000;
    in->argv = argv + at;
    return at < argc && argv[at][0] != '-' && argv[at][0] != '\0' ? 0 : -1;
}

int main(int argc, char **argv)
{
    init_t in = {.status = -1};
    sigset_t signals;
    if (parse(&in, argc, argv) < 0) {
        fprintf(stderr, "usage: ew-init [--drain] [--stop-seconds 0…%d] [--] PROGRAM [ARGUMENT …]\n", STOP_SECONDS_MAX);
        return EXIT_USAGE;
    }
    log_open("ew-init", LOG_LEVEL_INFO);
    sigemptyset(&signals);
    const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < COUNT_OF(numbers); i++)
        sigaddset(&signals, numbers[i]);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        log_warn("cannot become a subreaper: %s", strerror(errno));
    run(&in, &signals);
    return in.status;
}
