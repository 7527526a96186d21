// SPDX-License-Identifier: Apache-2.0
/* edit: replaces an exact byte string in a file. One match, or all with replace_all; the messages are those that
 * clients of the original know. Bytes that are not UTF-8 and CR LF stay as they are: nothing here knows about text. The
 * file may have up to EDIT_FILE_MAX bytes, before and after. Two edits of one file never mix: the agent is one thread
 * and a call reads, searches and writes without a turn in between unless the file is large; then the file is looked at
 * again before it is replaced, and a change in between is a 409. */
#include "agent/call.h"
#include "agent/fs_replace.h"
#include "agent/lines.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <sha2.h>
#include <stdio.h>
#include <unistd.h>

#define EDIT_FILE_MAX ((size_t)64 << 20)
#define READ_SLICE ((size_t)1 << 20)
#define SEARCH_SLICE ((size_t)1 << 20)
#define HASH_SLICE ((size_t)256 * 1024)

enum edit_phase { EDIT_READ, EDIT_HASH_OLD, EDIT_REPLACE, EDIT_HASH_NEW, EDIT_WRITE };

typedef struct edit_state {
    const struct edit_request *req;
    enum edit_phase phase;
    int fd;
    struct stat st;
    buf_t old;
    buf_t new;
    size_t at;   /* how far the phase is */
    size_t scan; /* EDIT_REPLACE: how far it was searched */
    uint64_t replacements;
    SHA2_CTX hash;
    char old_sha256[SHA256_DIGEST_STRING_LENGTH];
    char new_sha256[SHA256_DIGEST_STRING_LENGTH];
    bool is_open; /* save */
    fs_save_t save;
    char path[FS_PATH_SIZE];
} edit_state_t;

static int too_large(const edit_state_t *s, const char *what, err_t **e)
{
    return err_set(e, ERR_PAYLOAD_TOO_LARGE,
                   "cannot edit %s: %s is over %zu MiB; use bash with sed or a script instead", s->path, what,
                   EDIT_FILE_MAX >> 20);
}

