// SPDX-License-Identifier: Apache-2.0
/* Goes down by openat and up by "..", which is checked against the directory's identity: so depth is not limited by
 * path length or by descriptors, and nobody can lead the walk elsewhere by renaming a directory meanwhile. One
 * directory is open at a time. */
#include "agent/fs_remove.h"

#include "agent/fs_path.h"
#include "common/clock.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define CLOCK_EVERY 32

typedef struct step_down {
    char name[256];
    dev_t dev;
    ino_t ino;
} step_down_t;

struct fs_remove {
    char *root;
    DIR *dir;           /* the directory being emptied */
    step_down_t *steps; /* from the root to it; the root's own name is r->root */
    size_t depth;
    size_t cap;
    dev_t dev;
    uint64_t removed;
};

static int fail(const fs_remove_t *r, const char *name, int errnum, err_t **e)
{
    return err_set_errno(e, ERR_NONE, errnum, "cannot remove %s (in %s, after %llu entries)", name, r->root,
                         (unsigned long long)r->removed);
}

/* Makes `fd` (taken) the directory being emptied. */
static int enter(fs_remove_t *r, int fd, err_t **e)
{
    struct stat st;
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL || fstat(fd, &st) != 0) {
        int errnum = errno;
        if (dir == NULL && fd >= 0)
            close(fd);
        if (dir != NULL)
            closedir(dir);
        return fail(r, "a directory", errnum, e);
    }
    if (r->dir != NULL)
        closedir(r->dir);
    r->dir = dir;
    if (r->depth == 0)
        r->dev = st.st_dev;
    if (st.st_dev != r->dev)
        return fail(r, r->steps[r->depth - 1].name, EBUSY, e); /* something is mounted here */
    if (r->depth > 0) {
        r->steps[r->depth - 1].dev = st.st_dev;
        r->steps[r->depth - 1].ino = st.st_ino;
    }
    return 0;
}

fs_remove_t *fs_remove_new(const char *path, err_t **e)
{
    fs_remove_t *r = mem_alloc(sizeof *r);
    r->root = mem_strdup(path);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        err_set_errno(e, ERR_NONE, errno, "cannot open directory %s", path);
    else if (enter(r, fd, e) == 0)
        return r;
    fs_remove_destroy(&r);
    return NULL;
}

static int go_down(fs_remove_t *r, const char *name, err_t **e)
{
    int fd = openat(dirfd(r->dir), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : fail(r, name, errno, e);
    if (r->depth == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 16;
        r->steps = mem_realloc(r->steps, r->cap * sizeof *r->steps);
    }
    step_down_t *step = &r->steps[r->depth++];
    *step = (step_down_t){0};
    memcpy(step->name, name, strnlen(name, sizeof step->name - 1));
    return enter(r, fd, e);
}

/* The directory is empty: back to its parent, and away with it there. */
static int go_up(fs_remove_t *r, err_t **e)
{
    struct stat st;
    step_down_t step = r->steps[r->depth - 1];
    int fd = openat(dirfd(r->dir), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r->depth--;
    if (enter(r, fd, e) != 0)
        return -1;
    if (fstatat(fd, step.name, &st, AT_SYMLINK_NOFOLLOW) != 0 || st.st_ino != step.ino || st.st_dev != step.dev)
        return err_set(e, ERR_CONFLICT, "cannot remove %s: %s was moved meanwhile", r->root, step.name);
    if (unlinkat(fd, step.name, AT_REMOVEDIR) != 0)
        return fail(r, step.name, errno, e);
    r->removed++;
    return 0;
}

static int remove_entry(fs_remove_t *r, const struct dirent *d, err_t **e)
{
    if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
        return 0;
    if (d->d_type == DT_DIR)
        return go_down(r, d->d_name, e);
    if (unlinkat(dirfd(r->dir), d->d_name, 0) == 0) {
        r->removed++;
        return 0;
    }
    if (errno == EISDIR || errno == EPERM)
        return go_down(r, d->d_name, e); /* a file system that tells no types */
    return errno == ENOENT ? 0 : fail(r, d->d_name, errno, e);
}

/* At the end of a listing: a directory may have got new entries while it was read, so it only counts as empty when
 * rmdir agrees. */
static int end_directory(fs_remove_t *r, err_t **e)
{
    if (r->depth > 0)
        return go_up(r, e) == 0 ? 1 : -1;
    if (rmdir(r->root) != 0)
        return fail(r, r->root, errno, e);
    r->removed++;
    return 0;
}

int fs_remove_slice(fs_remove_t *r, uint64_t until_us, err_t **e)
{
    do {
        for (int i = 0; i < CLOCK_EVERY; i++) {
            errno = 0;
            const struct dirent *d = readdir(r->dir);
            if (d == NULL && errno != 0)
                return fail(r, r->root, errno, e);
            int more = d ? (remove_entry(r, d, e) == 0 ? 1 : -1) : end_directory(r, e);
            if (more <= 0)
                return more;
        }
    } while (clock_monotonic_us() < until_us);
    return 1;
}

uint64_t fs_remove_count(const fs_remove_t *r)
{
    return r->removed;
}

void fs_remove_destroy(fs_remove_t **r)
{
    if (*r == NULL)
        return;
    if ((*r)->dir != NULL)
        closedir((*r)->dir);
    free((*r)->steps);
    free((*r)->root);
    free(*r);
    *r = NULL;
}
