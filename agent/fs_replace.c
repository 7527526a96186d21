// SPDX-License-Identifier: Apache-2.0
#include "agent/fs_replace.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define LINKS_MAX 40 /* as the kernel */
#define TEMP_RANDOM 8
#define COPY_BUFFER (128 * 1024)

static int fail(const fs_replace_t *r, int errnum, err_t **e)
{
    return err_set_errno(e, ERR_NONE, errnum, "cannot write %s", r->path);
}

/* Replaces the last part of r->path by what the link there says. */
static int follow_link(fs_replace_t *r, err_t **e)
{
    char link[FS_PATH_SIZE];
    ssize_t n = readlink(r->path, link, sizeof link - 1);
    if (n < 0)
        return fail(r, errno, e);
    link[n] = '\0';
    size_t dir = link[0] == '/' ? 0 : (size_t)(strrchr(r->path, '/') - r->path) + 1;
    if (dir + (size_t)n >= sizeof r->path)
        return fail(r, ENAMETOOLONG, e);
    memcpy(r->path + dir, link, (size_t)n + 1);
    return 0;
}

/* Finds what is to be written: r->path without a link at its end, and r->old. */
static int find_target(fs_replace_t *r, err_t **e)
{
    for (int i = 0; i < LINKS_MAX; i++) {
        if (lstat(r->path, &r->old) != 0) {
            r->old.st_mode = 0;
            return errno == ENOENT ? 0 : fail(r, errno, e);
        }
        if (!S_ISLNK(r->old.st_mode))
            return 0;
        if (follow_link(r, e) != 0)
            return -1;
    }
    return fail(r, ELOOP, e);
}

static int check_target(const fs_replace_t *r, err_t **e)
{
    mode_t mode = r->old.st_mode;
    if (mode == 0 || S_ISREG(mode) || S_ISCHR(mode) || S_ISBLK(mode))
        return 0;
    return err_set(e, ERR_BAD_REQUEST, "cannot write %s: it is a %s, not a regular file", r->path, fs_type_name(mode));
}

/* Names only have to be new, and O_EXCL sees to that: one getrandom() serves many of them. */
static const uint8_t *name_bytes(void)
{
    static uint8_t pool[TEMP_RANDOM * 32];
    static size_t left;
    if (left == 0) {
        random_bytes(pool, sizeof pool);
        left = sizeof pool;
    }
    left -= TEMP_RANDOM;
    return pool + left;
}