static int read_slice(edit_state_t *s, err_t **e)
{
    size_t want = s->old.len < (size_t)s->st.st_size ? (size_t)s->st.st_size - s->old.len + 1 : 4096;
    if (want > READ_SLICE)
        want = READ_SLICE;
    uint8_t *room = buf_reserve(&s->old, want);
    if (room == NULL)
        return too_large(s, "the file", e);
    ssize_t n = fs_read_some(s->fd, room, want);
    if (n < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot read %s", s->path);
    buf_commit(&s->old, (size_t)n);
    /* A short read of a file of known size is its end. */
    if (n == 0 || ((size_t)n < want && s->old.len == (size_t)s->st.st_size)) {
        s->phase = s->req->expected_sha256 ? EDIT_HASH_OLD : EDIT_REPLACE;
        s->at = 0;
    }
    return 0;
}

/* True when all bytes went into `hex`. */
static bool hash_slice(edit_state_t *s, const buf_t *bytes, char *hex)
{
    size_t n = bytes->len - s->at;
    if (n > HASH_SLICE)
        n = HASH_SLICE;
    if (s->at == 0)
        SHA256Init(&s->hash);
    SHA256Update(&s->hash, bytes->data ? bytes->data + s->at : (const uint8_t *)"", n);
    s->at += n;
    if (s->at < bytes->len)
        return false;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256Final(digest, &s->hash);
    hex_encode(hex, digest, sizeof digest);
    s->at = 0;
    return true;
}

static int check_expected(edit_state_t *s, err_t **e)
{
    char details[128];
    if (!hash_slice(s, &s->old, s->old_sha256))
        return 0;
    s->phase = EDIT_REPLACE;
    if (strcasecmp(s->old_sha256, s->req->expected_sha256) == 0)
        return 0;
    err_set(e, ERR_PRECONDITION_FAILED,
            "%s has changed: its content is not the one with expected_sha256; read it again", s->path);
    snprintf(details, sizeof details, "{\"actual_sha256\":\"%s\"}", s->old_sha256);
    err_set_details(*e, details);
    return -1;
}

static int replace_done(edit_state_t *s, err_t **e)
{
    if (s->replacements == 0)
        return err_set(e, ERR_BAD_REQUEST, "oldString not found in content");
    buf_append(&s->new, s->old.data + s->at, s->old.len - s->at);
    if (buf_failed(&s->new))
        return too_large(s, "the edited file", e);
    s->phase = EDIT_HASH_NEW;
    s->at = 0;
    return 0;
}

/* The next match at or behind s->scan, looking at one window of the file: NULL and s->scan < old.len mean that there is
 * more to look at. */
static const uint8_t *find_next(edit_state_t *s)
{
    const proto_bytes_t *find = &s->req->old_string;
    size_t left = s->old.len - s->scan;
    size_t stride = find->len > SEARCH_SLICE ? find->len : SEARCH_SLICE; /* windows overlap by a match less one byte */
    size_t window = stride + find->len - 1 < left ? stride + find->len - 1 : left;
    const uint8_t *hit = window > 0 ? memmem(s->old.data + s->scan, window, find->data, find->len) : NULL;
    if (hit == NULL)
        s->scan += window < left ? stride : left;
    return hit;
}

/* Goes over the file once: every match is found, counted and replaced in the same pass. */
static int replace_slice(edit_state_t *s, err_t **e)
{
    uint64_t until = clock_monotonic_us() + AGENT_SLICE_US;
    for (unsigned i = 1; i % 256 != 0 || clock_monotonic_us() < until; i++) {
        if (s->scan >= s->old.len)
            return replace_done(s, e);
        const uint8_t *hit = find_next(s);
        if (hit == NULL) {
            i |= 255; /* a whole window: look at the clock */
            continue;
        }
        if (s->replacements > 0 && !s->req->replace_all)
            return err_set(
                e, ERR_BAD_REQUEST,
                "Found multiple matches for oldString. Provide more surrounding lines in oldString to identify the "
                "correct match.");
        s->replacements++;
        buf_append(&s->new, s->old.data + s->at, (size_t)(hit - s->old.data) - s->at);
        buf_append(&s->new, s->req->new_string.data, s->req->new_string.len);
        s->scan = s->at = (size_t)(hit - s->old.data) + s->req->old_string.len;
        if (buf_failed(&s->new))
            return too_large(s, "the edited file", e);
    }
    return 0;
}

/* Nobody may have changed the file since it was read. */
static int check_unchanged(const edit_state_t *s, err_t **e)
{
    struct stat now;
    if (stat(s->path, &now) == 0 && now.st_ino == s->st.st_ino && now.st_dev == s->st.st_dev &&
        now.st_size == s->st.st_size && now.st_mtim.tv_sec == s->st.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == s->st.st_mtim.tv_nsec)
        return 0;
    return err_set(e, ERR_CONFLICT, "%s was changed by somebody else during the edit; read it again and retry",
                   s->path);
}

static int write_slice(edit_state_t *s, err_t **e)
{
    if (!s->is_open) {
        s->is_open = true;
        return fs_save_open(&s->save, s->path, FS_FILE_MODE, false, s->new.data, s->new.len, e) == 0 ? 1 : -1;
    }
    if (s->save.replace.target_fd < 0 && check_unchanged(s, e) != 0) /* from then on we ourselves change it */
        return -1;
    return fs_save_slice(&s->save, e);
}

static uint64_t line_count(const proto_bytes_t *text)
{
    return lines_count_newlines(text->data ? text->data : "", text->len) + 1;
}

static void reply(agent_call_t *call, const edit_state_t *s)
{
    uint64_t old_lines = line_count(&s->req->old_string);
    uint64_t new_lines = line_count(&s->req->new_string);
    struct edit_reply r = {.success = true,
                           .lines_changed = (old_lines > new_lines ? old_lines : new_lines) * s->replacements,
                           .replacements = s->replacements,
                           .sha256 = s->new_sha256,
                           .in_place = s->save.replace.in_place};
    call_reply(call, &r);
}

/* One slice of the phase: 1 go on, 0 all done, -1 failed. */
static int edit_slice(edit_state_t *s, err_t **e)
{
    switch (s->phase) {
    case EDIT_READ:
        return read_slice(s, e) == 0 ? 1 : -1;
    case EDIT_HASH_OLD:
        return check_expected(s, e) == 0 ? 1 : -1;
    case EDIT_REPLACE:
        return replace_slice(s, e) == 0 ? 1 : -1;
    case EDIT_HASH_NEW:
        if (hash_slice(s, &s->new, s->new_sha256))
            s->phase = EDIT_WRITE;
        return 1;
    case EDIT_WRITE:
        return write_slice(s, e);
    }
    return err_set(e, ERR_INTERNAL, "edit: impossible phase %d", (int)s->phase);
}

static void edit_step(agent_call_t *call)
{
    edit_state_t *s = call_state(call);
    err_t *e = NULL;
    uint64_t until = clock_monotonic_us() + AGENT_SLICE_US;
    int more;
    do
        more = edit_slice(s, &e);
    while (more > 0 && clock_monotonic_us() < until);
    if (more > 0)
        call_want_steps(call, true);
    else if (more < 0)
        call_fail(call, &e);
    else
        reply(call, s);
}

static void edit_start(agent_call_t *call, const void *request)
{
    err_t *e = NULL;
    edit_state_t *s = mem_alloc(sizeof *s);
    s->req = request;
    s->fd = s->save.replace.fd = s->save.replace.target_fd = -1;
    buf_init(&s->old, EDIT_FILE_MAX + READ_SLICE);
    buf_init(&s->new, EDIT_FILE_MAX);
    call_set_state(call, s);
    if (agent_path(s->req->file_path, s->path, sizeof s->path, &e) != 0 ||
        (s->fd = fs_open_file(s->path, false, &s->st, &e)) < 0 ||
        ((uint64_t)s->st.st_size > EDIT_FILE_MAX && too_large(s, "the file", &e) != 0)) {
        call_fail(call, &e);
        return;
    }
    edit_step(call);
}

static void edit_destroy(agent_call_t *call)
{
    edit_state_t *s = call_state(call);
    if (s == NULL)
        return;
    if (s->fd >= 0)
        close(s->fd);
    fs_replace_abort(&s->save.replace);
    buf_free(&s->old);
    buf_free(&s->new);
    free(s);
}

const agent_tool_t tool_edit = {
    .verb = VERB_edit,
    .start = edit_start,
    .step = edit_step,
    .destroy = edit_destroy,
};
