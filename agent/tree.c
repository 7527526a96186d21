// SPDX-License-Identifier: Apache-2.0
#include "agent/tree.h"

#include "agent/loop.h"
#include "agent/proc_scan.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define KILL_POLL_MIN_MS 2
#define KILL_POLL_MAX_MS 50
#define CROWD 32
#define CROWD_WITHOUT_GRACE 128
#define KILL_SLICE 128  /* signals of one turn: in a crowded sandbox each takes long, and the loop has other work */
#define GROUP_LOOK 4    /* members asked for their process group */
#define OUTRUN_MS 10000 /* a crowd that KILL has not ended in this time makes processes faster than they are ended */
#define REMOVE_RETRY_MS 1000
#define GUARD_MIN_MS 500
#define GUARD_MAX_MS 2000
#define PIDS_TEXT_MAX ((size_t)512 * 1024) /* of cgroup.procs; more are taken in the next round */

struct tree {
    char name[24]; /* of its cgroup in the base */
    char tag[TREE_TAG_SIZE];
    int dir_fd; /* -1 = best effort */
    int procs_fd;
    pid_t leader;
    uint64_t leader_start; /* best effort: tells it from a later process of its number */
    bool is_killing;
    bool is_forced; /* KILL was sent: no more TERM */
    uint64_t force_at_ms;
    uint64_t outrun_at_ms;
    uint32_t poll_ms;
    uint64_t timer;
    uint64_t own_limit; /* of its cgroup, where that is what holds it back */
    bool is_purged;     /* it is ended for having grown past that */
    uint32_t guard_ms;
    uint64_t guard_timer;
    tree_gone_fn gone;
    void *arg;
};

static int base_fd = -1;
static int current_fd = -1; /* the base's pids.current */
static uint64_t limit;      /* of processes in the sandbox, 0 = none */
/* gVisor counts and limits each cgroup alone, without its children: seen at the first command. */
static enum { NESTING_UNKNOWN, NESTING_TRUE, NESTING_FLAT } nesting;
static uint32_t next_number;

static int file_write(int dir, const char *name, const char *text)
{
    auto_close int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    return n == (ssize_t)strlen(text) ? 0 : -1;
}

void trees_init(int fd)
{
    base_fd = fd;
    current_fd = fd < 0 ? -1 : openat(fd, "pids.current", O_RDONLY | O_CLOEXEC);
}

bool trees_are_sure(void)
{
    return base_fd >= 0;
}

void trees_set_pids_max(uint32_t pids_max)
{
    char text[16];
    if (base_fd < 0)
        return;
    limit = pids_max;
    snprintf(text, sizeof text, pids_max > 0 ? "%u" : "max", (unsigned)pids_max);
    (void)file_write(base_fd, "pids.max", text);
}

static int cgroup_make(tree_t *tree)
{
    snprintf(tree->name, sizeof tree->name, "c%u", (unsigned)++next_number);
    if (mkdirat(base_fd, tree->name, 0700) != 0)
        return -1;
    tree->dir_fd = openat(base_fd, tree->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    tree->procs_fd = tree->dir_fd < 0 ? -1 : openat(tree->dir_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (tree->procs_fd >= 0)
        return 0;
    int saved = errno;
    fd_close_p(&tree->dir_fd);
    (void)unlinkat(base_fd, tree->name, AT_REMOVEDIR);
    errno = saved;
    return -1;
}

static uint64_t current_read(int fd)
{
    char text[24] = "";
    uint64_t current = 0;
    ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    if (n <= 0)
        return 0;
    text[strcspn(text, "\n")] = '\0';
    return text_to_u64(text, &current) ? current : 0;
}

static uint64_t processes_now(void)
{
    struct sysinfo info;
    if (nesting == NESTING_FLAT)
        return sysinfo(&info) == 0 ? info.procs : 0;
    return current_read(current_fd);
}

static void nesting_learn(const tree_t *tree)
{
    if (nesting != NESTING_UNKNOWN || tree->dir_fd < 0)
        return;
    auto_close int fd = openat(tree->dir_fd, "pids.current", O_RDONLY | O_CLOEXEC);
    if (current_read(fd) > 0)
        nesting = current_read(current_fd) > 0 ? NESTING_TRUE : NESTING_FLAT;
}

static void own_limit_write(const tree_t *tree)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)tree->own_limit);
    (void)file_write(tree->dir_fd, "pids.max", text);
}

/* Where only its own limit holds a tree back, it gets what is left. */
static void cgroup_limit(tree_t *tree, uint64_t now)
{
    if (limit == 0 || nesting == NESTING_TRUE)
        return;
    tree->own_limit = limit - now;
    own_limit_write(tree);
}

