/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/loop_device.h"

#include "common/clock.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define ATTACH_TRIES 64 /* another process may take the free device between the question and the answer */
#define LOOP_MAJOR 7
#define POLL_MS 5

/* Containers have a static /dev: devices that the kernel adds later are missing there. */
static int device_open(int number, char *path, size_t size)
{
    snprintf(path, size, "/dev/loop%d", number);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && mknod(path, S_IFBLK | 0600, makedev(LOOP_MAJOR, (unsigned)number)) == 0)
        fd = open(path, O_RDWR | O_CLOEXEC);
    return fd;
}

static int attach(const char *file, char *path, size_t size, err_t **e)
{
    auto_close int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot open /dev/loop-control");
    auto_close int backing = open(file, O_RDWR | O_CLOEXEC);
    if (backing < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot open %s", file);
    struct loop_config config = {.fd = (uint32_t)backing, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
    snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", file);
    for (int i = 0; i < ATTACH_TRIES; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            return err_set_errno(e, ERR_INTERNAL, errno, "the kernel gives no loop device");
        int fd = device_open(number, path, size);
        if (fd < 0)
            return err_set_errno(e, ERR_INTERNAL, errno, "cannot open %s", path);
        if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
            return fd;
        int saved = errno;
        close(fd);
        if (saved != EBUSY)
            return err_set_errno(e, ERR_INTERNAL, saved, "cannot attach %s to %s", file, path);
    }
    return err_set(e, ERR_OVERLOADED, "no loop device could be had for %s", file);
}

int loop_mount(const char *file, const char *target, const char *type, const char *options, err_t **e)
{
    char device[32];
    auto_close int fd = attach(file, device, sizeof device, e);
    if (fd < 0)
        return -1;
    if (mount(device, target, type, MS_NOATIME | MS_NODEV | MS_NOSUID, options) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot mount %s (%s) at %s", file, device, target);
    return 0;
}

static bool is_attached(const char *file)
{
    DIR *d = opendir("/sys/block");
    if (!d)
        return false;
    bool is_found = false;
    for (struct dirent *de; !is_found && (de = readdir(d));) {
        if (strncmp(de->d_name, "loop", 4) != 0)
            continue;
        auto_free char *path = mem_printf("/sys/block/%s/loop/backing_file", de->d_name);
        auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
        char name[4096];
        ssize_t n = fd < 0 ? -1 : read(fd, name, sizeof name - 1);
        if (n <= 0)
            continue;
        name[n] = '\0';
        name[strcspn(name, "\n")] = '\0';
        is_found = strcmp(name, file) == 0;
    }
    closedir(d);
    return is_found;
}

int loop_wait_gone(const char *file, unsigned timeout_ms, err_t **e)
{
    uint64_t until = clock_monotonic_ms() + timeout_ms;
    while (is_attached(file)) {
        if (clock_monotonic_ms() > until)
            return err_set(e, ERR_INTERNAL, "a loop device still uses %s after its unmount", file);
        poll(NULL, 0, POLL_MS); /* the kernel frees it without telling */
    }
    return 0;
}
