/* SPDX-License-Identifier: Apache-2.0
 *
 * The vtable over containers. One operation of a sandbox at a time (the kit sees to that), but for its end: what comes
 * after it waits.
 */
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/cgroup.h"
#include "services/gvisord/docker_private.h"

#include <stdio.h>

#define SETTLE_MS 1500

typedef struct docker_box {
    docker_t *d;
    sandbox_t *s;
    docker_container_t container;
    char image_ref[DOCKER_REF_MAX];
    docker_image_job_t *image;
    docker_task_t *task, *end_task;
    void (*after_end)(struct docker_box *box);
    docker_attach_t *attach;
    docker_request_t *look; /* why the stream has ended */
    docker_request_t *update;
    char why[200];
    provider_done_fn done;
    void *arg;
    uint64_t started_us;
} docker_box_t;

static docker_box_t *box_of(sandbox_t *s)
{
    if (s->data)
        return s->data;
    docker_box_t *box = mem_alloc(sizeof *box);
    box->d = provider_data(s->provider);
    box->s = s;
    box->container = (docker_container_t){.d = box->d, .id = s->host_id, .spec = &s->spec, .has_volume = true};
    return s->data = box;
}

static void finish(docker_box_t *box, const err_t *err)
{
    provider_done_fn done = STEAL_PTR(box->done);
    if (done)
        done(box->arg, err);
}

static const char *fact(const sandbox_t *s, const char *key)
{
    const char *text = json_string_value(json_object_get(s->private_, key));
    return text ? text : "";
}

static void set_fact(sandbox_t *s, const char *key, const char *value)
{
    json_object_set_new(s->private_, key, json_string(value));
}

static void phase(docker_box_t *box, const char *name)
{
    uint64_t now = clock_monotonic_us();
    json_t *phases = json_object_get(box->s->private_, "phases");
    if (!phases) {
        phases = json_object();
        json_object_set_new(box->s->private_, "phases", phases);
    }
    json_object_set_new(phases, name, json_integer((json_int_t)((now - box->started_us) / 1000)));
    box->started_us = now;
}

/* ---- the end of its processes ---- */

static void on_ended(void *arg, const err_t *err)
{
    docker_box_t *box = arg;
    box->end_task = NULL;
    if (err)
        log_warn("the processes of a dead sandbox stay until it is destroyed: %s", err_message(err));
    void (*next)(docker_box_t *) = STEAL_PTR(box->after_end);
    if (next)
        next(box);
}

static void op_end(sandbox_t *s)
{
    docker_box_t *box = box_of(s);
    if (!box->end_task && !box->task)
        box->end_task =
            docker_task_start(box->d->http, box->d->daemon->base, DOCKER_KILL, &box->container, on_ended, box);
}

/* Begins an operation. */
static void begin(docker_box_t *box, void (*run)(docker_box_t *box), provider_done_fn done, void *arg)
{
    box->done = done;
    box->arg = arg;
    box->started_us = clock_monotonic_us();
    docker_attach_close(&box->attach);
    docker_http_cancel(&box->look);
    if (box->end_task)
        box->after_end = run;
    else
        run(box);
}

static void start_task(docker_box_t *box, const docker_step_t *steps, provider_done_fn done)
{
    box->task = docker_task_start(box->d->http, box->d->daemon->base, steps, &box->container, done, box);
}

/* ---- create ---- */

static void set_limits_fact(docker_box_t *box)
{
    const sandbox_spec_t *spec = &box->s->spec;
    json_object_set_new(
        box->s->private_, "limits",
        json_pack("[I,I,I]", (json_int_t)spec->cpu_milli, (json_int_t)spec->memory_bytes, (json_int_t)spec->pids_max));
}

static void on_made(void *arg, const err_t *err)
{
    docker_box_t *box = arg;
    box->task = NULL;
    set_fact(box->s, "container", box->container.docker_id);
    if (!err)
        phase(box, "docker_ms");
    finish(box, err);
}

static void on_image(void *arg, const char *ref, const err_t *err)
{
    docker_box_t *box = arg;
    const docker_probe_result_t *r = docker_probe_get(box->d->probe);
    char isolation[64];
    auto_err err_t *e = NULL;
    box->image = NULL;
    if (err) {
        finish(box, err);
        return;
    }
    phase(box, "image_ms");
    snprintf(box->image_ref, sizeof box->image_ref, "%s", ref);
    box->container.image_ref = box->image_ref;
    box->container.is_plain = r->is_plain;
    box->container.has_storage_limit = r->has_storage_limit;
    docker_isolation(r, box->d, isolation, sizeof isolation);
    set_fact(box->s, "image_ref", ref);
    set_fact(box->s, "isolation", isolation);
    set_fact(box->s, "agent", box->d->agent_id);
    set_fact(box->s, "docker_version", r->version);
    set_limits_fact(box);
    json_t *warnings = json_array();
    if (r->is_plain)
        json_array_append_new(warnings, json_string(DOCKER_PLAIN_WARNING));
    if (r->files_message[0])
        json_array_append_new(warnings, json_string(r->files_message));
    json_object_set_new(box->s->private_, "warnings", warnings);
    if (provider_sandbox_save(box->s, &e) < 0)
        finish(box, e);
    else
        start_task(box, DOCKER_CREATE, on_made);
}

