// SPDX-License-Identifier: Apache-2.0
/* From the daemon to another program. The child shares our memory until it execs (vfork: a fork of a big daemon is slow
 * and doubles its commit charge), so it only makes system calls and writes nothing but its own stack. */
#include "common/mem.h"
#include "common/process_private.h"
#include "common/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <paths.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MASKED_DIR "/proc/sys/net/core"
#define FIRST_FREE_FD 3

enum step {
    STEP_GROUP,
    STEP_SIGNALS,
    STEP_CGROUP,
    STEP_NETNS,
    STEP_MOUNTS,
    STEP_MASK,
    STEP_STDIO,
    STEP_WORKDIR,
    STEP_EXEC
};

static const char *const step_names[] = {
    [STEP_GROUP] = "make a process group",
    [STEP_SIGNALS] = "reset its signals",
    [STEP_CGROUP] = "join its cgroup",
    [STEP_NETNS] = "enter its network namespace",
    [STEP_MOUNTS] = "make a private mount namespace",
    [STEP_MASK] = "mask what its network namespace shows in /proc",
    [STEP_STDIO] = "set up its standard streams",
    [STEP_WORKDIR] = "enter its working directory",
    [STEP_EXEC] = "execute it",
};

/* What a child that failed writes to its parent. */
typedef struct report {
    int step;
    int errnum;
} report_t;

typedef struct plan {
    const process_options_t *options;
    const char *path;
    char *const *argv;
    char *const *envp;
    int stdio[3]; /* all >= FIRST_FREE_FD, so that one dup2 cannot overwrite the next one's source */
    int fd_report;
} plan_t;

static int join_cgroups(const process_options_t *o)
{
    for (size_t i = 0; i < COUNT_OF(o->cgroup_procs) && o->cgroup_procs[i] != NULL; i++) {
        int fd = open(o->cgroup_procs[i], O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            return -1;
        if (write(fd, "0", 1) != 1)
            return -1; /* the child ends, its descriptors with it */
        close(fd);
    }
    return 0;
}

/* Handlers do not survive exec, but what we ignore would stay ignored, and SIGPIPE is. */
static int reset_signals(void)
{
    sigset_t none;
    if (signals_reset() < 0)
        return -1;
    sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL);
}

static int set_stdio(const plan_t *plan)
{
    for (int fd = 0; fd < FIRST_FREE_FD; fd++)
        if (dup2(plan->stdio[fd], fd) < 0)
            return -1;
    /* Ours all have CLOEXEC already; this is for what a library opened without. */
    return close_range(FIRST_FREE_FD, UINT_MAX, CLOSE_RANGE_CLOEXEC) < 0 && errno != ENOSYS ? -1 : 0;
}

/* The table is per network namespace: masking it before setns would mask another one. The mounts stay slaves of the
 * host's, so that what the host unmounts is not held here. */
static int mask_net_core(void)
{
    return mount("tmpfs", MASKED_DIR, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=0555");
}

static int private_mounts(void)
{
    return unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ? -1 : 0;
}

/* Returns the step that failed, with errno. */
static enum step child_prepare_and_exec(const plan_t *plan)
{
    const process_options_t *o = plan->options;
    if (setpgid(0, 0) < 0)
        return STEP_GROUP;
    if (join_cgroups(o) < 0)
        return STEP_CGROUP;
    if (o->netns_fd >= 0 && setns(o->netns_fd, CLONE_NEWNET) < 0)
        return STEP_NETNS;
    if (o->mask_proc_sys_net_core && private_mounts() < 0)
        return STEP_MOUNTS;
    if (o->mask_proc_sys_net_core && mask_net_core() < 0)
        return STEP_MASK;
    if (o->workdir != NULL && chdir(o->workdir) < 0)
        return STEP_WORKDIR;
    if (set_stdio(plan) < 0)
        return STEP_STDIO;
    if (reset_signals() < 0)
        return STEP_SIGNALS;
    execve(plan->path, plan->argv, plan->envp);
    return STEP_EXEC;
}

static _Noreturn void child_main(const plan_t *plan)
{
    enum step step = child_prepare_and_exec(plan);
    report_t report = {.step = (int)step, .errnum = errno};
    ssize_t ignored = write(plan->fd_report, &report, sizeof report);
    (void)ignored;
    _exit(127);
}

/* Alone in its function: what lives in registers across vfork is lost. */
static __attribute__((noinline)) pid_t fork_child(const plan_t *plan)
{
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old); /* no handler of ours may run in the child */
    pid_t pid = vfork();
    if (pid == 0)
        child_main(plan);
    int saved_errno = errno;
    sigprocmask(SIG_SETMASK, &old, NULL);
    errno = saved_errno;
    return pid;
}

