// SPDX-License-Identifier: Apache-2.0
/* grep: lines that match a regular expression, in a file or in all text files of a tree, in path order (each directory
 * sorted by name).
 *
 * The expression sees one line at a time without its "\n". Files with a NUL byte are binary: skipped and counted. .git
 * is left out unless asked for; links below the path are not followed. `include` is a glob (agent/glob_match.h) on the
 * name, or on the path below the searched one when it has a slash. A line longer than LINE_BYTES_MAX is searched in
 * pieces of that size. */
#include "agent/call.h"
#include "agent/fs_path.h"
#include "agent/glob_match.h"
#include "agent/lines.h"
#include "agent/tool_grep_search.h"
#include "agent/walk.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define GREP_DEFAULT_LIMIT 1000
#define REPLY_BYTES_MAX ((size_t)8 << 20)
#define LINE_SHOWN_MAX 2000
#define BLOCK_FIRST ((size_t)256 * 1024)
#define LINE_BYTES_MAX ((size_t)16 << 20)

typedef struct grep_state {
    grep_search_t *search;
    glob_pattern_t *include;
    walk_t *walk; /* NULL: one file */
    bool includes_git;
    bool is_kernel_tree; /* files of /proc and /sys end where read() says 0, and nowhere before */
    uint32_t limit;

    /* the file being searched */
    int fd;
    char *block;
    size_t cap;
    size_t len;     /* bytes in block */
    size_t whole;   /* of which whole lines (all at the end of the file) */
    size_t at;      /* searched so far; start of a line */
    size_t counted; /* lines up to here are in `line` */
    uint64_t line;
    bool is_end; /* of the file */
    size_t mark; /* in matches: where this file's begin */
    uint32_t mark_count;
    char path[FS_PATH_SIZE];

    buf_t matches;
    uint32_t count;
    uint64_t files;
    uint64_t binary;
} grep_state_t;

enum progress { GO_ON, FILE_DONE, FULL, FAILED };

static void reply(agent_call_t *call, const grep_state_t *s, bool is_cut)
{
    struct grep_reply r = {.matches = proto_list_of(s->count, &s->matches),
                           .count = s->count,
                           .truncated = is_cut,
                           .files_searched = s->files,
                           .binary_files_skipped = s->binary};
    r.has.matches = r.has.count = r.has.files_searched = true;
    call_reply(call, &r);
}

/* ---- one file ---- */

static void begin_file(grep_state_t *s, int fd, const char *path)
{
    s->fd = fd;
    s->len = s->whole = s->at = s->counted = 0;
    s->line = 1;
    s->is_end = false;
    s->mark = s->matches.len;
    s->mark_count = s->count;
    s->files++;
    memcpy(s->path, path, strlen(path) + 1);
    if (s->block == NULL) {
        s->cap = BLOCK_FIRST;
        s->block = mem_alloc(s->cap);
    }
}

static enum progress end_file(grep_state_t *s)
{
    close(STEAL_FD(s->fd));
    return FILE_DONE;
}

/* A NUL: what was found in this file so far does not count. */
static enum progress end_binary(grep_state_t *s)
{
    buf_truncate(&s->matches, s->mark);
    s->count = s->mark_count;
    s->files--;
    s->binary++;
    return end_file(s);
}

/* Drops what was searched, makes room for the rest of a line and reads once. */
static enum progress fill(grep_state_t *s)
{
    s->line += lines_count_newlines(s->block + s->counted, s->at - s->counted);
    s->len -= s->at;
    memmove(s->block, s->block + s->at, s->len);
    s->at = s->counted = 0;
    if (s->len == s->cap && s->cap < LINE_BYTES_MAX) {
        s->cap *= 2;
        s->block = mem_realloc(s->block, s->cap);
    }
    size_t room = s->cap - s->len;
    ssize_t n = room > 0 ? fs_read_some(s->fd, s->block + s->len, room) : 0;
    if (n < 0) /* vanished, forbidden, a file system's own error: the search goes on without it */
        return end_file(s);
    if (memchr(s->block + s->len, 0, (size_t)n) != NULL)
        return end_binary(s);
    s->len += (size_t)n;
    s->is_end = room > 0 && (n == 0 || ((size_t)n < room && !s->is_kernel_tree));
    const char *last = s->is_end ? NULL : memrchr(s->block, '\n', s->len);
    s->whole = last ? (size_t)(last - s->block) + 1 : s->is_end || s->len == LINE_BYTES_MAX ? s->len : 0;
    return GO_ON;
}

static enum progress add_match(grep_state_t *s, size_t line_end, err_t **e)
{
    char shown[LINE_SHOWN_MAX + 1];
    size_t len = line_end - s->at;
    if (s->count == s->limit || s->matches.len > REPLY_BYTES_MAX)
        return FULL;
    s->line += lines_count_newlines(s->block + s->counted, s->at - s->counted);
    s->counted = s->at;
    if (len > LINE_SHOWN_MAX)
        len = utf8_cut(s->block + s->at, len, LINE_SHOWN_MAX);
    memcpy(shown, s->block + s->at, len);
    shown[len] = '\0';
    struct grep_match m = {.file_path = s->path, .line_number = s->line, .line = shown};
    s->count++;
    s->at = line_end + 1 < s->whole ? line_end + 1 : s->whole;
    return proto_list_add_msg(&s->matches, MSG_grep_match, &m, e) == 0 ? GO_ON : FAILED;
}