static void run_create(docker_box_t *box)
{
    box->image = docker_image_want(box->d, box->s->spec.image, on_image, box);
}

static int require_usable(const docker_box_t *box, err_t **e)
{
    const docker_probe_result_t *r = docker_probe_get(box->d->probe);
    if (!r->is_usable)
        return err_set(e, ERR_PROVIDER_UNAVAILABLE, "%s", r->message);
    if (strcmp(box->s->spec.network, "full") == 0 && !r->has_full_network)
        return err_set(e, ERR_VALIDATION, "network full is not available here: %s", r->network_message);
    return 0;
}

static void op_create(sandbox_t *s, provider_done_fn done, void *arg)
{
    docker_box_t *box = box_of(s);
    auto_err err_t *e = NULL;
    if (require_usable(box, &e) < 0)
        done(arg, e);
    else
        begin(box, run_create, done, arg);
}

/* ---- destroy ---- */

static void on_removed(void *arg, const err_t *err)
{
    docker_box_t *box = arg;
    box->task = NULL;
    if (!err)
        docker_kill_leaked(box->d, fact(box->s, "container"));
    finish(box, err);
}

static void run_destroy(docker_box_t *box)
{
    start_task(box, DOCKER_REMOVE, on_removed);
}

static void op_destroy(sandbox_t *s, provider_done_fn done, void *arg)
{
    docker_box_t *box = box_of(s);
    docker_http_cancel(&box->update);
    begin(box, run_destroy, done, arg);
}

/* ---- stop and resume ---- */

static void on_stopped(void *arg, const err_t *err)
{
    docker_box_t *box = arg;
    box->task = NULL;
    if (!err) {
        box->s->has_processes = false;
        provider_sandbox_warn(box->s, "Docker cannot keep processes: they were ended; files are kept");
    }
    finish(box, err);
}

static void run_stop(docker_box_t *box)
{
    start_task(box, DOCKER_STOP, on_stopped);
}

static void op_stop(sandbox_t *s, bool keep_processes, provider_done_fn done, void *arg)
{
    (void)keep_processes; /* it cannot, and says so */
    begin(box_of(s), run_stop, done, arg);
}

static void on_started(void *arg, const err_t *err)
{
    docker_box_t *box = arg;
    box->task = NULL;
    box->s->has_processes = false;
    if (!err && box->container.is_missing) {
        provider_sandbox_warn(box->s, "its container was gone from Docker: it was made anew, only the files in "
                                      "/workspace are kept");
        box->container.is_missing = false;
        run_create(box);
        return;
    }
    if (!err)
        phase(box, "docker_ms");
    finish(box, err);
}

static void run_resume(docker_box_t *box)
{
    snprintf(box->container.docker_id, sizeof box->container.docker_id, "%s", fact(box->s, "container"));
    start_task(box, DOCKER_START, on_started);
}

static void op_resume(sandbox_t *s, provider_done_fn done, void *arg)
{
    docker_box_t *box = box_of(s);
    auto_err err_t *e = NULL;
    if (require_usable(box, &e) < 0)
        done(arg, e);
    else
        begin(box, run_resume, done, arg);
}

/* ---- its stream ---- */

static void describe_end(docker_box_t *box, const docker_reply_t *reply)
{
    const json_t *state = json_object_get(reply->json, "State");
    json_int_t code = json_integer_value(json_object_get(state, "ExitCode"));
    if (reply->status == 404)
        snprintf(box->why, sizeof box->why, "its container was removed from Docker");
    else if (json_is_true(json_object_get(state, "OOMKilled")))
        snprintf(box->why, sizeof box->why, "it ran out of memory and the kernel ended it");
    else if (reply->status == 200 && state && !json_is_true(json_object_get(state, "Running")))
        snprintf(box->why, sizeof box->why, "its container has ended (status %lld)", (long long)code);
}

static void on_looked(void *arg, const docker_reply_t *reply, const err_t *err)
{
    docker_box_t *box = arg;
    box->look = NULL;
    if (!err)
        describe_end(box, reply);
    if (!err && json_is_true(json_object_get(json_object_get(reply->json, "State"), "OOMKilled")))
        provider_sandbox_event(box->s, "oom", box->why);
    provider_sandbox_died(box->s, box->why);
}

/* The stream stays as it is until it is known what has happened. */
static void on_attach_end(void *arg, const char *why)
{
    docker_box_t *box = arg;
    auto_free char *name = docker_container_name(box->s->host_id);
    docker_call_t call = {.method = "GET", .timeout_ms = DOCKER_QUICK_MS};
    call.path = mem_printf("/containers/%s/json", name);
    snprintf(box->why, sizeof box->why, "%s", why);
    box->container.settle_ms = clock_monotonic_ms() + SETTLE_MS;
    docker_http_cancel(&box->look);
    box->look = docker_http_start(box->d->http, &call, on_looked, box);
}