/* NULL if no directory of PATH has it. A name with a slash is taken as it is. */
static char *find_program(const char *name)
{
    const char *path = getenv("PATH");
    if (strchr(name, '/') != NULL)
        return mem_strdup(name);
    auto_free char *copy = mem_strdup(path != NULL && path[0] != '\0' ? path : _PATH_DEFPATH);
    char *rest = copy;
    for (char *dir = strsep(&rest, ":"); dir != NULL; dir = strsep(&rest, ":")) {
        if (dir[0] != '/')
            continue; /* never the working directory */
        char *candidate = mem_printf("%s/%s", dir, name);
        if (access(candidate, X_OK) == 0)
            return candidate;
        free(candidate);
    }
    return NULL;
}

static int collect_failure(pid_t pid, int fd_report, const char *program, err_t **e)
{
    report_t report = {0};
    ssize_t n;
    do
        n = read(fd_report, &report, sizeof report);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return 0; /* closed by exec */
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    if (n != sizeof report || report.step < 0 || report.step >= (int)COUNT_OF(step_names))
        return err_set(e, ERR_INTERNAL, "cannot start %s: its child ended before it ran", program);
    return err_set_errno(e, ERR_NONE, report.errnum, "cannot start %s: cannot %s", program, step_names[report.step]);
}

static int lift_stdio(plan_t *plan, const int fds[3], const char *program, err_t **e)
{
    for (size_t i = 0; i < COUNT_OF(plan->stdio); i++) {
        plan->stdio[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
        if (plan->stdio[i] < 0)
            return err_set_errno(e, ERR_INTERNAL, errno, "cannot start %s: bad standard stream %zu", program, i);
    }
    return 0;
}

pid_t process_spawn(const process_options_t *options, int fd_stdin, int fd_stdout, int fd_stderr, err_t **e)
{
    const char *name = options->argv[0];
    const int fds[3] = {fd_stdin, fd_stdout, fd_stderr};
    int reports[2] = {-1, -1};
    pid_t pid = -1;
    plan_t plan = {
        .options = options,
        .argv = (char *const *)(uintptr_t)options->argv, /* execve's missing const is historical */
        .envp = options->env != NULL ? (char *const *)(uintptr_t)options->env : environ,
        .stdio = {-1, -1, -1},
    };
    auto_free char *path = find_program(name);
    if (path == NULL) {
        err_set(e, ERR_NOT_FOUND, "cannot start %s: it is in no directory of PATH; install it", name);
        return -1;
    }
    plan.path = path;
    if (lift_stdio(&plan, fds, name, e) == 0) {
        if (pipe2(reports, O_CLOEXEC) < 0) {
            err_set_errno(e, ERR_INTERNAL, errno, "cannot start %s", name);
        } else {
            /* Not among 0..2, where set_stdio would close it. */
            plan.fd_report = fcntl(reports[1], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
            pid = plan.fd_report < 0 ? -1 : fork_child(&plan);
            if (pid < 0)
                err_set_errno(e, ERR_OVERLOADED, errno, "cannot start %s", name);
            fd_close_p(&plan.fd_report);
            fd_close_p(&reports[1]);
            if (pid > 0 && collect_failure(pid, reports[0], name, e) < 0)
                pid = -1;
            fd_close_p(&reports[0]);
        }
    }
    for (size_t i = 0; i < COUNT_OF(plan.stdio); i++)
        fd_close_p(&plan.stdio[i]);
    return pid;
}
