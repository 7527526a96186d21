// SPDX-License-Identifier: Apache-2.0
/* write: replaces a whole file, atomically where the place allows it (agent/fs_replace.h). */
#include "agent/call.h"
#include "agent/fs_replace.h"
#include "common/mem.h"

typedef struct write_state {
    const struct write_request *req;
    fs_save_t save;
} write_state_t;

static void write_step(agent_call_t *call)
{
    write_state_t *s = call_state(call);
    err_t *e = NULL;
    int more = fs_save_slice(&s->save, &e);
    if (more > 0) {
        call_want_steps(call, true);
        return;
    }
    if (more < 0) {
        call_fail(call, &e);
        return;
    }
    struct write_reply r = {.success = true,
                            .file_path = s->req->file_path,
                            .bytes_written = s->save.len,
                            .in_place = s->save.replace.in_place};
    r.has.bytes_written = true;
    call_reply(call, &r);
}

static void write_start(agent_call_t *call, const void *request)
{
    char path[FS_PATH_SIZE];
    err_t *e = NULL;
    write_state_t *s = mem_alloc(sizeof *s);
    s->req = request;
    s->save.replace.fd = s->save.replace.target_fd = -1;
    call_set_state(call, s);
    mode_t mode = s->req->has.mode ? s->req->mode : FS_FILE_MODE;
    if (agent_path(s->req->file_path, path, sizeof path, &e) != 0 ||
        fs_save_open(&s->save, path, mode, s->req->sync, s->req->content.data, s->req->content.len, &e) != 0) {
        call_fail(call, &e);
        return;
    }
    write_step(call);
}

static void write_destroy(agent_call_t *call)
{
    write_state_t *s = call_state(call);
    if (s == NULL)
        return;
    fs_replace_abort(&s->save.replace);
    free(s);
}

const agent_tool_t tool_write = {
    .verb = VERB_write,
    .start = write_start,
    .step = write_step,
    .destroy = write_destroy,
};
