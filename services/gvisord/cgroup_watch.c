/* SPDX-License-Identifier: Apache-2.0
 *
 * v1: a threshold of memory.usage_in_bytes on an eventfd (cgroup-v1/memory.rst, "Memory thresholds").
 * v2: memory.events changes when memory.high is passed; the kernel tells inotify.
 */
#include "common/mem.h"
#include "services/gvisord/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CONTROLLER_MEMORY 1

struct cgroup_watch {
    int fd;
    bool is_v2;
    struct event *event;
    void (*on_pressure)(void *arg);
    void *arg;
};

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    cgroup_watch_t *w = arg;
    char drained[4096] __attribute__((aligned(8)));
    bool is_told = false;
    while (read(fd, drained, sizeof drained) > 0)
        is_told = true;
    if (is_told)
        w->on_pressure(w->arg);
}

static char *memory_dir(const cgroups_t *c, const char *name)
{
    const char *mount = c->is_v2 ? c->mounts[0] : c->mounts[CONTROLLER_MEMORY];
    return mount ? mem_printf("%s/%s/%s", mount, c->group, name) : NULL;
}

int cgroup_watch_fd(const cgroup_watch_t *w)
{
    return w->is_v2 ? -1 : w->fd;
}

int cgroup_watch_register(const cgroups_t *c, const char *name, uint64_t budget_bytes, int pid, int fd, err_t **e)
{
    auto_free char *dir = memory_dir(c, name);
    auto_close int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    auto_close int event_fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    if (!dir || event_fd < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot get at the daemon's event descriptor");
    auto_free char *usage = mem_printf("%s/memory.usage_in_bytes", dir);
    auto_free char *control = mem_printf("%s/cgroup.event_control", dir);
    auto_close int usage_fd = open(usage, O_RDONLY | O_CLOEXEC);
    auto_close int control_fd = open(control, O_WRONLY | O_CLOEXEC);
    char line[96];
    snprintf(line, sizeof line, "%d %d %" PRIu64, event_fd, usage_fd, budget_bytes / 100 * CGROUP_PRESSURE_PERCENT);
    if (usage_fd < 0 || control_fd < 0 || write(control_fd, line, strlen(line)) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot watch the memory of %s", dir);
    return 0;
}

static int open_v2(const char *dir, err_t **e)
{
    auto_free char *events = mem_printf("%s/memory.events", dir);
    auto_close int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0 || inotify_add_watch(fd, events, IN_MODIFY) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot watch %s", events);
    return STEAL_FD(fd);
}

cgroup_watch_t *cgroup_watch_new(const cgroups_t *c, const char *name, struct event_base *base,
                                 void (*on_pressure)(void *arg), void *arg, err_t **e)
{
    auto_free char *dir = memory_dir(c, name);
    if (!dir) {
        err_set(e, ERR_INTERNAL, "there is no memory controller");
        return NULL;
    }
    int fd = c->is_v2 ? open_v2(dir, e) : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0 && !*e)
        err_set_errno(e, ERR_INTERNAL, errno, "cannot make an event descriptor");
    if (fd < 0)
        return NULL;
    cgroup_watch_t *w = mem_alloc(sizeof *w);
    w->fd = fd;
    w->is_v2 = c->is_v2;
    w->on_pressure = on_pressure;
    w->arg = arg;
    w->event = event_new(base, fd, EV_READ | EV_PERSIST, on_event, w);
    event_add(w->event, NULL);
    return w;
}

void cgroup_watch_free(cgroup_watch_t **wp)
{
    cgroup_watch_t *w = *wp;
    *wp = NULL;
    if (!w)
        return;
    event_free(w->event);
    close(w->fd);
    free(w);
}
