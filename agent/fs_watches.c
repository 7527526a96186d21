// SPDX-License-Identifier: Apache-2.0
#include "agent/fs_watches.h"

#include "common/mem.h"

/* Index of the first row whose wd is not smaller. */
static size_t position(const fs_watches_t *w, int wd)
{
    size_t low = 0, high = w->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (w->rows[middle].wd < wd)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const fs_watches_t *w, size_t i, int wd)
{
    return i < w->count && w->rows[i].wd == wd;
}

bool fs_watches_put(fs_watches_t *w, int wd, const char *path)
{
    size_t i = position(w, wd);
    if (is_at(w, i, wd)) {
        free(w->rows[i].path);
        w->rows[i].path = mem_strdup(path);
        return true;
    }
    if (w->count == FS_WATCHES_MAX)
        return false;
    if (w->count == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 16;
        w->rows = mem_realloc(w->rows, w->cap * sizeof *w->rows);
    }
    memmove(&w->rows[i + 1], &w->rows[i], (w->count - i) * sizeof *w->rows);
    w->rows[i] = (fs_watch_t){wd, mem_strdup(path)};
    w->count++;
    return true;
}

const char *fs_watches_path(const fs_watches_t *w, int wd)
{
    size_t i = position(w, wd);
    return is_at(w, i, wd) ? w->rows[i].path : NULL;
}

void fs_watches_remove(fs_watches_t *w, int wd)
{
    size_t i = position(w, wd);
    if (!is_at(w, i, wd))
        return;
    free(w->rows[i].path);
    memmove(&w->rows[i], &w->rows[i + 1], (w->count - i - 1) * sizeof *w->rows);
    w->count--;
}

int fs_watches_below(const fs_watches_t *w, const char *path)
{
    size_t len = strlen(path);
    for (size_t i = 0; i < w->count; i++) {
        const char *p = w->rows[i].path;
        if (strncmp(p, path, len) == 0 && (p[len] == '\0' || p[len] == '/'))
            return w->rows[i].wd;
    }
    return -1;
}

void fs_watches_free(fs_watches_t *w)
{
    for (size_t i = 0; i < w->count; i++)
        free(w->rows[i].path);
    free(w->rows);
    *w = (fs_watches_t){0};
}
