// SPDX-License-Identifier: Apache-2.0
#include "agent/walk.h"

#include "agent/fs_path.h"
#include "common/buf.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define READ_BATCH 512 /* entries read before the loop gets its turn */

/* One directory on the way down. Names stand in `names` as type byte, text, NUL; `order` holds where each begins. */
typedef struct level {
    DIR *dir;        /* while reading */
    int fd;          /* -1 = closed to save descriptors, opened again by path */
    size_t path_len; /* of this directory in walk.path */
    buf_t names;
    uint32_t *order;
    uint32_t count;
    uint32_t cap;
    uint32_t next;
} level_t;

struct walk {
    char path[FS_PATH_SIZE];
    size_t root_len;  /* where `relative` begins, with the slash */
    bool is_from_top; /* the root is "/" */
    bool may_enter;   /* the last entry is a directory nobody skipped */
    level_t *levels;
    unsigned depth; /* levels in use */
    unsigned cap;
    uint64_t passed_over;
};

static void level_free(level_t *level)
{
    if (level->dir != NULL)
        closedir(level->dir); /* closes its own descriptor */
    if (level->fd >= 0)
        close(level->fd);
    buf_free(&level->names);
    free(level->order);
}

/* Adds a level for the directory now in w->path, opened as fd (taken). */
static bool push(walk_t *w, int fd, size_t path_len)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* fdopendir takes its descriptor, and we close ours at other times */
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    if (dir == NULL) {
        if (copy >= 0)
            close(copy);
        close(fd);
        return false;
    }
    if (w->depth == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 16;
        w->levels = mem_realloc(w->levels, w->cap * sizeof *w->levels);
    }
    if (w->depth >= WALK_FDS_MAX && w->levels[w->depth - 1].fd >= 0)
        close(STEAL_FD(w->levels[w->depth - 1].fd));
    level_t *level = &w->levels[w->depth++];
    *level = (level_t){.dir = dir, .fd = fd, .path_len = path_len};
    buf_init(&level->names, WALK_NAMES_MAX);
    return true;
}

walk_t *walk_open(const char *root, err_t **e)
{
    size_t len = strlen(root);
    while (len > 1 && root[len - 1] == '/')
        len--;
    if (len >= FS_PATH_SIZE) {
        err_set(e, ERR_BAD_REQUEST, "cannot search: the path is longer than %d bytes", FS_PATH_SIZE - 1);
        return NULL;
    }
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int errnum = errno;
        if (errnum == ENOENT)
            err_set(e, ERR_NOT_FOUND, "directory not found: %s", root);
        else
            err_set_errno(e, ERR_NONE, errnum, "cannot open directory %s", root);
        return NULL;
    }
    walk_t *w = mem_alloc(sizeof *w);
    memcpy(w->path, root, len);
    w->is_from_top = len == 1;
    w->root_len = w->is_from_top ? 1 : len + 1;
    if (!push(w, fd, w->is_from_top ? 0 : len)) {
        err_set_errno(e, ERR_NONE, errno, "cannot open directory %s", root);
        walk_close(&w);
        return NULL;
    }
    return w;
}

static void add_name(level_t *level, const struct dirent *d)
{
    if (level->count == level->cap) {
        level->cap = level->cap ? level->cap * 2 : 64;
        level->order = mem_realloc(level->order, level->cap * sizeof *level->order);
    }
    size_t at = level->names.len;
    buf_append_byte(&level->names, d->d_type);
    buf_append(&level->names, d->d_name, strlen(d->d_name) + 1);
    if (buf_failed(&level->names)) {
        buf_truncate(&level->names, at);
        return;
    }
    level->order[level->count++] = (uint32_t)at;
}

static const char *name_at(const level_t *level, uint32_t i)
{
    return (const char *)level->names.data + level->order[i] + 1;
}

static int compare_names(const void *a, const void *b, void *names)
{
    const char *base = names;
    return strcmp(base + *(const uint32_t *)a + 1, base + *(const uint32_t *)b + 1);
}

static bool is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* Reads a batch; true when all entries are there, sorted. */
static bool read_level(walk_t *w, level_t *level)
{
    for (int i = 0; i < READ_BATCH; i++) {
        errno = 0;
        const struct dirent *d = readdir(level->dir);
        if (d == NULL) {
            w->passed_over += errno != 0 || buf_failed(&level->names);
            closedir(STEAL_PTR(level->dir));
            if (level->count > 1)
                qsort_r(level->order, level->count, sizeof *level->order, compare_names, level->names.data);
            return true;
        }
        if (!is_dot(d->d_name))
            add_name(level, d);
    }
    return false;
}

static int level_fd(walk_t *w, level_t *level)
{
    if (level->fd < 0) {
        w->path[level->path_len] = '\0';
        level->fd = open(level->path_len ? w->path : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    }
    return level->fd;
}

static unsigned char type_of(int dir_fd, const char *name)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return DT_UNKNOWN;
    return (unsigned char)IFTODT(st.st_mode);
}

static bool is_kernel_tree(const walk_t *w)
{
    return w->is_from_top && w->depth == 1 &&
           (strcmp(w->path, "/proc") == 0 || strcmp(w->path, "/sys") == 0 || strcmp(w->path, "/dev") == 0);
}

/* Enters the directory returned last. */
static void enter(walk_t *w)
{
    level_t *top = &w->levels[w->depth - 1];
    w->may_enter = false;
    if (is_kernel_tree(w))
        return;
    const char *name = w->path + top->path_len + 1;
    int fd = openat(top->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || !push(w, fd, strlen(w->path)))
        w->passed_over++;
}

static bool fill(walk_t *w, level_t *level, walk_entry_t *entry)
{
    uint32_t i = level->next++;
    const char *name = name_at(level, i);
    unsigned char type = (unsigned char)name[-1];
    size_t len = strlen(name);
    int fd = level_fd(w, level);
    if (fd < 0 || level->path_len + 1 + len >= sizeof w->path) {
        w->passed_over++;
        return false;
    }
    if (type == DT_UNKNOWN && (type = type_of(fd, name)) == DT_UNKNOWN)
        return false;
    w->path[level->path_len] = '/';
    memcpy(w->path + level->path_len + 1, name, len + 1);
    w->may_enter = type == DT_DIR;
    *entry = (walk_entry_t){.path = w->path,
                            .relative = w->path + w->root_len,
                            .name = w->path + level->path_len + 1,
                            .dir_fd = fd,
                            .type = type,
                            .depth = w->depth};
    return true;
}

enum walk_result walk_next(walk_t *w, walk_entry_t *entry)
{
    if (w->may_enter)
        enter(w);
    while (w->depth > 0) {
        level_t *level = &w->levels[w->depth - 1];
        if (level->dir != NULL && !read_level(w, level))
            return WALK_AGAIN;
        if (level->next == level->count) {
            level_free(level);
            w->depth--;
            continue;
        }
        if (fill(w, level, entry))
            return WALK_ENTRY;
    }
    return WALK_END;
}

void walk_skip(walk_t *w)
{
    w->may_enter = false;
}

uint64_t walk_passed_over(const walk_t *w)
{
    return w->passed_over;
}

void walk_close(walk_t **w)
{
    if (*w == NULL)
        return;
    while ((*w)->depth > 0)
        level_free(&(*w)->levels[--(*w)->depth]);
    free((*w)->levels);
    free(*w);
    *w = NULL;
}
