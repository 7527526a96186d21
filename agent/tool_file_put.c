// SPDX-License-Identifier: Apache-2.0
/* file_put: takes a file's bytes on channel 0 and gives them the name when all are there (agent/fs_replace.h). Until
 * then, and after a cancel, a deadline, too few bytes or a full disk, the old file is as it was and no temporary stays.
 * The caller is granted new bytes as they are written. With a size announced, its space is reserved first, so that a
 * disk that is too small is told before the upload. */
#include "agent/call.h"
#include "agent/fs_replace.h"
#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <sha2.h>
#include <sys/statvfs.h>

typedef struct put_state {
    const struct file_put_request *req;
    bool has_size;
    bool is_finishing;
    uint64_t size;
    SHA2_CTX hash;
    fs_replace_t replace;
} put_state_t;

static void finish(agent_call_t *call, put_state_t *s)
{
    err_t *e = NULL;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    char hex[SHA256_DIGEST_STRING_LENGTH];
    int more = fs_replace_finish(&s->replace, &e);
    if (more > 0) {
        call_want_steps(call, true);
        return;
    }
    if (more < 0) {
        call_fail(call, &e);
        return;
    }
    SHA256Final(digest, &s->hash);
    hex_encode(hex, digest, sizeof digest);
    struct file_put_reply r = {.path = s->req->path, .size = s->size, .sha256 = hex, .in_place = s->replace.in_place};
    r.has.size = true;
    call_reply(call, &r);
}

static void put_step(agent_call_t *call)
{
    put_state_t *s = call_state(call);
    if (s->is_finishing)
        finish(call, s);
}

static int check_size(const put_state_t *s, bool is_end, err_t **e)
{
    uint64_t want = (uint64_t)s->req->size;
    if (!s->has_size || (is_end ? s->size == want : s->size <= want))
        return 0;
    return err_set(e, ERR_BAD_REQUEST, "%s was not changed: %llu bytes were announced and %s%llu came", s->replace.path,
                   (unsigned long long)want, is_end ? "" : "already ", (unsigned long long)s->size);
}

static void put_on_chunk(agent_call_t *call, enum envelope_channel channel, const uint8_t *bytes, size_t len,
                         bool is_end)
{
    put_state_t *s = call_state(call);
    err_t *e = NULL;
    if (channel != CHANNEL_DATA || s->is_finishing)
        return;
    s->size += len;
    if (check_size(s, is_end, &e) != 0 || (len > 0 && fs_replace_write(&s->replace, bytes, len, &e) != 0)) {
        call_fail(call, &e);
        return;
    }
    if (len > 0)
        SHA256Update(&s->hash, bytes, len);
    call_consumed(call, len);
    if (is_end) {
        s->is_finishing = true;
        finish(call, s);
    }
}

/* Reserves the announced size, or where that cannot be done compares it with what is free. */
static int reserve(const put_state_t *s, err_t **e)
{
    struct statvfs fs;
    uint64_t size = (uint64_t)s->req->size;
    if (!s->has_size || size == 0 || s->replace.is_device)
        return 0;
    if (fallocate(s->replace.fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size) == 0)
        return 0;
    int errnum = errno;
    if (errnum != ENOSPC && errnum != EDQUOT && errnum != EFBIG) {
        if (fstatvfs(s->replace.fd, &fs) != 0 || fs.f_frsize == 0 || size / fs.f_frsize <= fs.f_bavail)
            return 0;
        errnum = ENOSPC;
    }
    return err_set_errno(e, ERR_NO_SPACE, errnum, "cannot write %lld bytes to %s", (long long)size, s->replace.path);
}

static void put_start(agent_call_t *call, const void *request)
{
    char path[FS_PATH_SIZE];
    err_t *e = NULL;
    put_state_t *s = mem_alloc(sizeof *s);
    s->req = request;
    s->replace.fd = s->replace.target_fd = -1;
    s->has_size = s->req->has.size && s->req->size >= 0;
    SHA256Init(&s->hash);
    call_set_state(call, s);
    mode_t mode = s->req->has.mode ? s->req->mode : FS_FILE_MODE;
    if (agent_path(s->req->path, path, sizeof path, &e) != 0 ||
        fs_replace_open(&s->replace, path, mode, s->req->sync, &e) != 0 || reserve(s, &e) != 0)
        call_fail(call, &e);
}

static void put_destroy(agent_call_t *call)
{
    put_state_t *s = call_state(call);
    if (s == NULL)
        return;
    fs_replace_abort(&s->replace);
    free(s);
}

const agent_tool_t tool_file_put = {
    .verb = VERB_file_put,
    .start = put_start,
    .step = put_step,
    .on_chunk = put_on_chunk,
    .destroy = put_destroy,
};
