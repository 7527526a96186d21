// SPDX-License-Identifier: Apache-2.0
/* read: a text file as numbered lines, a directory as a list of names, a binary file as its size.
 *
 * Content is `<n>: <text>` per line, joined by "\n"; a "\n" stands at the end only when the file goes on behind the
 * last line shown. A directory's content is one name per line in the same way, without numbers, sorted by bytes, hidden
 * ones too, directories with "/"; offset and limit count entries. output_encoding base64 means exact bytes: the
 * window's lines as they are in the file, also of a binary file (is_binary is still told); the gateway does the
 * encoding.
 *
 * A file that one read takes (FIRST_READ) is answered from start(); longer ones are read in slices, because all of
 * their lines must be counted. */
#include "agent/call.h"
#include "agent/fs_path.h"
#include "agent/lines.h"
#include "agent/walk.h"
#include "common/clock.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define FIRST_READ (64 * 1024)
#define SLICE_READ (256 * 1024)
#define BINARY_PROBE 8000

typedef struct read_state {
    int fd;
    walk_t *walk;
    bool is_exact;
    bool is_binary;
    uint64_t file_size;
    uint64_t seen;
    lines_t lines;
    buf_t content;
    uint8_t *block; /* SLICE_READ bytes, once step() is needed */
    char path[FS_PATH_SIZE];
} read_state_t;

static void reply(agent_call_t *call, read_state_t *s, bool is_dir)
{
    lines_end(&s->lines);
    struct read_reply r = {
        .content = {s->content.data ? (const void *)s->content.data : "", s->content.len},
        .is_dir = is_dir,
        .total_lines = s->lines.total,
        .file_size = s->seen > s->file_size ? s->seen : s->file_size, /* files of /proc say 0 */
        .is_binary = s->is_binary,
        .truncated = s->lines.is_truncated,
        .next_offset = s->lines.next_line,
    };
    r.has.total_lines = true;
    r.has.file_size = !is_dir;
    if (is_dir)
        r.file_size = 0;
    call_reply(call, &r);
}

static void reply_binary(agent_call_t *call, uint64_t size)
{
    char text[64];
    int len = snprintf(text, sizeof text, "Binary file (%llu bytes)", (unsigned long long)size);
    struct read_reply r = {.content = {text, (size_t)len}, .file_size = size, .is_binary = true};
    r.has.file_size = true;
    call_reply(call, &r);
}

static void start_lines(read_state_t *s, const struct read_request *req)
{
    uint64_t first = req->offset > 0 ? (uint64_t)req->offset : 1;
    uint64_t count = req->limit > 0 ? (uint64_t)req->limit : UINT64_MAX;
    buf_init(&s->content, READ_CONTENT_MAX);
    lines_init(&s->lines, first, count, READ_CONTENT_MAX, &s->content);
    s->is_exact = req->output_encoding != NULL && strcmp(req->output_encoding, "base64") == 0;
    s->lines.is_exact = s->is_exact;
    s->lines.is_numbered = !s->is_exact;
}

static void read_failed(agent_call_t *call, const char *path, int errnum)
{
    err_t *e = NULL;
    err_set_errno(&e, ERR_NONE, errnum, "cannot read %s", path);
    call_fail(call, &e);
}

/* Looks at the file's beginning. False: the call is answered. */
static bool begin_file(agent_call_t *call, read_state_t *s, const uint8_t *bytes, size_t len)
{
    s->is_binary = memchr(bytes, 0, len < BINARY_PROBE ? len : BINARY_PROBE) != NULL;
    if (s->is_binary && !s->is_exact) {
        reply_binary(call, s->file_size > len ? s->file_size : len);
        return false;
    }
    lines_feed(&s->lines, bytes, len);
    s->seen = len;
    return true;
}

static void step_file(agent_call_t *call, read_state_t *s)
{
    uint64_t until = clock_monotonic_us() + AGENT_SLICE_US;
    if (s->block == NULL)
        s->block = mem_alloc(SLICE_READ);
    do {
        ssize_t n = fs_read_some(s->fd, s->block, SLICE_READ);
        if (n < 0) {
            read_failed(call, s->path, errno);
            return;
        }
        if (n == 0) {
            reply(call, s, false);
            return;
        }
        lines_feed(&s->lines, s->block, (size_t)n);
        s->seen += (uint64_t)n;
    } while (clock_monotonic_us() < until);
}

static void step_directory(agent_call_t *call, read_state_t *s)
{
    uint64_t until = clock_monotonic_us() + AGENT_SLICE_US;
    walk_entry_t entry;
    do {
        enum walk_result result = walk_next(s->walk, &entry);
        if (result == WALK_AGAIN)
            continue;
        if (result == WALK_END) {
            reply(call, s, true);
            return;
        }
        walk_skip(s->walk);
        lines_feed(&s->lines, entry.name, strlen(entry.name));
        lines_feed(&s->lines, entry.type == DT_DIR ? "/\n" : "\n", entry.type == DT_DIR ? 2 : 1);
    } while (clock_monotonic_us() < until);
}

static void read_step(agent_call_t *call)
{
    read_state_t *s = call_state(call);
    if (s->walk != NULL)
        step_directory(call, s);
    else
        step_file(call, s);
}

/* A directory, or a file that is not done after its first read: the rest is step()'s. */
static void go_on(agent_call_t *call, read_state_t *s)
{
    call_set_state(call, s);
    call_want_steps(call, true);
    read_step(call);
}

static void start_directory(agent_call_t *call, read_state_t *s)
{
    err_t *e = NULL;
    s->lines.is_numbered = false;
    s->lines.is_exact = false;
    s->walk = walk_open(s->path, &e);
    if (s->walk == NULL) {
        call_fail(call, &e);
        return;
    }
    go_on(call, s);
}

static void read_start(agent_call_t *call, const void *request)
{
    const struct read_request *req = request;
    err_t *e = NULL;
    struct stat st;
    uint8_t bytes[FIRST_READ];
    read_state_t *s = mem_alloc(sizeof *s);
    call_set_state(call, s);
    s->fd = -1;
    if (agent_path(req->file_path, s->path, sizeof s->path, &e) != 0 ||
        (s->fd = fs_open_file(s->path, true, &st, &e)) < 0) {
        call_fail(call, &e);
        return;
    }
    start_lines(s, req);
    if (S_ISDIR(st.st_mode)) {
        start_directory(call, s);
        return;
    }
    s->file_size = (uint64_t)st.st_size;
    ssize_t n = fs_read_some(s->fd, bytes, sizeof bytes);
    if (n < 0) {
        read_failed(call, s->path, errno);
        return;
    }
    if (!begin_file(call, s, bytes, (size_t)n))
        return;
    /* A short read that gave all of a file's size was its end; files of /proc have no size and are read until nothing
     * comes. */
    if (n == 0 || ((size_t)n < sizeof bytes && (uint64_t)n == s->file_size))
        reply(call, s, false);
    else
        go_on(call, s);
}

static void read_destroy(agent_call_t *call)
{
    read_state_t *s = call_state(call);
    if (s == NULL)
        return;
    if (s->fd >= 0)
        close(s->fd);
    walk_close(&s->walk);
    buf_free(&s->content);
    free(s->block);
    free(s);
}

const agent_tool_t tool_read = {
    .verb = VERB_read,
    .start = read_start,
    .step = read_step,
    .destroy = read_destroy,
};
