// SPDX-License-Identifier: Apache-2.0
#include "agent/spawn.h"

#include "common/mem.h"
#include "common/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a command may have; all else (SYS_ADMIN, SETPCAP, …) is PID 1's alone. Enough to install packages and serve low
 * ports. */
static const int kept_capabilities[] = {
    CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,           CAP_FSETID,     CAP_KILL,
    CAP_SETGID, CAP_SETUID,       CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT, CAP_SETFCAP,
};

enum stage {
    STAGE_NONE,
    STAGE_TREE,
    STAGE_SESSION,
    STAGE_STDIO,
    STAGE_PRIVILEGES,
    STAGE_USER,
    STAGE_WORKDIR,
    STAGE_EXEC
};

/* Shared with the vfork child, which runs in our memory until exec: it allocates nothing and only writes here. */
struct child {
    const spawn_options_t *options;
    char **candidates; /* paths to try */
    bool can_drop;
    bool sets_user;
    volatile enum stage stage;
    volatile int errnum;
};

static uint64_t bounding_drops; /* capabilities in our bounding set that children must lose */

static bool is_kept(int capability)
{
    for (size_t i = 0; i < COUNT_OF(kept_capabilities); i++)
        if (kept_capabilities[i] == capability)
            return true;
    return false;
}

void spawn_init(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    (void)signals_reset();
    (void)signal(SIGPIPE, SIG_IGN);
    umask(0); /* the agent's own files get the mode they are meant to have; commands get 022 */
    /* An inheritable capability would come back at exec of a root program in spite of the bounding set. */
    if (syscall(SYS_capget, &header, data) == 0) {
        data[0].inheritable = data[1].inheritable = 0;
        (void)syscall(SYS_capset, &header, data);
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int c = 0; c < 64; c++)
        if (!is_kept(c) && prctl(PR_CAPBSET_READ, c, 0, 0, 0) == 1)
            bounding_drops |= (uint64_t)1 << c;
}

static bool child_failed(struct child *c, enum stage stage)
{
    c->stage = stage;
    c->errnum = errno;
    return false;
}

static bool child_join(struct child *c, int fd)
{
    char text[16];
    if (fd < 0)
        return true;
    int len = snprintf(text, sizeof text, "%d", (int)getpid());
    return write(fd, text, (size_t)len) == len ? true : child_failed(c, STAGE_TREE);
}

static bool child_stdio(struct child *c)
{
    for (int i = 0; i < 3; i++) {
        int fd = c->options->fds[i];
        if (fd >= 0 && dup2(fd, i) < 0)
            return child_failed(c, STAGE_STDIO);
    }
    return true;
}

static bool child_privileges(struct child *c)
{
    for (int i = 0; c->can_drop && i < 64; i++) {
        bool is_dropped = !(bounding_drops >> i & 1) || prctl(PR_CAPBSET_DROP, i, 0, 0, 0) == 0;
        if (!is_dropped)
            return child_failed(c, STAGE_PRIVILEGES);
    }
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? true : child_failed(c, STAGE_PRIVILEGES);
}

/* Straight system calls: libc's wrappers would reach for other threads. */
static bool child_user(struct child *c)
{
    const user_t *u = c->options->user;
    if (!c->sets_user)
        return true;
    if (syscall(SYS_setgroups, u->group_count, u->groups) != 0 || syscall(SYS_setresgid, u->gid, u->gid, u->gid) != 0 ||
        syscall(SYS_setresuid, u->uid, u->uid, u->uid) != 0)
        return child_failed(c, STAGE_USER);
    return true;
}

static void child_exec(struct child *c)
{
    int last = ENOENT;
    for (char **path = c->candidates; *path != NULL; path++) {
        execve(*path, c->options->argv, c->options->env->vars);
        /* As execvp: a directory of PATH that has no such file or may not be searched does not end the search. */
        if (errno != ENOENT && errno != ENOTDIR && errno != EACCES) {
            last = errno;
            break;
        }
        if (errno == EACCES)
            last = EACCES;
    }
    errno = last;
    child_failed(c, STAGE_EXEC);
}

static __attribute__((noinline, noreturn)) void child_run(struct child *c)
{
    sigset_t none;
    if (child_join(c, tree_join_fd(c->options->tree)) && child_stdio(c) && child_privileges(c) && child_user(c)) {
        if (setsid() < 0)
            child_failed(c, STAGE_SESSION);
        else if (chdir(c->options->workdir) != 0)
            child_failed(c, STAGE_WORKDIR);
        else {
            (void)umask(022);
            (void)signal(SIGPIPE, SIG_DFL);
            sigemptyset(&none);
            (void)sigprocmask(SIG_SETMASK, &none, NULL);
            child_exec(c);
        }
    }
    _exit(127);
}

