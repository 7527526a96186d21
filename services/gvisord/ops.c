/* SPDX-License-Identifier: Apache-2.0
 *
 * The provider's vtable: a box for every sandbox.
 */
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/gvisord.h"
#include "services/gvisord/jobs_private.h"

#include <stdio.h>
#include <unistd.h>

static int save(box_t *box, err_t **e)
{
    return provider_sandbox_save(box->owner, e);
}

static void on_gone(box_t *box, const char *reason)
{
    provider_sandbox_died(box->owner, reason);
}

static void on_pressure(box_t *box, uint64_t used_bytes)
{
    const sandbox_t *s = box->owner;
    struct pressure pressure = {.resource = "memory", .used_bytes = used_bytes};
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    if (!s->stream || !stream_is_ready(s->stream) || proto_encode(MSG_pressure, &pressure, &body, &e) < 0)
        return;
    envelope_t env = {.kind = ENVELOPE_KIND_PRESSURE, .sandbox = s->id};
    (void)stream_send(s->stream, &env, body.data, body.len);
}

static void on_runs_on(box_t *box)
{
    provider_sandbox_runs_on(box->owner);
}

static bool is_answering(box_t *box)
{
    const sandbox_t *s = box->owner;
    return s->stream && stream_is_ready(s->stream);
}

static box_t *box_of(sandbox_t *s)
{
    if (s->data)
        return s->data;
    box_t *box = mem_alloc(sizeof *box);
    *box = (box_t){.gv = provider_data(s->provider),
                   .id = s->host_id,
                   .dir = s->dir,
                   .spec = &s->spec,
                   .facts = s->private_,
                   .save = save,
                   .on_gone = on_gone,
                   .on_pressure = on_pressure,
                   .on_runs_on = on_runs_on,
                   .is_answering = is_answering,
                   .owner = s,
                   .fds = {-1, -1, -1},
                   .netns_fd = -1};
    return s->data = box;
}

static void op_probe(provider_t *p, provider_done_fn done, void *arg)
{
    gvisord_t *gv = provider_data(p);
    probe_run(gv->probe, done, arg);
}

/* Whether a sandbox with this network can be started now. */
static int require_usable(const box_t *box, err_t **e)
{
    const probe_result_t *r = probe_result(box->gv->probe);
    if (!r->is_usable)
        return err_set(e, ERR_PROVIDER_UNAVAILABLE, "%s", r->message);
    if (strcmp(box->spec->network, "full") == 0 && !r->has_full_network)
        return err_set(e, ERR_VALIDATION, "network full is not available here: %s", r->network_message);
    return 0;
}

static void op_create(sandbox_t *s, provider_done_fn done, void *arg)
{
    box_t *box = box_of(s);
    auto_err err_t *e = NULL;
    if (require_usable(box, &e) < 0)
        done(arg, e);
    else
        box_create(box, &probe_result(box->gv->probe)->variant, done, arg);
}

static void op_destroy(sandbox_t *s, provider_done_fn done, void *arg)
{
    box_destroy(box_of(s), done, arg);
}

static void op_end(sandbox_t *s)
{
    box_end(box_of(s));
}

static int op_open_stream(sandbox_t *s, int *fd_in, int *fd_out, err_t **e)
{
    return box_open_stream(box_of(s), fd_in, fd_out, e);
}

static int op_adopt(sandbox_t *s, err_t **e)
{
    auto_free char *used = mem_printf("%s/" JOBS_CHECKPOINT_USED, s->dir);
    if (box_adopt(box_of(s), e) < 0)
        return -1;
    if (s->state == SANDBOX_RESUMING)
        s->has_processes = access(used, F_OK) == 0;
    return 0;
}

static void op_forget(sandbox_t *s)
{
    box_t *box = s->data;
    if (!box)
        return;
    box_close(box);
    free(box);
    s->data = NULL;
}

/* ---- stop, resume, snapshots ---- */

/* The kit's `done`, and what to do before it. */
typedef struct operation {
    sandbox_t *sandbox;
    snapshot_t *snapshot;
    provider_done_fn done;
    void *arg;
} operation_t;