tree_t *tree_new(void)
{
    uint8_t random[16];
    /* pids.max holds back forks, not the move of a new command into its group. */
    uint64_t now = limit > 0 ? processes_now() : 0;
    if (limit > 0 && now >= limit) {
        errno = EAGAIN;
        return NULL;
    }
    tree_t *tree = mem_alloc(sizeof *tree);
    tree->dir_fd = tree->procs_fd = -1;
    random_bytes(random, sizeof random);
    memcpy(tree->tag, TREE_TAG_NAME "=", sizeof TREE_TAG_NAME);
    hex_encode(tree->tag + sizeof TREE_TAG_NAME, random, sizeof random);
    if (base_fd >= 0 && cgroup_make(tree) < 0) {
        free(tree);
        return NULL;
    }
    if (base_fd >= 0)
        cgroup_limit(tree, now);
    return tree;
}

/* A cgroup that is not empty yet is removed later. */
static void cgroup_remove(void *arg)
{
    char *name = arg;
    if (unlinkat(base_fd, name, AT_REMOVEDIR) != 0 && errno == EBUSY)
        loop_after(REMOVE_RETRY_MS, cgroup_remove, name);
    else
        free(name);
}

void tree_free(tree_t **tree)
{
    tree_t *t = *tree;
    *tree = NULL;
    if (t == NULL)
        return;
    loop_cancel(t->timer);
    loop_cancel(t->guard_timer);
    fd_close_p(&t->procs_fd);
    fd_close_p(&t->dir_fd);
    if (t->name[0] != '\0')
        cgroup_remove(mem_strdup(t->name));
    free(t);
}

int tree_join_fd(const tree_t *tree)
{
    return tree->procs_fd;
}

const char *tree_tag(const tree_t *tree)
{
    return tree->tag;
}

/* A fork bomb is outrun this way. Not every cgroup has the file. */
static void forks_stop(const tree_t *tree)
{
    if (tree->dir_fd >= 0)
        (void)file_write(tree->dir_fd, "pids.max", "0");
}

/* Opened anew each time: cgroup v1 keeps the list that a descriptor has seen first. */
static char *procs_read(int dir)
{
    auto_close int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    size_t cap = 4096;
    char *text = mem_alloc(cap + 1);
    size_t len = 0;
    while (fd >= 0) {
        ssize_t n = read(fd, text + len, cap - len);
        if (n <= 0)
            break;
        len += (size_t)n;
        if (len == cap && cap < PIDS_TEXT_MAX) {
            cap *= 2;
            text = mem_realloc(text, cap + 1);
        }
    }
    text[len] = '\0';
    return text;
}

static size_t cgroup_each(tree_t *tree, void (*fn)(void *, pid_t), void *arg)
{
    auto_free char *text = procs_read(tree->dir_fd);
    size_t count = 0;
    for (char *at = text; *at != '\0';) {
        char *end = strchr(at, '\n');
        uint64_t pid = 0;
        if (end != NULL)
            *end = '\0';
        /* 0 would be a process outside this pid namespace, and kill(0) would be us. */
        if (text_to_u64(at, &pid) && pid > 1 && pid <= INT32_MAX) {
            fn(arg, (pid_t)pid);
            count++;
        }
        at = end != NULL ? end + 1 : at + strlen(at);
    }
    return count;
}

size_t tree_each(tree_t *tree, void (*fn)(void *, pid_t), void *arg)
{
    if (tree->procs_fd >= 0)
        return cgroup_each(tree, fn, arg);
    return proc_scan_tree(tree->leader, tree->leader_start, tree->tag, fn, arg);
}

static void ignore_pid(void *arg, pid_t pid)
{
    (void)arg;
    (void)pid;
}

size_t tree_count(tree_t *tree)
{
    return tree_each(tree, ignore_pid, NULL);
}

static void signal_one(void *arg, pid_t pid)
{
    (void)kill(pid, *(int *)arg);
}

size_t tree_signal(tree_t *tree, int sig)
{
    return tree_each(tree, signal_one, &sig);
}

struct round {
    const tree_t *tree;
    int sig;
    size_t seen;
    bool is_sent;
};

/* A group's number is its own only while one of the tree is in it. */
static void group_signal_by(void *arg, pid_t pid)
{
    struct round *r = arg;
    if (!r->is_sent && r->seen++ < GROUP_LOOK && r->tree->leader > 1 && getpgid(pid) == r->tree->leader)
        r->is_sent = kill(-r->tree->leader, r->sig) == 0;
}

