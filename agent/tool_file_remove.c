// SPDX-License-Identifier: Apache-2.0
/* file_remove: a file, a link (not what it leads to), an empty directory, or with `recursive` a whole tree. A missing
 * path is a success. */
#include "agent/call.h"
#include "agent/fs_path.h"
#include "agent/fs_remove.h"
#include "common/clock.h"
#include "common/mem.h"

#include <errno.h>
#include <unistd.h>

static void reply_removed(agent_call_t *call, uint64_t removed)
{
    struct file_remove_reply r = {.removed = removed};
    r.has.removed = true;
    call_reply(call, &r);
}

static void remove_step(agent_call_t *call)
{
    fs_remove_t *tree = call_state(call);
    err_t *e = NULL;
    int more = fs_remove_slice(tree, clock_monotonic_us() + AGENT_SLICE_US, &e);
    if (more > 0)
        call_want_steps(call, true);
    else if (more < 0)
        call_fail(call, &e);
    else
        reply_removed(call, fs_remove_count(tree));
}

/* What needs no walk. 1: it does need one. */
static int remove_single(const char *path, bool is_recursive, uint64_t *removed, err_t **e)
{
    *removed = 1;
    if (unlink(path) == 0)
        return 0;
    int errnum = errno;
    if (errnum == EISDIR || errnum == EPERM) {
        if (rmdir(path) == 0)
            return 0;
        errnum = errno;
        if (errnum == ENOTEMPTY || errnum == EEXIST)
            return is_recursive
                       ? 1
                       : err_set(e, ERR_CONFLICT, "cannot remove %s: the directory is not empty; set recursive", path);
    }
    if (errnum == ENOENT || errnum == ENOTDIR) {
        *removed = 0;
        return 0;
    }
    return err_set_errno(e, ERR_NONE, errnum, "cannot remove %s", path);
}

static void remove_start(agent_call_t *call, const void *request)
{
    const struct file_remove_request *req = request;
    char path[FS_PATH_SIZE];
    uint64_t removed;
    err_t *e = NULL;
    int status = agent_path(req->path, path, sizeof path, &e);
    if (status == 0)
        status = remove_single(path, req->recursive, &removed, &e);
    if (status > 0) {
        fs_remove_t *tree = fs_remove_new(path, &e);
        call_set_state(call, tree);
        if (tree != NULL) {
            remove_step(call);
            return;
        }
        status = -1;
    }
    if (status < 0)
        call_fail(call, &e);
    else
        reply_removed(call, removed);
}

static void remove_destroy(agent_call_t *call)
{
    fs_remove_t *tree = call_state(call);
    fs_remove_destroy(&tree);
}

const agent_tool_t tool_file_remove = {
    .verb = VERB_file_remove, .start = remove_start, .step = remove_step, .destroy = remove_destroy};
