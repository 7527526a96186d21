// SPDX-License-Identifier: Apache-2.0
/* file_get: a regular file's bytes, whole or a range: HEAD file_get_head, then exactly `length` bytes on channel 0 at
 * the caller's pace. Ranges as in HTTP: an offset at or behind the end is range_not_satisfiable (details.size), a
 * length over the end is cut, -n are the last n. A file that becomes shorter meanwhile fails the call; what it gains is
 * not sent. */
#include "agent/call.h"
#include "agent/fs_path.h"
#include "common/clock.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define BLOCK_BYTES (128 * 1024)

typedef struct get_state {
    int fd;
    uint64_t at;   /* next byte to read */
    uint64_t left; /* not yet read */
    size_t begin;  /* block[begin…end) is read and not yet taken */
    size_t end;
    uint8_t *block;
    char path[FS_PATH_SIZE];
} get_state_t;

static void reply_empty(agent_call_t *call)
{
    struct empty r = {.unused = false};
    call_reply(call, &r);
}

/* Fills the block. False: the call has failed. */
static bool refill(agent_call_t *call, get_state_t *s)
{
    err_t *e = NULL;
    size_t want = s->left < BLOCK_BYTES ? (size_t)s->left : BLOCK_BYTES;
    ssize_t n = pread(s->fd, s->block, want, (off_t)s->at);
    if (n > 0) {
        s->begin = 0;
        s->end = (size_t)n;
        s->at += (uint64_t)n;
        s->left -= (uint64_t)n;
        return true;
    }
    if (n < 0)
        err_set_errno(&e, ERR_NONE, errno, "cannot read %s", s->path);
    else
        err_set(&e, ERR_CONFLICT, "%s became shorter while it was read: %llu bytes are missing", s->path,
                (unsigned long long)s->left);
    call_fail(call, &e);
    return false;
}

static void get_step(agent_call_t *call)
{
    get_state_t *s = call_state(call);
    uint64_t until = clock_monotonic_us() + AGENT_SLICE_US;
    do {
        if (s->begin == s->end && s->left > 0 && !refill(call, s))
            return;
        bool is_last = s->left == 0;
        size_t n = call_chunk(call, CHANNEL_DATA, s->block + s->begin, s->end - s->begin, is_last);
        s->begin += n;
        if (s->begin < s->end) {
            call_want_steps(call, false); /* on_window goes on */
            return;
        }
        if (is_last) {
            reply_empty(call);
            return;
        }
    } while (clock_monotonic_us() < until);
    call_want_steps(call, true);
}

/* Sets `at` and `left` from the request, for a file of `size` bytes. */
static int choose_range(get_state_t *s, const struct file_get_request *req, uint64_t size, err_t **e)
{
    char details[64];
    s->at = req->offset;
    if (req->length < 0) {
        uint64_t tail = 0 - (uint64_t)req->length;
        if (req->offset != 0)
            return err_set(e, ERR_BAD_REQUEST, "a negative length asks for the end of the file: offset must be 0");
        s->at = tail < size ? size - tail : 0;
    } else if (req->offset > 0 && req->offset >= size) {
        snprintf(details, sizeof details, "{\"size\":%llu}", (unsigned long long)size);
        err_set(e, ERR_RANGE_NOT_SATISFIABLE, "%s has %llu bytes: there are none at offset %llu", s->path,
                (unsigned long long)size, (unsigned long long)req->offset);
        err_set_details(*e, details);
        return -1;
    }
    s->left = size - s->at;
    if (req->length > 0 && (uint64_t)req->length < s->left)
        s->left = (uint64_t)req->length;
    return 0;
}

static int open_range(get_state_t *s, const struct file_get_request *req, struct file_get_head *head, err_t **e)
{
    struct stat st;
    if (agent_path(req->path, s->path, sizeof s->path, e) != 0)
        return -1;
    s->fd = fs_open_file(s->path, false, &st, e);
    if (s->fd < 0 || choose_range(s, req, (uint64_t)st.st_size, e) != 0)
        return -1;
    (void)posix_fadvise(s->fd, (off_t)s->at, (off_t)s->left, POSIX_FADV_SEQUENTIAL);
    *head = (struct file_get_head){
        .size = (uint64_t)st.st_size,
        .offset = s->at,
        .length = s->left,
        .modified_at_ms =
            st.st_mtim.tv_sec < 0 ? 0 : (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000,
        .mode = st.st_mode & 07777,
        .inode = st.st_ino,
    };
    head->has.size = head->has.offset = head->has.length = head->has.mode = true;
    return 0;
}

static void get_start(agent_call_t *call, const void *request)
{
    struct file_get_head head;
    err_t *e = NULL;
    get_state_t *s = mem_alloc(sizeof *s);
    s->fd = -1;
    call_set_state(call, s);
    if (open_range(s, request, &head, &e) != 0) {
        call_fail(call, &e);
        return;
    }
    size_t block = s->left < BLOCK_BYTES ? (size_t)s->left : BLOCK_BYTES;
    s->block = mem_alloc(block);
    (void)call_head(call, MSG_file_get_head, &head); /* the first message of a call is never one too many */
    get_step(call);
}

static void get_destroy(agent_call_t *call)
{
    get_state_t *s = call_state(call);
    if (s == NULL)
        return;
    if (s->fd >= 0)
        close(s->fd);
    free(s->block);
    free(s);
}

const agent_tool_t tool_file_get = {
    .verb = VERB_file_get,
    .start = get_start,
    .step = get_step,
    .on_window = get_step,
    .destroy = get_destroy,
};