/* One system call for the many that stay in the command's own group: a bomb starves us of turns. */
static size_t group_signal(tree_t *tree, int sig, bool *is_sent)
{
    struct round r = {.tree = tree, .sig = sig};
    size_t count = tree_each(tree, group_signal_by, &r);
    *is_sent = r.is_sent;
    return count;
}

static void signal_slice(void *arg, pid_t pid)
{
    struct round *r = arg;
    if (r->seen++ < KILL_SLICE)
        (void)kill(pid, r->sig);
}

static size_t force_turn(tree_t *tree, uint64_t now)
{
    struct round r = {.tree = tree, .sig = SIGKILL};
    bool is_sent = false;
    /* Again and again: what is forked while the signal is given out does not get it. */
    size_t count = group_signal(tree, SIGKILL, &is_sent);
    if (count == 0 || (is_sent && count > CROWD && now < tree->outrun_at_ms))
        return count;
    size_t left = tree_each(tree, signal_slice, &r);
    /* The last means: every process but PID 1. Other commands go too; the sandbox and its files stay. */
    if (left > CROWD && now >= tree->outrun_at_ms && getpid() == 1) {
        tree->outrun_at_ms = now + OUTRUN_MS;
        (void)kill(-1, SIGKILL);
    }
    return left;
}

/* gVisor refuses forks at pids.max only now and then, so a bomb grows on past it, slower, until the host ends the
 * sandbox. A tree that is found well above its limit is ended whole. */
static void on_guard(void *arg)
{
    tree_t *tree = arg;
    uint64_t now = loop_clock_ms();
    tree->guard_timer = 0;
    if (tree->is_killing)
        return;
    size_t count = tree_count(tree);
    if (!tree->is_purged && count > tree->own_limit + tree->own_limit / 16) {
        tree->is_purged = true;
        tree->outrun_at_ms = now + OUTRUN_MS;
        forks_stop(tree);
    }
    if (tree->is_purged)
        (void)force_turn(tree, now);
    uint32_t slower = tree->guard_ms * 2 < GUARD_MAX_MS ? tree->guard_ms * 2 : GUARD_MAX_MS;
    tree->guard_ms = count > CROWD ? GUARD_MIN_MS : slower;
    tree->guard_timer = loop_after(tree->is_purged ? KILL_POLL_MAX_MS : tree->guard_ms, on_guard, tree);
}

void tree_set_leader(tree_t *tree, pid_t pid)
{
    tree->leader = pid;
    tree->leader_start = tree->procs_fd >= 0 ? 0 : proc_start_time(pid);
    nesting_learn(tree);
    if (nesting != NESTING_FLAT || tree->own_limit == 0)
        return;
    tree->guard_ms = GUARD_MIN_MS;
    tree->guard_timer = loop_after(tree->guard_ms, on_guard, tree);
}

static void on_kill_turn(void *arg)
{
    tree_t *tree = arg;
    uint64_t now = loop_clock_ms();
    tree->timer = 0;
    if (!tree->is_forced && now >= tree->force_at_ms) {
        tree->is_forced = true;
        tree->outrun_at_ms = now + OUTRUN_MS;
        forks_stop(tree);
    }
    size_t left = tree->is_forced ? force_turn(tree, now) : tree_count(tree);
    if (left == 0) {
        tree->is_killing = false;
        tree->gone(tree->arg);
        return;
    }
    tree->poll_ms = tree->poll_ms * 2 < KILL_POLL_MAX_MS ? tree->poll_ms * 2 : KILL_POLL_MAX_MS;
    tree->timer = loop_after(tree->poll_ms, on_kill_turn, tree);
}

/* A few may still fork to end well (a shell's trap); what has grown into a crowd may not. */
static void terminate(tree_t *tree)
{
    bool is_sent;
    size_t count = tree_count(tree);
    if (count <= CROWD) {
        tree_signal(tree, SIGTERM);
        return;
    }
    forks_stop(tree);
    if (count > CROWD_WITHOUT_GRACE)
        tree->force_at_ms = loop_clock_ms();
    (void)group_signal(tree, SIGTERM, &is_sent);
}

void tree_kill(tree_t *tree, uint32_t grace_ms, tree_gone_fn gone, void *arg)
{
    uint64_t force_at = loop_clock_ms() + grace_ms;
    bool was_killing = tree->is_killing;
    tree->gone = gone;
    tree->arg = arg;
    if (!was_killing || force_at < tree->force_at_ms)
        tree->force_at_ms = force_at;
    tree->is_killing = true;
    if (!was_killing && grace_ms > 0)
        terminate(tree);
    loop_cancel(tree->timer);
    tree->poll_ms = KILL_POLL_MIN_MS;
    tree->timer = loop_after(grace_ms == 0 ? 0 : KILL_POLL_MIN_MS, on_kill_turn, tree);
}
