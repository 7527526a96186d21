// SPDX-License-Identifier: Apache-2.0
/* glob: the files (no directories) below a path whose path there matches a pattern (agent/glob_match.h), newest first,
 * then by path.
 *
 * Hidden files match like others; .git is left out unless asked for. Symbolic links are listed unless they lead to a
 * directory, and never followed. A pattern that begins with "/" is matched against the absolute path; it is searched
 * from its own literal beginning, and within `path` when that is given. Kept in memory are the newest `limit` matches
 * only, at most KEPT_BYTES_MAX of paths. */
#include "agent/call.h"
#include "agent/fs_path.h"
#include "agent/glob_match.h"
#include "agent/walk.h"
#include "common/clock.h"
#include "common/mem.h"

#include <dirent.h>
#include <fcntl.h>

#define GLOB_DEFAULT_LIMIT 1000
#define KEPT_BYTES_MAX ((size_t)16 << 20)
#define CLOCK_EVERY 64 /* entries between two looks at the clock */

typedef struct found {
    int64_t mtime_ns;
    char *path;
} found_t;

typedef struct glob_state {
    glob_pattern_t *pattern;
    walk_t *walk;
    bool is_absolute;
    bool includes_git;
    size_t limit;
    found_t *heap; /* the oldest on top */
    size_t count;
    size_t cap;
    size_t bytes;
    uint64_t total;
} glob_state_t;

/* Order of the answer: newest first, then by path. */
static int compare_found(const void *a, const void *b)
{
    const found_t *x = a, *y = b;
    if (x->mtime_ns != y->mtime_ns)
        return x->mtime_ns > y->mtime_ns ? -1 : 1;
    return strcmp(x->path, y->path);
}

static void swap(found_t *a, found_t *b)
{
    found_t t = *a;
    *a = *b;
    *b = t;
}

static void sift_up(found_t *heap, size_t i)
{
    while (i > 0 && compare_found(&heap[i], &heap[(i - 1) / 2]) > 0) {
        swap(&heap[i], &heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
}

static void sift_down(found_t *heap, size_t count)
{
    for (size_t i = 0;;) {
        size_t last = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < count; child++)
            if (compare_found(&heap[child], &heap[last]) > 0)
                last = child;
        if (last == i)
            return;
        swap(&heap[i], &heap[last]);
        i = last;
    }
}

static void drop_oldest(glob_state_t *s)
{
    s->bytes -= strlen(s->heap[0].path);
    free(s->heap[0].path);
    s->heap[0] = s->heap[--s->count];
    sift_down(s->heap, s->count);
}

static void keep(glob_state_t *s, const char *path, int64_t mtime_ns)
{
    found_t new = {mtime_ns, (char *)(uintptr_t)path};
    s->total++;
    if (s->count == s->limit && compare_found(&new, &s->heap[0]) > 0)
        return;
    if (s->count == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->heap = mem_realloc(s->heap, s->cap * sizeof *s->heap);
    }
    s->heap[s->count++] = (found_t){mtime_ns, mem_strdup(path)};
    s->bytes += strlen(path);
    sift_up(s->heap, s->count - 1);
    while (s->count > s->limit || s->bytes > KEPT_BYTES_MAX)
        drop_oldest(s);
}

static void visit(glob_state_t *s, const walk_entry_t *entry)
{
    struct stat st;
    const char *text = s->is_absolute ? entry->path + 1 : entry->relative;
    if (entry->type == DT_DIR) {
        if ((!s->includes_git && strcmp(entry->name, ".git") == 0) || !glob_may_enter(s->pattern, text))
            walk_skip(s->walk);
        return;
    }
    if (!glob_match(s->pattern, text))
        return;
    if (fstatat(entry->dir_fd, entry->name, &st, 0) != 0 &&
        fstatat(entry->dir_fd, entry->name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return; /* gone meanwhile */
    if (!S_ISDIR(st.st_mode))
        keep(s, entry->path, (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
}

static void reply(agent_call_t *call, glob_state_t *s)
{
    auto_buf buf_t list;
    buf_init(&list, 0);
    if (s->count > 1)
        qsort(s->heap, s->count, sizeof *s->heap, compare_found);
    for (size_t i = 0; i < s->count; i++)
        proto_list_add_str(&list, s->heap[i].path);
    struct glob_reply r = {
        .matches = proto_list_of((uint32_t)s->count, &list), .count = s->count, .truncated = s->total > s->count};
    r.has.matches = r.has.count = true;
    r.total = r.truncated ? s->total : 0;
    call_reply(call, &r);
}

static void glob_step(agent_call_t *call)
{
    glob_state_t *s = call_state(call);
    uint64_t until = clock_monotonic_us() + AGENT_SLICE_US;
    walk_entry_t entry;
    do {
        for (int i = 0; i < CLOCK_EVERY; i++) {
            enum walk_result result = walk_next(s->walk, &entry);
            if (result == WALK_END) {
                reply(call, s);
                return;
            }
            if (result == WALK_AGAIN)
                break;
            visit(s, &entry);
        }
    } while (clock_monotonic_us() < until);
    call_want_steps(call, true);
}

/* Where the search begins: `path`, else the literal beginning of an absolute pattern, else the workspace. */
static int choose_root(const struct glob_request *req, bool is_absolute, char *root, err_t **e)
{
    if (req->path != NULL && req->path[0] != '\0')
        return agent_path(req->path, root, FS_PATH_SIZE, e);
    if (!is_absolute)
        return agent_path(agent_workspace(), root, FS_PATH_SIZE, e);
    size_t len = glob_literal_prefix(req->pattern);
    auto_free char *prefix = mem_strndup(req->pattern, len > 0 ? len : 1);
    return agent_path(prefix, root, FS_PATH_SIZE, e);
}

static int open_search(glob_state_t *s, const struct glob_request *req, err_t **e)
{
    char root[FS_PATH_SIZE];
    s->is_absolute = req->pattern[0] == '/';
    s->includes_git = req->include_git;
    s->limit = req->limit > 0 ? req->limit : GLOB_DEFAULT_LIMIT;
    /* The slash in front of an absolute pattern stays out of the parts, but makes it a path pattern: "/x" is not "x
     * anywhere". */
    auto_free char *rooted = s->is_absolute ? mem_printf("./%s", req->pattern + 1) : NULL;
    s->pattern = glob_new(rooted ? rooted : req->pattern, e);
    if (s->pattern == NULL || choose_root(req, s->is_absolute, root, e) != 0)
        return -1;
    s->walk = walk_open(root, e);
    return s->walk ? 0 : -1;
}

static void glob_start(agent_call_t *call, const void *request)
{
    err_t *e = NULL;
    glob_state_t *s = mem_alloc(sizeof *s);
    call_set_state(call, s);
    if (open_search(s, request, &e) != 0) {
        /* The original answers a path that is not there with an empty list, and so do we: nothing matches in it. */
        if (err_code(e) == ERR_NOT_FOUND) {
            err_free(&e);
            reply(call, s);
            return;
        }
        call_fail(call, &e);
        return;
    }
    glob_step(call);
}

static void glob_destroy_call(agent_call_t *call)
{
    glob_state_t *s = call_state(call);
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->count; i++)
        free(s->heap[i].path);
    free(s->heap);
    walk_close(&s->walk);
    glob_destroy(&s->pattern);
    free(s);
}

const agent_tool_t tool_glob = {
    .verb = VERB_glob,
    .start = glob_start,
    .step = glob_step,
    .destroy = glob_destroy_call,
};