/* Opens a new file with a random name in the directory of `beside`; -1 with errno. */
static int open_temp(fs_replace_t *r, const char *beside, mode_t mode)
{
    char name[sizeof FS_TEMP_PREFIX + 2 * TEMP_RANDOM] = FS_TEMP_PREFIX;
    hex_encode(name + sizeof FS_TEMP_PREFIX - 1, name_bytes(), TEMP_RANDOM);
    int dir = (int)(strrchr(beside, '/') - beside) + 1;
    int len = snprintf(r->temp, sizeof r->temp, "%.*s%s", dir, beside, name);
    if (len < 0 || (size_t)len >= sizeof r->temp) {
        r->temp[0] = '\0';
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = open(r->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        r->temp[0] = '\0';
    return fd;
}

static int make_temp(fs_replace_t *r, mode_t mode, err_t **e)
{
    r->fd = open_temp(r, r->path, mode);
    if (r->fd < 0 && errno == ENOENT) {
        if (fs_make_parents(r->path, e) != 0)
            return -1;
        r->fd = open_temp(r, r->path, mode);
    }
    int errnum = errno;
    if (r->fd < 0 && r->old.st_mode != 0 && (errnum == EROFS || errnum == EACCES || errnum == EPERM)) {
        r->in_place = true; /* the directory takes nothing new, the file itself may */
        r->fd = open_temp(r, "/tmp/", 0600);
    }
    return r->fd < 0 ? fail(r, errnum, e) : 0;
}

static bool is_given_away(const fs_replace_t *r)
{
    return r->old.st_mode != 0 && (r->old.st_uid != geteuid() || r->old.st_gid != getegid());
}

/* The bits that open() can give a new file at once; fchmod() costs a tenth of a small write inside gVisor. Content of
 * somebody else's file is shown to nobody before it has its owner. */
static mode_t first_mode(const fs_replace_t *r, mode_t mode)
{
    return r->in_place || is_given_away(r) ? 0600 : mode & 0777;
}

/* The new file looks like the old one. Not being allowed to give it away is no reason to refuse the content. */
static void copy_looks(const fs_replace_t *r, mode_t mode)
{
    static mode_t mask = 01000; /* the umask, once it was looked up */
    if (mask == 01000) {
        mask = umask(0);
        umask(mask);
    }
    if (is_given_away(r))
        (void)!fchown(r->fd, r->old.st_uid, r->old.st_gid);
    else if (mode == (first_mode(r, mode) & ~mask))
        return;
    (void)fchmod(r->fd, mode); /* after chown, which clears setuid bits */
}

int fs_replace_open(fs_replace_t *r, const char *path, mode_t mode, bool is_sync, err_t **e)
{
    size_t len = strlen(path);
    *r = (fs_replace_t){.fd = -1, .target_fd = -1, .is_sync = is_sync};
    if (len == 0 || len >= sizeof r->path || path[0] != '/' || path[len - 1] == '/')
        return err_set(e, ERR_BAD_REQUEST, "cannot write %s: not the path of a file", path);
    memcpy(r->path, path, len + 1);
    if (find_target(r, e) != 0 || check_target(r, e) != 0)
        return -1;
    if (r->old.st_mode != 0 && !S_ISREG(r->old.st_mode)) {
        r->in_place = r->is_device = true;
        r->fd = open(r->path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        return r->fd < 0 ? fail(r, errno, e) : 0;
    }
    if (r->old.st_mode != 0 && r->old.st_nlink > 1)
        r->in_place = true;
    if (r->old.st_mode != 0)
        mode = r->old.st_mode & 07777;
    if (make_temp(r, first_mode(r, mode), e) != 0)
        return -1;
    if (!r->in_place)
        copy_looks(r, mode);
    return 0;
}

int fs_replace_write(fs_replace_t *r, const void *bytes, size_t len, err_t **e)
{
    return fs_write_all(r->fd, bytes, len) == 0 ? 0 : fail(r, errno, e);
}

/* Makes sure that overwriting cannot run out of space half way. */
static int begin_overwrite(fs_replace_t *r, uint64_t size, err_t **e)
{
    r->target_fd = open(r->path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (r->target_fd < 0)
        return fail(r, errno, e);
    if (size > 0 && fallocate(r->target_fd, 0, 0, (off_t)size) != 0 && (errno == ENOSPC || errno == EDQUOT)) {
        int errnum = errno;
        (void)!ftruncate(r->target_fd, r->old.st_size);
        return fail(r, errnum, e);
    }
    return 0;
}

static int overwrite_slice(fs_replace_t *r, err_t **e)
{
    struct stat st;
    if (fstat(r->fd, &st) != 0)
        return fail(r, errno, e);
    if (r->target_fd < 0 && begin_overwrite(r, (uint64_t)st.st_size, e) != 0)
        return -1;
    auto_free char *buffer = mem_alloc(COPY_BUFFER);
    for (size_t moved = 0; moved < FS_SLICE_BYTES;) {
        ssize_t n = pread(r->fd, buffer, COPY_BUFFER, (off_t)r->copied);
        if (n < 0 || (n > 0 && fs_write_all(r->target_fd, buffer, (size_t)n) != 0))
            return fail(r, errno, e);
        if (n == 0)
            return ftruncate(r->target_fd, (off_t)r->copied) == 0 ? 0 : fail(r, errno, e);
        r->copied += (uint64_t)n;
        moved += (size_t)n;
    }
    return 1;
}

static void sync_parent(const fs_replace_t *r)
{
    char dir[FS_PATH_SIZE];
    size_t len = (size_t)(strrchr(r->path, '/') - r->path) + 1;
    memcpy(dir, r->path, len);
    dir[len] = '\0';
    auto_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        (void)fsync(fd);
}

static int finish_in_place(fs_replace_t *r, err_t **e)
{
    if (!r->is_device) {
        int more = overwrite_slice(r, e);
        if (more != 0)
            return more;
    }
    int fd = r->is_device ? r->fd : r->target_fd;
    if (r->is_sync && fsync(fd) != 0 && errno != EINVAL)
        return fail(r, errno, e);
    fs_replace_abort(r);
    return 0;
}

int fs_replace_finish(fs_replace_t *r, err_t **e)
{
    if (r->in_place)
        return finish_in_place(r, e);
    if (r->is_sync && fsync(r->fd) != 0)
        return fail(r, errno, e);
    if (rename(r->temp, r->path) != 0) {
        if (errno != EBUSY && errno != EXDEV)
            return fail(r, errno, e);
        r->in_place = true; /* a mount point */
        return 1;
    }
    r->temp[0] = '\0';
    if (r->is_sync)
        sync_parent(r);
    return 0; /* closed by fs_replace_abort, after the answer went out */
}

void fs_replace_abort(fs_replace_t *r)
{
    if (r->fd >= 0)
        close(STEAL_FD(r->fd));
    if (r->target_fd >= 0)
        close(STEAL_FD(r->target_fd));
    if (r->temp[0] != '\0')
        (void)unlink(r->temp);
    r->temp[0] = '\0';
}

int fs_save_open(fs_save_t *s, const char *path, mode_t mode, bool is_sync, const void *bytes, size_t len, err_t **e)
{
    s->bytes = bytes;
    s->len = len;
    s->written = 0;
    return fs_replace_open(&s->replace, path, mode, is_sync, e);
}

int fs_save_slice(fs_save_t *s, err_t **e)
{
    size_t n = s->len - s->written;
    if (n > FS_SLICE_BYTES)
        n = FS_SLICE_BYTES;
    if (n > 0 && fs_replace_write(&s->replace, s->bytes + s->written, n, e) != 0)
        return -1;
    s->written += n;
    return s->written < s->len ? 1 : fs_replace_finish(&s->replace, e);
}