static void candidates_free(char ***candidates)
{
    for (char **path = *candidates; path != NULL && *path != NULL; path++)
        free(*path);
    free(*candidates);
    *candidates = NULL;
}

static char **candidates_of(const char *program, const environ_t *env)
{
    const char *path = environ_get(env, "PATH");
    size_t count = 1, used = 0;
    if (strchr(program, '/') != NULL || path == NULL) {
        char **one = mem_alloc_array(2, sizeof *one);
        one[0] = mem_strdup(program);
        return one;
    }
    for (const char *p = path; *p != '\0'; p++)
        count += *p == ':';
    char **list = mem_alloc_array(count + 1, sizeof *list);
    for (const char *dir = path;;) {
        size_t len = strcspn(dir, ":");
        list[used++] =
            len > 0 && len < PATH_MAX ? mem_printf("%.*s/%s", (int)len, dir, program) : mem_printf("./%s", program);
        if (dir[len] == '\0')
            return list;
        dir += len + 1;
    }
}

static int exec_error(const struct child *c, err_t **e)
{
    const char *program = c->options->argv[0];
    switch (c->errnum) {
    case ENOENT:
    case ENOTDIR:
        return err_set(e, ERR_TOOL_UNAVAILABLE,
                       "the program \"%.200s\" (or the interpreter it names) is not in this image", program);
    case E2BIG:
        return err_set(e, ERR_BAD_REQUEST, "arguments and environment of \"%.200s\" are too long for the kernel",
                       program);
    case ENOEXEC:
        return err_set(e, ERR_BAD_REQUEST, "\"%.200s\" is not a program: no known format and no #! line", program);
    default:
        return err_set_errno(e, ERR_NONE, c->errnum, "cannot run \"%.200s\"", program);
    }
}

static int child_error(const struct child *c, err_t **e)
{
    switch (c->stage) {
    case STAGE_WORKDIR:
        return err_set_errno(e, ERR_BAD_REQUEST, c->errnum, "cannot use the workdir \"%.500s\"", c->options->workdir);
    case STAGE_EXEC:
        return exec_error(c, e);
    case STAGE_USER:
        return err_set_errno(e, ERR_BAD_REQUEST, c->errnum, "cannot run as user \"%s\"", c->options->user->name);
    case STAGE_TREE:
        if (c->errnum == EAGAIN)
            return err_set(e, ERR_LIMIT_REACHED, "the workspace has as many processes as it may have");
        return err_set_errno(e, ERR_INTERNAL, c->errnum, "cannot put a process into its group");
    default:
        return err_set_errno(e, ERR_INTERNAL, c->errnum, "cannot prepare a process (stage %d)", (int)c->stage);
    }
}

/* Without CAP_SETPCAP (an ordinary process) nothing can be dropped, and there is nothing to protect. */
static bool can_drop_bounding(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    return syscall(SYS_capget, &header, data) == 0 && data[0].effective >> CAP_SETPCAP & 1;
}

static int workdir_check(const char *workdir, err_t **e)
{
    struct stat st;
    if (stat(workdir, &st) != 0)
        return err_set_errno(e, ERR_BAD_REQUEST, errno, "cannot use the workdir \"%.500s\"", workdir);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_BAD_REQUEST, "the workdir \"%.500s\" is not a directory", workdir);
    return 0;
}

pid_t spawn(const spawn_options_t *options, err_t **e)
{
    struct child child = {.options = options,
                          .can_drop = can_drop_bounding(),
                          .sets_user =
                              options->user->uid != geteuid() || options->user->gid != getegid() || geteuid() == 0};
    if (workdir_check(options->workdir, e) < 0)
        return -1;
    child.candidates = candidates_of(options->argv[0], options->env);
    pid_t pid = vfork();
    if (pid == 0)
        child_run(&child);
    int fork_errno = errno;
    candidates_free(&child.candidates);
    if (pid < 0) {
        if (fork_errno == EAGAIN)
            return err_set(e, ERR_LIMIT_REACHED, "the workspace has as many processes as it may have");
        return err_set_errno(e, ERR_LIMIT_REACHED, fork_errno, "cannot start a process");
    }
    if (child.stage == STAGE_NONE)
        return pid;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return child_error(&child, e);
}

const char *shell_find(void)
{
    static const char *const shells[] = {"/bin/bash", "/bin/sh"};
    for (size_t i = 0; i < COUNT_OF(shells); i++)
        if (access(shells[i], X_OK) == 0)
            return shells[i];
    return NULL;
}
