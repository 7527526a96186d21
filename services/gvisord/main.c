/* SPDX-License-Identifier: Apache-2.0 */
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/gvisord.h"
#include "services/gvisord/start.h"

#include <stdio.h>

/* ---- the provider's vtable: a box for every sandbox ---- */

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

static box_t *box_of(sandbox_t *s)
{
    if (s->data)
        return s->data;
    box_t *box = mem_alloc(sizeof *box);
    *box = (box_t){.gv = provider_data(s->provider),
                   .id = s->id_text,
                   .dir = s->dir,
                   .spec = &s->spec,
                   .facts = s->private_,
                   .save = save,
                   .on_gone = on_gone,
                   .on_pressure = on_pressure,
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

static void op_create(sandbox_t *s, provider_done_fn done, void *arg)
{
    box_t *box = box_of(s);
    const probe_result_t *r = probe_result(box->gv->probe);
    auto_err err_t *e = NULL;
    if (strcmp(s->spec.network, "full") == 0 && !r->has_full_network) {
        err_set(&e, ERR_VALIDATION, "network full is not available here: %s", r->network_message);
        done(arg, e);
        return;
    }
    box_create(box, &r->variant, done, arg);
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
    return box_adopt(box_of(s), e);
}

static void op_forget(sandbox_t *s)
{
    box_t *box = s->data;
    if (!box)
        return;
    worker_forget(&box->job);
    process_cancel(&box->process);
    box_release(box);
    free(box);
    s->data = NULL;
}

static const provider_ops_t OPS = {.name = "gvisor",
                                   .process_bytes = BOX_PROCESS_BYTES,
                                   .probe = op_probe,
                                   .status = status_get,
                                   .create = op_create,
                                   .destroy = op_destroy,
                                   .end = op_end,
                                   .open_stream = op_open_stream,
                                   .adopt = op_adopt,
                                   .forget = op_forget,
                                   .list_images = status_list_images};

/* ---- main ---- */

static int serve(gvisord_t *gv, err_t **e)
{
    gv->probe = probe_new(gv);
    if (worker_attach(gv->worker, gv->daemon.base, e) < 0 || reaper_start(gv, e) < 0)
        return -1;
    gv->provider = provider_new(&gv->daemon, &OPS, gv, e);
    if (!gv->provider)
        return -1;
    sweep_start(gv);
    start_prune(gv);
    daemon_run(&gv->daemon);
    return 0;
}

int main(int argc, char **argv)
{
    gvisord_t gv = {0};
    auto_err err_t *e = NULL;
    int exit_code = 0;
    if (argc > 1 && start_is_import(argv[1]))
        return start_import(argc, argv);
    int rc = daemon_init(&gv.daemon, "gvisord", CONFIG_GVISORD, argc, argv, &exit_code, &e);
    if (rc > 0)
        return exit_code;
    if (rc == 0 && (start_prepare(&gv, &e) < 0 || serve(&gv, &e) < 0))
        rc = -1;
    if (rc < 0) {
        log_error("%s", err_message(e));
        fprintf(stderr, "gvisord: %s\n", err_message(e));
    }
    if (gv.probe)
        probe_drain(gv.probe);
    start_leave(&gv);
    provider_destroy(&gv.provider);
    probe_free(&gv.probe);
    worker_stop(&gv.worker);
    reaper_stop(&gv);
    start_free(&gv);
    daemon_free(&gv.daemon);
    return rc < 0;
}