static int op_open_stream(sandbox_t *s, int *fd_in, int *fd_out, err_t **e)
{
    docker_box_t *box = box_of(s);
    auto_free char *name = docker_container_name(s->host_id);
    int fd;
    docker_attach_close(&box->attach);
    box->attach = docker_attach_open(box->d->daemon->base, &box->d->host, name, &fd, on_attach_end, box, e);
    if (!box->attach)
        return -1;
    *fd_in = *fd_out = fd;
    return 0;
}

static int op_adopt(sandbox_t *s, err_t **e)
{
    docker_box_t *box = box_of(s);
    auto_free char *name = docker_container_name(s->host_id);
    /* Unknown: the attach will tell. */
    if (box->d->found && !json_is_true(json_object_get(box->d->found, name)))
        return err_set(e, ERR_SANDBOX_FAILED, "its container does not run any more");
    return 0;
}

static void op_forget(sandbox_t *s)
{
    docker_box_t *box = s->data;
    if (!box)
        return;
    docker_image_forget(&box->image);
    docker_task_cancel(&box->task);
    docker_task_cancel(&box->end_task);
    docker_attach_close(&box->attach);
    docker_http_cancel(&box->look);
    docker_http_cancel(&box->update);
    free(box);
    s->data = NULL;
}

/* ---- warm ones ---- */

static void on_updated(void *arg, const docker_reply_t *reply, const err_t *err)
{
    docker_box_t *box = arg;
    auto_err err_t *e = NULL;
    box->update = NULL;
    if (!err && reply->status != 200)
        docker_reply_error(reply, "its new limits are not in force", &e);
    if (err || e)
        provider_sandbox_warn(box->s, err_message(err ? err : e));
}

/* The container's limits are those of its making, or changed by Docker; runsc has no `update`, so a gVisor container
 * serves only who wants just these. */
static int op_apply_limits(sandbox_t *s, err_t **e)
{
    docker_box_t *box = box_of(s);
    const sandbox_spec_t *spec = &s->spec;
    const json_t *limits = json_object_get(s->private_, "limits");
    if (json_integer_value(json_array_get(limits, 0)) == spec->cpu_milli &&
        json_integer_value(json_array_get(limits, 1)) == (json_int_t)spec->memory_bytes &&
        json_integer_value(json_array_get(limits, 2)) == spec->pids_max)
        return 0;
    if (!docker_probe_get(box->d->probe)->is_plain)
        return err_set(e, ERR_SANDBOX_FAILED, "under Docker the limits of a gVisor container cannot be changed");
    auto_free char *name = docker_container_name(s->host_id);
    json_int_t memory = (json_int_t)docker_memory_limit(spec);
    docker_call_t call = {.method = "POST", .timeout_ms = DOCKER_QUICK_MS};
    call.path = mem_printf("/containers/%s/update", name);
    call.json = json_pack("{s:I,s:I,s:I,s:I}", "NanoCpus", (json_int_t)spec->cpu_milli * 1000000, "Memory", memory,
                          "MemorySwap", memory, "PidsLimit", (json_int_t)cgroup_pids_limit(spec->pids_max));
    set_limits_fact(box);
    docker_http_cancel(&box->update);
    box->update = docker_http_start(box->d->http, &call, on_updated, box);
    return 0;
}

static bool op_is_current(sandbox_t *s)
{
    const docker_t *d = provider_data(s->provider);
    const docker_probe_result_t *r = docker_probe_get(d->probe);
    char ref[DOCKER_REF_MAX], isolation[64];
    auto_err err_t *ignored = NULL;
    docker_isolation(r, d, isolation, sizeof isolation);
    return docker_image_ref(d, s->spec.image, ref, &ignored) == 0 && strcmp(ref, fact(s, "image_ref")) == 0 &&
           strcmp(isolation, fact(s, "isolation")) == 0 && strcmp(d->agent_id, fact(s, "agent")) == 0 &&
           strcmp(r->version, fact(s, "docker_version")) == 0;
}

static void op_probe(provider_t *p, provider_done_fn done, void *arg)
{
    docker_t *d = provider_data(p);
    docker_probe_run(d->probe, done, arg);
}

const provider_ops_t DOCKER_OPS = {.name = "gvisor",
                                   .process_bytes = (uint64_t)4 << 20,
                                   .probe = op_probe,
                                   .status = docker_status_get,
                                   .create = op_create,
                                   .destroy = op_destroy,
                                   .end = op_end,
                                   .open_stream = op_open_stream,
                                   .adopt = op_adopt,
                                   .forget = op_forget,
                                   .stop = op_stop,
                                   .resume = op_resume,
                                   .apply_limits = op_apply_limits,
                                   .is_current = op_is_current,
                                   .list_images = docker_list_images};
