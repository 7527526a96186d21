// SPDX-License-Identifier: Apache-2.0
#include "common/file.h"

#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_READ_STEP (64 * 1024)
#define DIR_DEPTH_MAX 256 /* one descriptor a level */

int file_read(const char *path, size_t max, buf_t *out, err_t **e)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t total = 0;
    if (fd < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot open %s", path);
    for (;;) {
        size_t want = max - total < FILE_READ_STEP ? max - total + 1 : FILE_READ_STEP;
        uint8_t *room = buf_reserve(out, want);
        if (room == NULL)
            return err_set(e, ERR_PAYLOAD_TOO_LARGE, "cannot read %s: larger than its buffer may grow", path);
        ssize_t n = read(fd, room, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(e, ERR_NONE, errno, "cannot read %s", path);
        if (n == 0)
            return 0;
        total += (size_t)n;
        if (total > max)
            return err_set(e, ERR_PAYLOAD_TOO_LARGE, "cannot read %s: larger than %zu bytes", path, max);
        buf_commit(out, (size_t)n);
    }
}

static int write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Where the directory part of `path` ends; "x" → ".", "/x" → "/". Caller frees. */
static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return mem_strdup(".");
    return slash == path ? mem_strdup("/") : mem_strndup(path, (size_t)(slash - path));
}

static int sync_dir(const char *dir)
{
    auto_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) != 0 ? -1 : 0;
}

int file_write_atomic(const char *path, const void *bytes, size_t len, unsigned mode, err_t **e)
{
    auto_free char *dir = dir_of(path);
    const char *slash = strrchr(path, '/');
    auto_free char *temp = mem_printf("%s/.%s.XXXXXX", dir, slash ? slash + 1 : path);
    auto_close int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot write %s: no temporary file in %s", path, dir);
    if (fchmod(fd, (mode_t)mode) != 0 || write_all(fd, bytes, len) != 0 || fsync(fd) != 0 || rename(temp, path) != 0) {
        int saved_errno = errno;
        unlink(temp);
        return err_set_errno(e, ERR_NONE, saved_errno, "cannot write %s", path);
    }
    if (sync_dir(dir) != 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot make %s durable: fsync of %s", path, dir);
    return 0;
}

static int make_one(const char *path, unsigned mode)
{
    struct stat st;
    if (mkdir(path, (mode_t)mode) == 0)
        return chmod(path, (mode_t)mode); /* whatever the umask is */
    if (errno != EEXIST)
        return -1;
    if (stat(path, &st) != 0)
        return -1;
    errno = ENOTDIR;
    return S_ISDIR(st.st_mode) ? 0 : -1;
}

int dir_make(const char *path, unsigned mode, err_t **e)
{
    auto_free char *part = mem_strdup(path);
    for (char *p = part + 1; *part != '\0' && *p != '\0'; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (make_one(part, mode) != 0)
            return err_set_errno(e, ERR_NONE, errno, "cannot make directory %s", part);
        *p = '/';
    }
    if (make_one(part, mode) != 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot make directory %s", path);
    return 0;
}

/* Device and mount of an open directory: bind mounts share the device, so the mount id is what tells them apart. */
struct place {
    uint64_t device;
    uint64_t mount;
};

static int place_of(int fd, struct place *place)
{
    struct statx sx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_MNT_ID, &sx) != 0)
        return -1;
    *place = (struct place){
        .device = (uint64_t)sx.stx_dev_major << 32 | sx.stx_dev_minor,
        .mount = sx.stx_mask & STATX_MNT_ID ? sx.stx_mnt_id : 0,
    };
    return 0;
}

static int remove_at(int parent, const char *name, const struct place *top, unsigned depth, const char **what);

/* Empties the directory behind `fd` (taken). */
static int empty_dir(int fd, const struct place *top, unsigned depth, const char **what)
{
    int result = 0;
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        close(fd);
        return -1;
    }
    for (struct dirent *entry; result == 0;) {
        errno = 0;
        entry = readdir(dir);
        if (entry == NULL) {
            result = errno ? -1 : 0;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = remove_at(dirfd(dir), entry->d_name, top, depth + 1, what);
    }
    int saved_errno = errno;
    closedir(dir);
    errno = saved_errno;
    return result;
}

/* `top` NULL: this is the root of the tree. */
static int remove_at(int parent, const char *name, const struct place *top, unsigned depth, const char **what)
{
    struct place here;
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM) /* POSIX says EPERM for a directory, Linux EISDIR */
        return -1;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (place_of(fd, &here) != 0) {
        close(fd);
        return -1;
    }
    if (depth > DIR_DEPTH_MAX || (top != NULL && (here.device != top->device || here.mount != top->mount))) {
        *what = depth > DIR_DEPTH_MAX ? "nested too deeply" : "something is mounted below it";
        close(fd);
        errno = EBUSY;
        return -1;
    }
    if (empty_dir(fd, top ? top : &here, depth, what) != 0)
        return -1;
    return unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -1;
}

int dir_remove(const char *path, err_t **e)
{
    const char *what = NULL;
    if (remove_at(AT_FDCWD, path, NULL, 0, &what) == 0)
        return 0;
    int saved_errno = errno;
    if (what != NULL)
        return err_set(e, ERR_CONFLICT, "cannot remove %s: %s", path, what);
    return err_set_errno(e, ERR_NONE, saved_errno, "cannot remove %s", path);
}
