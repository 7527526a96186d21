/* SPDX-License-Identifier: Apache-2.0 */
#include "common/file.h"
#include "common/mem.h"
#include "services/gvisord/disk_private.h"
#include "services/gvisord/file_copy.h"
#include "services/gvisord/loop_device.h"
#include "services/gvisord/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROW_TIMEOUT_MS 120000
#define COPY_TIMEOUT_MS 600000
#define BLOCK 4096

/* The file system below disk/, only if it is one of its own: freezing must never hit the host's. */
static int open_mounted(const char *dir)
{
    struct stat self, parent;
    auto_free char *disk = mem_printf("%s/disk", dir);
    auto_close int fd = open(disk, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &self) < 0 || stat(dir, &parent) < 0 || self.st_dev == parent.st_dev)
        return -1;
    return STEAL_FD(fd);
}

int disk_sync(const char *dir, err_t **e)
{
    auto_free char *disk = mem_printf("%s/disk", dir);
    auto_close int fd = open(disk, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_set_errno(e, ERR_NONE, errno, "cannot open %s", disk);
    return syncfs(fd) < 0 ? err_set_errno(e, ERR_NONE, errno, "cannot make the files in %s durable", disk) : 0;
}

int disk_freeze(const char *dir, err_t **e)
{
    auto_close int fd = open_mounted(dir);
    if (fd < 0)
        return disk_sync(dir, e);
    return ioctl(fd, FIFREEZE, 0) < 0 && errno != EBUSY
               ? err_set_errno(e, ERR_SANDBOX_FAILED, errno, "cannot freeze the disk of %s", dir)
               : 0;
}

void disk_thaw(const char *dir)
{
    auto_close int fd = open_mounted(dir);
    if (fd >= 0)
        (void)ioctl(fd, FITHAW, 0);
}

int disk_detach(const char *dir, err_t **e)
{
    auto_free char *image = mem_printf("%s/disk.img", dir);
    auto_free char *disk = mem_printf("%s/disk", dir);
    auto_free char *rootfs = mem_printf("%s/rootfs", dir);
    disk_thaw(dir);
    if (disk_unmount(rootfs, e) < 0 || disk_sync(dir, e) < 0 || disk_unmount(disk, e) < 0 ||
        loop_wait_gone(image, DISK_UNMOUNT_WAIT_MS, e) < 0)
        return -1;
    if (rmdir(rootfs) < 0 && errno != ENOENT)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot remove %s", rootfs);
    if (access(image, F_OK) == 0) {
        if (file_sync(image, e) < 0)
            return -1;
        if (rmdir(disk) < 0 && errno != ENOENT)
            return err_set_errno(e, ERR_INTERNAL, errno, "cannot remove %s", disk);
    }
    return file_sync(dir, e);
}

int disk_copy(const char *from_dir, const char *to_dir, bool *is_shared, err_t **e)
{
    auto_free char *from = mem_printf("%s/disk.img", from_dir);
    auto_free char *to = mem_printf("%s/disk.img", to_dir);
    if (access(from, F_OK) == 0)
        return file_copy_sparse(from, to, is_shared, e);
    auto_free char *tree = mem_printf("%s/disk", from_dir);
    const char *argv[] = {"cp", "-a", "--reflink=auto", "--", tree, to_dir, NULL};
    *is_shared = false;
    return worker_exec(argv, NULL, COPY_TIMEOUT_MS, e);
}

uint64_t disk_used_bytes(const char *dir)
{
    auto_free char *image = mem_printf("%s/disk.img", dir);
    auto_free char *tree = mem_printf("%s/disk", dir);
    struct stat st;
    return stat(image, &st) == 0 ? (uint64_t)st.st_blocks * 512 : dir_used_bytes(tree);
}

int disk_grow(const char *dir, uint64_t size_bytes, err_t **e)
{
    auto_free char *image = mem_printf("%s/disk.img", dir);
    uint64_t size = (size_bytes + BLOCK - 1) / BLOCK * BLOCK;
    struct stat st;
    if (stat(image, &st) < 0)
        return errno == ENOENT ? 0 : err_set_errno(e, ERR_NONE, errno, "cannot look at %s", image);
    if ((uint64_t)st.st_size == size)
        return 0;
    if ((uint64_t)st.st_size > size)
        return err_set(e, ERR_VALIDATION,
                       "the disk limit of %" PRIu64 " MiB is below the snapshot's %" PRIu64 " MiB, and a disk cannot "
                       "shrink; ask for at least that much",
                       size >> 20, (uint64_t)st.st_size >> 20);
    if (truncate(image, (off_t)size) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot make %s larger", image);
    /* After a power loss part of it is only in its journal, which resize2fs -f would not play back but destroy. */
    const char *replay[] = {"e2fsck", "-p", "-E", "journal_only", image, NULL};
    const char *grow[] = {"resize2fs", "-f", image, NULL}; /* -f: it is clean then, a check would read all of it */
    return worker_exec(replay, NULL, GROW_TIMEOUT_MS, e) < 0 ? -1 : worker_exec(grow, NULL, GROW_TIMEOUT_MS, e);
}
