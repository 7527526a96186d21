/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/file_copy.h"

#include "common/mem.h"
#include "services/gvisord/worker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PIECE_BYTES ((off_t)64 << 20) /* between two looks at whether anybody still waits */
#define SPARE_BYTES ((uint64_t)16 << 20)

static int copy_range(int from, int to, off_t at, off_t end, err_t **e)
{
    off_t target = at;
    while (at < end) {
        off_t piece = end - at < PIECE_BYTES ? end - at : PIECE_BYTES;
        ssize_t n = copy_file_range(from, &at, to, &target, (size_t)piece, 0);
        if (n <= 0)
            return err_set_errno(e, ERR_NONE, n < 0 ? errno : EIO, "cannot copy");
        if (worker_is_orphaned())
            return err_set(e, ERR_CANCELLED, "the daemon has ended during a copy");
    }
    return 0;
}

static int copy_data(int from, int to, err_t **e)
{
    struct stat st;
    if (fstat(from, &st) < 0 || ftruncate(to, st.st_size) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot size the copy");
    for (off_t at = 0; (at = lseek(from, at, SEEK_DATA)) >= 0;) {
        off_t end = lseek(from, at, SEEK_HOLE);
        if (end < 0)
            return err_set_errno(e, ERR_NONE, errno, "cannot find the holes");
        if (copy_range(from, to, at, end, e) < 0)
            return -1;
        at = end;
    }
    return errno == ENXIO ? 0 : err_set_errno(e, ERR_NONE, errno, "cannot read");
}

int file_copy_sparse(const char *from, const char *to, bool *is_shared, err_t **e)
{
    auto_close int source = open(from, O_RDONLY | O_CLOEXEC);
    auto_close int target = open(to, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (source < 0 || target < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot copy %s to %s", from, to);
    bool is_cloned = ioctl(target, FICLONE, source) == 0;
    if (is_shared)
        *is_shared = is_cloned;
    if (!is_cloned && copy_data(source, target, e) < 0)
        return err_wrap(e, "the copy of %s to %s failed", from, to);
    return 0;
}

int file_link_or_copy(const char *from, const char *to, err_t **e)
{
    if (link(from, to) == 0)
        return 0;
    return file_copy_sparse(from, to, NULL, e);
}

int file_sync(const char *path, err_t **e)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot make %s durable", path);
    return 0;
}

int dir_sync(const char *dir, err_t **e)
{
    DIR *d = opendir(dir);
    int rc = d ? 0 : err_set_errno(e, ERR_NONE, errno, "cannot list %s", dir);
    for (struct dirent *de; rc == 0 && (de = readdir(d));) {
        auto_free char *path = mem_printf("%s/%s", dir, de->d_name);
        if (de->d_type == DT_REG)
            rc = file_sync(path, e);
    }
    if (d)
        closedir(d);
    return rc < 0 ? -1 : file_sync(dir, e);
}

uint64_t dir_used_bytes(const char *dir)
{
    uint64_t sum = 0;
    DIR *d = opendir(dir);
    for (struct dirent *de; d && (de = readdir(d));) {
        struct stat st;
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
            fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        sum += (uint64_t)st.st_blocks * 512;
        auto_free char *below = mem_printf("%s/%s", dir, de->d_name);
        if (S_ISDIR(st.st_mode))
            sum += dir_used_bytes(below);
    }
    if (d)
        closedir(d);
    return sum;
}

int dir_require_space(const char *dir, uint64_t bytes, const char *what, err_t **e)
{
    struct statvfs fs;
    if (statvfs(dir, &fs) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot tell how much room there is in %s", dir);
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (room >= bytes + SPARE_BYTES)
        return 0;
    return err_set(e, ERR_NO_SPACE,
                   "there is no room for %s: it needs %" PRIu64 " MiB, the disk of the state directory has %" PRIu64
                   " MiB free; make room there",
                   what, (bytes + SPARE_BYTES) >> 20, room >> 20);
}

bool dir_has_reflink(const char *dir)
{
    auto_free char *from = mem_printf("%s/reflink.%d.from", dir, getpid());
    auto_free char *to = mem_printf("%s/reflink.%d.to", dir, getpid());
    auto_close int source = open(from, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    auto_close int target = open(to, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    bool is_shared = source >= 0 && target >= 0 && write(source, "x", 1) == 1 && ioctl(target, FICLONE, source) == 0;
    (void)unlink(from);
    (void)unlink(to);
    return is_shared;
}
