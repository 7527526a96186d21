// SPDX-License-Identifier: Apache-2.0
#include "agent/fs_path.h"

#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

const char *fs_type_name(mode_t mode)
{
    static const struct {
        mode_t type;
        const char *name;
    } rows[] = {
        {S_IFREG, "file"}, {S_IFDIR, "directory"}, {S_IFLNK, "symlink"}, {S_IFIFO, "fifo"}, {S_IFSOCK, "socket"}};
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if ((mode & S_IFMT) == rows[i].type)
            return rows[i].name;
    return "device";
}

/* One directory: 1 made, 0 was there, -1 failed. */
static int make_dir(const char *path, mode_t mode, err_t **e)
{
    struct stat st;
    if (mkdir(path, mode) == 0) {
        (void)chmod(path, mode); /* the umask is nobody's wish here */
        return 1;
    }
    int errnum = errno;
    if (errnum != EEXIST)
        return err_set_errno(e, ERR_NONE, errnum, "cannot make directory %s", path);
    if (stat(path, &st) != 0)
        return err_set_errno(e, ERR_BAD_REQUEST, errno, "cannot make directory %s: its name is taken", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_BAD_REQUEST, "cannot make directory %s: a %s has that name", path,
                       fs_type_name(st.st_mode));
    return 0;
}

int fs_make_dirs(const char *path, mode_t mode, bool *made, err_t **e)
{
    char part[FS_PATH_SIZE];
    size_t len = strlen(path);
    if (len >= sizeof part)
        return err_set(e, ERR_BAD_REQUEST, "cannot make directory: the path is longer than %d bytes", FS_PATH_SIZE - 1);
    int result = 0;
    for (size_t at = 1; at <= len; at++) {
        bool is_edge = at == len || path[at] == '/';
        if (!is_edge || path[at - 1] == '/')
            continue;
        memcpy(part, path, at);
        part[at] = '\0';
        result = make_dir(part, mode, e);
        if (result < 0)
            return -1;
    }
    if (made != NULL)
        *made = result == 1;
    return 0;
}

int fs_make_parents(const char *path, err_t **e)
{
    char parent[FS_PATH_SIZE];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path)
        return 0;
    size_t len = (size_t)(slash - path);
    if (len >= sizeof parent)
        return err_set(e, ERR_BAD_REQUEST, "cannot make directory: the path is longer than %d bytes", FS_PATH_SIZE - 1);
    memcpy(parent, path, len);
    parent[len] = '\0';
    return fs_make_dirs(parent, FS_DIR_MODE, NULL, e);
}

int fs_write_all(int fd, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

ssize_t fs_read_some(int fd, void *bytes, size_t len)
{
    ssize_t n;
    do
        n = read(fd, bytes, len);
    while (n < 0 && errno == EINTR);
    return n;
}

static int open_failed(const char *path, int errnum, err_t **e)
{
    struct stat st;
    if (errnum == ENOENT)
        return err_set(e, ERR_NOT_FOUND, "file not found: %s", path);
    if (errnum == ENXIO && stat(path, &st) == 0)
        return err_set(e, ERR_BAD_REQUEST, "cannot read %s: it is a %s, not a regular file", path,
                       fs_type_name(st.st_mode));
    return err_set_errno(e, ERR_NONE, errnum, "cannot open %s", path);
}

int fs_open_file(const char *path, bool allow_dir, struct stat *st, err_t **e)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return open_failed(path, errno, e);
    if (fstat(fd, st) != 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot examine %s", path);
    if (S_ISREG(st->st_mode) || (allow_dir && S_ISDIR(st->st_mode)))
        return STEAL_FD(fd);
    return err_set(e, ERR_BAD_REQUEST, "cannot read %s: it is a %s, not a regular file", path,
                   fs_type_name(st->st_mode));
}