static operation_t *operation_new(sandbox_t *s, snapshot_t *snapshot, provider_done_fn done, void *arg)
{
    operation_t *op = mem_alloc(sizeof *op);
    *op = (operation_t){.sandbox = s, .snapshot = snapshot, .done = done, .arg = arg};
    return op;
}

static void operation_end(operation_t *op, const err_t *err)
{
    operation_t own = *op;
    free(op);
    own.done(own.arg, err);
}

static void on_box_done(void *arg, const err_t *err)
{
    operation_t *op = arg;
    const box_t *box = op->sandbox->data;
    if (!err) {
        op->sandbox->has_processes = box->result.has_processes;
        if (box->result.warning[0])
            provider_sandbox_warn(op->sandbox, box->result.warning);
    }
    operation_end(op, err);
}

static void op_stop(sandbox_t *s, bool keep_processes, provider_done_fn done, void *arg)
{
    box_stop(box_of(s), keep_processes, on_box_done, operation_new(s, NULL, done, arg));
}

static void op_resume(sandbox_t *s, provider_done_fn done, void *arg)
{
    box_t *box = box_of(s);
    auto_err err_t *e = NULL;
    if (require_usable(box, &e) < 0)
        done(arg, e);
    else
        box_resume(box, &probe_result(box->gv->probe)->variant, on_box_done, operation_new(s, NULL, done, arg));
}

static void op_create_from(sandbox_t *s, const snapshot_t *snap, provider_done_fn done, void *arg)
{
    box_t *box = box_of(s);
    auto_err err_t *e = NULL;
    if (require_usable(box, &e) < 0)
        done(arg, e);
    else
        box_create_from(box, &probe_result(box->gv->probe)->variant, snap->dir, snap->private_, snap->has_processes,
                        on_box_done, operation_new(s, NULL, done, arg));
}

static void on_snapshot_done(void *arg, const box_snapshot_result_t *result, const err_t *err)
{
    operation_t *op = arg;
    snapshot_t *snap = op->snapshot;
    if (!err) {
        snap->has_processes = result->has_processes;
        snap->size_bytes = result->size_bytes;
        snap->stall_ms = result->stall_ms;
        if (result->warning[0])
            json_array_append_new(snap->warnings, json_string(result->warning));
        if (!result->is_shared)
            json_array_append_new(snap->warnings,
                                  json_string("its files were copied, not shared: the file system of the state "
                                              "directory has no reflink (XFS and btrfs have)"));
    }
    operation_end(op, err);
}

static void op_snapshot(sandbox_t *s, snapshot_t *snap, bool keep_processes, provider_done_fn done, void *arg)
{
    static const char *const facts[] = {"rootfs", "agent_layer"};
    if (!snap->private_)
        snap->private_ = json_object();
    if (!snap->warnings)
        snap->warnings = json_array();
    for (size_t i = 0; i < COUNT_OF(facts); i++)
        json_object_set(snap->private_, facts[i], json_object_get(s->private_, facts[i]));
    box_snapshot(box_of(s), snap->dir, s->state == SANDBOX_READY, keep_processes, on_snapshot_done,
                 operation_new(s, snap, done, arg));
}

static int op_apply_limits(sandbox_t *s, err_t **e)
{
    return box_apply_limits(box_of(s), e);
}

static bool op_is_current(sandbox_t *s)
{
    return box_is_current(box_of(s));
}

const provider_ops_t GVISORD_OPS = {.name = "gvisor",
                                    .process_bytes = BOX_PROCESS_BYTES,
                                    .probe = op_probe,
                                    .status = status_get,
                                    .create = op_create,
                                    .destroy = op_destroy,
                                    .end = op_end,
                                    .open_stream = op_open_stream,
                                    .adopt = op_adopt,
                                    .forget = op_forget,
                                    .stop = op_stop,
                                    .resume = op_resume,
                                    .snapshot = op_snapshot,
                                    .create_from = op_create_from,
                                    .apply_limits = op_apply_limits,
                                    .is_current = op_is_current,
                                    .list_images = status_list_images};