static enum progress too_hard(const grep_state_t *s, err_t **e)
{
    uint64_t line = s->line + lines_count_newlines(s->block + s->counted, s->at - s->counted);
    err_set(e, ERR_BAD_REQUEST,
            "the pattern needs too much backtracking on %s line %llu; avoid nested repetitions such as (a+)+ or search "
            "fewer files",
            s->path, (unsigned long long)line);
    return FAILED;
}

static enum progress search_some(grep_state_t *s, uint64_t until_us, err_t **e)
{
    size_t line_end;
    if (s->at >= s->whole)
        return s->is_end ? end_file(s) : fill(s);
    switch (grep_search_next(s->search, s->block, s->whole, &s->at, &line_end, until_us)) {
    case GREP_MATCH:
        return add_match(s, line_end, e);
    case GREP_TOO_HARD:
        return too_hard(s, e);
    case GREP_NONE:
        s->at = s->whole;
        break;
    case GREP_AGAIN:
        break;
    }
    return GO_ON;
}

/* ---- the tree ---- */

static void visit(grep_state_t *s, const walk_entry_t *entry)
{
    if (entry->type == DT_DIR) {
        if (!s->includes_git && strcmp(entry->name, ".git") == 0)
            walk_skip(s->walk);
        return;
    }
    if (entry->type != DT_REG || (s->include != NULL && !glob_match(s->include, entry->relative)))
        return;
    int fd = openat(entry->dir_fd, entry->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0)
        begin_file(s, fd, entry->path);
}

static void grep_step(agent_call_t *call)
{
    grep_state_t *s = call_state(call);
    uint64_t until = clock_monotonic_us() + AGENT_SLICE_US;
    err_t *e = NULL;
    walk_entry_t entry;
    do {
        if (s->fd >= 0) {
            enum progress progress = search_some(s, until, &e);
            if (progress == FAILED) {
                call_fail(call, &e);
                return;
            }
            if (progress == FULL) {
                reply(call, s, true);
                return;
            }
            continue;
        }
        enum walk_result result = s->walk != NULL ? walk_next(s->walk, &entry) : WALK_END;
        if (result == WALK_END) {
            reply(call, s, false);
            return;
        }
        if (result == WALK_ENTRY)
            visit(s, &entry);
    } while (clock_monotonic_us() < until);
    call_want_steps(call, true);
}

/* ---- start ---- */

static int open_root(grep_state_t *s, const char *root, err_t **e)
{
    struct stat st;
    s->is_kernel_tree = strncmp(root, "/proc/", 6) == 0 || strncmp(root, "/sys/", 5) == 0;
    if (stat(root, &st) != 0)
        return errno == ENOENT ? err_set(e, ERR_NOT_FOUND, "file or directory not found: %s", root)
                               : err_set_errno(e, ERR_NONE, errno, "cannot search %s", root);
    if (S_ISDIR(st.st_mode))
        return (s->walk = walk_open(root, e)) != NULL ? 0 : -1;
    const char *slash = strrchr(root, '/');
    if (s->include != NULL && !glob_match(s->include, slash ? slash + 1 : root))
        return 0;
    int fd = fs_open_file(root, false, &st, e);
    if (fd < 0)
        return -1;
    begin_file(s, fd, root);
    return 0;
}

static int open_search(grep_state_t *s, const struct grep_request *req, err_t **e)
{
    char root[FS_PATH_SIZE];
    const char *path = req->path != NULL && req->path[0] != '\0' ? req->path : agent_workspace();
    s->limit = req->limit > 0 ? req->limit : GREP_DEFAULT_LIMIT;
    s->includes_git = req->include_git;
    s->search = grep_search_new(req->pattern, req->ignore_case, e);
    if (s->search == NULL)
        return -1;
    if (req->include != NULL && req->include[0] != '\0' && (s->include = glob_new(req->include, e)) == NULL)
        return err_wrap(e, "include");
    return agent_path(path, root, sizeof root, e) == 0 ? open_root(s, root, e) : -1;
}

static void grep_start(agent_call_t *call, const void *request)
{
    err_t *e = NULL;
    grep_state_t *s = mem_alloc(sizeof *s);
    s->fd = -1;
    buf_init(&s->matches, 0);
    call_set_state(call, s);
    if (open_search(s, request, &e) != 0)
        call_fail(call, &e);
    else
        grep_step(call);
}

static void grep_destroy(agent_call_t *call)
{
    grep_state_t *s = call_state(call);
    if (s == NULL)
        return;
    if (s->fd >= 0)
        close(s->fd);
    grep_search_destroy(&s->search);
    glob_destroy(&s->include);
    walk_close(&s->walk);
    buf_free(&s->matches);
    free(s->block);
    free(s);
}

const agent_tool_t tool_grep = {
    .verb = VERB_grep,
    .start = grep_start,
    .step = grep_step,
    .destroy = grep_destroy,
};
