// SPDX-License-Identifier: Apache-2.0
#include "agent/machine.h"

#include "common/clock.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define CLOCK_TOLERANCE_NS 1000000 /* stepping the clock by less would only disturb timers */

/* ---- file systems ---- */

static const struct mount_row {
    const char *path;
    const char *probe; /* exists when it is mounted */
    const char *type;
    unsigned long flags;
    const char *data;
} mounts[] = {
    {"/proc", "/proc/self", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"/sys", "/sys/kernel", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL},
    {"/dev", "/dev/null", "tmpfs", MS_NOSUID, "mode=0755,size=1m"},
    {"/dev/shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
    {"/tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
    {"/run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"},
};

static const struct node_row {
    const char *path;
    unsigned major;
    unsigned minor;
} nodes[] = {
    {"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9},
};

static const struct link_row {
    const char *path;
    const char *target;
} links[] = {
    {"/dev/fd", "/proc/self/fd"},
    {"/dev/stdin", "/proc/self/fd/0"},
    {"/dev/stdout", "/proc/self/fd/1"},
    {"/dev/stderr", "/proc/self/fd/2"},
};

void machine_mount_missing(void)
{
    mode_t mask = umask(0);
    for (size_t i = 0; i < COUNT_OF(mounts); i++) {
        if (access(mounts[i].probe, F_OK) == 0)
            continue;
        (void)mkdir(mounts[i].path, 0755);
        (void)mount(mounts[i].type, mounts[i].path, mounts[i].type, mounts[i].flags, mounts[i].data);
    }
    for (size_t i = 0; i < COUNT_OF(nodes); i++)
        (void)mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor));
    for (size_t i = 0; i < COUNT_OF(links); i++)
        if (symlink(links[i].target, links[i].path) != 0 && errno == EROFS)
            break;
    umask(mask);
}

void machine_loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    auto_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) != 0 || request.ifr_flags & IFF_UP)
        return;
    request.ifr_flags |= IFF_UP;
    (void)ioctl(fd, SIOCSIFFLAGS, &request);
}

/* ---- cgroup ---- */

/* Opens the mounted root and takes the mount away from the name space: it lives as long as the descriptor. */
static int mount_detached(const char *type, const char *data)
{
    static const char *const parents[] = {"/run", "/tmp", "/dev", "/"};
    for (size_t i = 0; i < COUNT_OF(parents); i++) {
        char path[32];
        snprintf(path, sizeof path, "%s/.ew-XXXXXX", parents[i][1] != '\0' ? parents[i] : "");
        if (mkdtemp(path) == NULL)
            continue;
        int fd = -1;
        if (mount("none", path, type, MS_NOSUID | MS_NODEV | MS_NOEXEC, data) == 0) {
            fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            (void)umount2(path, MNT_DETACH);
        }
        (void)rmdir(path);
        return fd;
    }
    return -1;
}

static void text_write(int dir, const char *name, const char *text)
{
    auto_close int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, text, strlen(text)) < 0)
        return; /* the limit of processes is then the host's alone */
}

/* A directory in which making a child and reading its cgroup.procs works. */
static bool is_usable(int dir)
{
    static const char probe[] = "probe";
    if (mkdirat(dir, probe, 0700) != 0 && errno != EEXIST)
        return false;
    auto_close int child = openat(dir, probe, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    auto_close int procs = child < 0 ? -1 : openat(child, "cgroup.procs", O_RDWR | O_CLOEXEC);
    (void)unlinkat(dir, probe, AT_REMOVEDIR);
    return procs >= 0;
}

static int group_open(int root)
{
    static const char name[] = "ew";
    if (root < 0)
        return -1;
    text_write(root, "cgroup.subtree_control", "+pids"); /* v2; v1 has no such file */
    if (mkdirat(root, name, 0700) != 0 && errno != EEXIST)
        return -1;
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && !is_usable(fd))
        fd_close_p(&fd);
    return fd;
}

int machine_cgroup_open(void)
{
    auto_close int v1 = mount_detached("cgroup", "pids");
    int fd = group_open(v1);
    if (fd >= 0)
        return fd;
    auto_close int v2 = mount_detached("cgroup2", NULL);
    return group_open(v2);
}

int machine_cgroup_use(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && !is_usable(fd))
        fd_close_p(&fd);
    return fd;
}

/* ---- identity ---- */

void machine_add_entropy(const void *bytes, size_t len)
{
    auto_close int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0 && write(fd, bytes, len) < 0)
        return; /* nothing else can be done about it */
}

void machine_set_clock(uint64_t realtime_ns)
{
    uint64_t now = clock_realtime_ns();
    uint64_t gap = now > realtime_ns ? now - realtime_ns : realtime_ns - now;
    struct timespec ts = {.tv_sec = (time_t)(realtime_ns / 1000000000), .tv_nsec = (long)(realtime_ns % 1000000000)};
    if (gap > CLOCK_TOLERANCE_NS)
        (void)clock_settime(CLOCK_REALTIME, &ts);
}
