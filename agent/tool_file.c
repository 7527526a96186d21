// SPDX-License-Identifier: Apache-2.0
/* file_stat, file_list, file_mkdir, file_move, file_remove: what a file manager does. All look at the path itself, not
 * through a link at its end (file_list: at its root it does). */
#include "agent/call.h"
#include "agent/fs_entry.h"
#include "agent/fs_path.h"
#include "agent/walk.h"
#include "common/clock.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define LIST_DEFAULT_LIMIT 10000
#define LIST_BYTES_MAX ((size_t)16 << 20)

/* ---- what ends in one entry ---- */

static void reply_entry(agent_call_t *call, const char *path)
{
    err_t *e = NULL;
    fs_entry_t entry;
    if (fs_entry_read(&entry, AT_FDCWD, path, path, &e) != 0)
        call_fail(call, &e);
    else
        call_reply(call, &entry.msg);
}

static void no_destroy(agent_call_t *call)
{
    (void)call;
}

static void stat_start(agent_call_t *call, const void *request)
{
    const struct file_ref *req = request;
    char path[FS_PATH_SIZE];
    err_t *e = NULL;
    if (agent_path(req->path, path, sizeof path, &e) != 0)
        call_fail(call, &e);
    else
        reply_entry(call, path);
}

static void mkdir_start(agent_call_t *call, const void *request)
{
    const struct file_mkdir_request *req = request;
    char path[FS_PATH_SIZE];
    err_t *e = NULL;
    bool made = false;
    mode_t mode = req->has.mode ? req->mode : FS_DIR_MODE;
    if (agent_path(req->path, path, sizeof path, &e) != 0 || fs_make_parents(path, &e) != 0 ||
        fs_make_dirs(path, mode, &made, &e) != 0)
        call_fail(call, &e);
    else if (!made) {
        err_set(&e, ERR_CONFLICT, "the directory is there already: %s", path);
        call_fail(call, &e);
    } else {
        reply_entry(call, path);
    }
}

/* ---- move ---- */

static int move_failed(const char *from, const char *to, int errnum, err_t **e)
{
    if (errnum == EEXIST || errnum == ENOTEMPTY)
        return err_set(e, ERR_CONFLICT, "cannot move %s to %s: the destination is there already", from, to);
    if (errnum == EXDEV)
        return err_set(e, ERR_BAD_REQUEST,
                       "cannot move %s to %s: they are on different file systems; copy and remove instead", from, to);
    return err_set_errno(e, ERR_NONE, errnum, "cannot move %s to %s", from, to);
}

static int move_path(const char *from, const char *to, bool overwrites, err_t **e)
{
    struct stat st;
    if (lstat(from, &st) != 0)
        return errno == ENOENT ? err_set(e, ERR_NOT_FOUND, "file not found: %s", from)
                               : err_set_errno(e, ERR_NONE, errno, "cannot examine %s", from);
    if (fs_make_parents(to, e) != 0)
        return -1;
    if (overwrites)
        return rename(from, to) == 0 ? 0 : move_failed(from, to, errno, e);
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return move_failed(from, to, errno, e);
    /* A file system that cannot do it in one step: look, then move. */
    if (lstat(to, &st) == 0)
        return move_failed(from, to, EEXIST, e);
    return rename(from, to) == 0 ? 0 : move_failed(from, to, errno, e);
}

static void move_start(agent_call_t *call, const void *request)
{
    const struct file_move_request *req = request;
    char from[FS_PATH_SIZE], to[FS_PATH_SIZE];
    err_t *e = NULL;
    if (agent_path(req->source, from, sizeof from, &e) != 0 || agent_path(req->destination, to, sizeof to, &e) != 0 ||
        move_path(from, to, req->overwrite, &e) != 0)
        call_fail(call, &e);
    else
        reply_entry(call, to);
}

/* ---- list ---- */

typedef struct list_state {
    walk_t *walk;
    unsigned depth;
    uint32_t limit;
    uint32_t count;
    bool is_cut;
    buf_t entries;
} list_state_t;

static void reply_list(agent_call_t *call, const list_state_t *s)
{
    struct file_list_reply r = {.entries = proto_list_of(s->count, &s->entries), .truncated = s->is_cut};
    r.has.entries = true;
    call_reply(call, &r);
}

/* 1: enough. */
static int list_entry(list_state_t *s, const walk_entry_t *at, err_t **e)
{
    fs_entry_t entry;
    err_t *gone = NULL;
    if (s->count == s->limit || s->entries.len > LIST_BYTES_MAX) {
        s->is_cut = true;
        return 1;
    }
    if (at->depth >= s->depth)
        walk_skip(s->walk);
    if (fs_entry_read(&entry, at->dir_fd, at->name, at->path, &gone) != 0) {
        err_free(&gone); /* removed during the walk */
        return 0;
    }
    s->count++;
    return proto_list_add_msg(&s->entries, MSG_file_entry, &entry.msg, e);
}

static void list_step(agent_call_t *call)
{
    list_state_t *s = call_state(call);
    uint64_t until = clock_monotonic_us() + AGENT_SLICE_US;
    err_t *e = NULL;
    walk_entry_t entry;
    do {
        enum walk_result result = walk_next(s->walk, &entry);
        int status = result == WALK_END ? 1 : result == WALK_AGAIN ? 0 : list_entry(s, &entry, &e);
        if (status < 0)
            call_fail(call, &e);
        else if (status > 0)
            reply_list(call, s);
        if (status != 0)
            return;
    } while (clock_monotonic_us() < until);
    call_want_steps(call, true);
}

static void list_start(agent_call_t *call, const void *request)
{
    const struct file_list_request *req = request;
    char path[FS_PATH_SIZE];
    err_t *e = NULL;
    list_state_t *s = mem_alloc(sizeof *s);
    const char *asked = req->path != NULL && req->path[0] != '\0' ? req->path : agent_workspace();
    s->depth = req->depth > 0 ? req->depth : 1;
    s->limit = req->limit > 0 ? req->limit : LIST_DEFAULT_LIMIT;
    buf_init(&s->entries, 0);
    call_set_state(call, s);
    if (agent_path(asked, path, sizeof path, &e) != 0 || (s->walk = walk_open(path, &e)) == NULL)
        call_fail(call, &e);
    else
        list_step(call);
}

static void list_destroy(agent_call_t *call)
{
    list_state_t *s = call_state(call);
    if (s == NULL)
        return;
    walk_close(&s->walk);
    buf_free(&s->entries);
    free(s);
}

const agent_tool_t tool_file_stat = {.verb = VERB_file_stat, .start = stat_start, .destroy = no_destroy};
const agent_tool_t tool_file_mkdir = {.verb = VERB_file_mkdir, .start = mkdir_start, .destroy = no_destroy};
const agent_tool_t tool_file_move = {.verb = VERB_file_move, .start = move_start, .destroy = no_destroy};
const agent_tool_t tool_file_list = {
    .verb = VERB_file_list, .start = list_start, .step = list_step, .destroy = list_destroy};
