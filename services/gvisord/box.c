/* SPDX-License-Identifier: Apache-2.0
 *
 * create: cgroups, FIFOs, config.json (here) → disk and network (worker) → `runsc run --detach` inside the cgroup →
 * pids → watched. Everything on the host is found by the sandbox's id, so destroy works on half made ones and after a
 * crash.
 */
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gvisord/box_private.h"
#include "services/gvisord/disk.h"
#include "services/gvisord/oci_spec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN_TIMEOUT_MS 30000
#define RUN_OUTPUT_MAX 4096
#define TEXT_MAX 4096

void box_phase_end(box_t *box, const char *name)
{
    uint64_t now = clock_monotonic_us();
    json_t *phases = json_object_get(box->facts, "phases");
    json_object_set_new(phases, name, json_integer((json_int_t)((now - box->phase_start_us) / 1000)));
    box->phase_start_us = now;
}

static void close_fds(box_t *box)
{
    for (size_t i = 0; i < COUNT_OF(box->fds); i++)
        fd_close_p(&box->fds[i]);
    fd_close_p(&box->netns_fd);
    box->fds[0] = box->fds[1] = box->fds[2] = box->netns_fd = -1;
}

void box_finish(box_t *box, const err_t *err)
{
    close_fds(box);
    provider_done_fn done = box->done;
    box->done = NULL;
    if (done)
        done(box->done_arg, err);
}

void box_fail(box_t *box, err_t **e, const char *what)
{
    if (err_code(*e) == ERR_INTERNAL)
        err_wrap_code(e, ERR_SANDBOX_FAILED, "%s", what);
    else
        err_wrap(e, "%s", what);
    box_finish(box, *e);
}

/* ---- what is decided at the start ---- */

static bool is_slot_used(const gvisord_t *gv, const box_t *box, uint32_t number)
{
    for (sandbox_t *s = NULL; (s = provider_sandbox_next(gv->provider, s));) {
        const json_t *slot = json_object_get(s->private_, "slot");
        if (s->private_ != box->facts && json_is_integer(slot) && json_integer_value(slot) == (json_int_t)number)
            return true;
    }
    return network_slot_is_foreign(&gv->pool, gv->tag, number);
}

int box_choose_slot(box_t *box, network_slot_t *slot, err_t **e)
{
    gvisord_t *gv = box->gv;
    for (uint32_t number = 0;; number++) {
        if (network_slot_of(&gv->pool, gv->tag, number, slot, e) < 0)
            return -1;
        /* An existing namespace is one that a sweep or a destroy is about to remove. */
        if (access(slot->netns_path, F_OK) < 0 && !is_slot_used(gv, box, number))
            break;
    }
    json_object_set_new(box->facts, "slot", json_integer(slot->number));
    return box->save ? box->save(box, e) : 0; /* before it exists: a crash must not lose it */
}

void box_describe(box_t *box)
{
    char isolation[64];
    variant_isolation(&box->variant, isolation, sizeof isolation);
    json_object_set_new(box->facts, "isolation", json_string(isolation));
    json_object_set_new(box->facts, "phases", json_object());
    json_object_set_new(box->facts, "is_crun", json_boolean(box->variant.is_crun));
    json_object_set_new(box->facts, "platform", json_string(box->variant.platform));
    json_object_set_new(box->facts, "user_namespace", json_boolean(box->variant.has_user_namespace));
    json_object_set_new(box->facts, "runtime_version", json_string(probe_result(box->gv->probe)->version));
    json_t *warnings = json_array();
    if (box->variant.is_crun)
        json_array_append_new(warnings, json_string(CRUN_WARNING));
    if (!box->variant.has_loop && probe_result(box->gv->probe)->disk_message[0])
        json_array_append_new(warnings, json_string(probe_result(box->gv->probe)->disk_message));
    json_object_set_new(box->facts, "warnings", warnings);
}

static int decide(box_t *box, err_t **e)
{
    auto_image image_t image;
    gvisord_t *gv = box->gv;
    if (image_find(gv->image_dir, box->spec->image, &image, e) < 0)
        return -1;
    json_object_set_new(box->facts, "rootfs", json_string(image.rootfs));
    json_object_set_new(box->facts, "agent_layer", json_string(gv->agent_layer));
    box_describe(box);
    return 0;
}

bool box_has_network(const box_t *box)
{
    return strcmp(box->spec->network, "full") == 0;
}

/* ---- files of the bundle ---- */

static int make_fifos(box_t *box, err_t **e)
{
    static const char *const names[2] = {"in", "out"};
    for (int i = 0; i < 2; i++) {
        auto_free char *path = mem_printf("%s/%s", box->dir, names[i]);
        if (mkfifo(path, 0600) < 0 && errno != EEXIST)
            return err_set_errno(e, ERR_NONE, errno, "cannot make %s", path);
        box->fds[i] = open(path, O_RDWR | O_CLOEXEC);
        if (box->fds[i] < 0)
            return err_set_errno(e, ERR_NONE, errno, "cannot open %s", path);
    }
    box->fds[2] = open("/dev/null", O_RDWR | O_CLOEXEC);
    return box->fds[2] < 0 ? err_set_errno(e, ERR_INTERNAL, errno, "cannot open /dev/null") : 0;
}

int box_write_config(const box_t *box, const char *netns_path, err_t **e)
{
    auto_free char *rootfs = mem_printf("%s/rootfs", box->dir);
    auto_free char *path = mem_printf("%s/config.json", box->dir);
    oci_spec_t spec = {.rootfs = rootfs,
                       .hostname = box->id,
                       .memory_bytes = box->spec->memory_bytes,
                       .has_user_namespace = box->variant.has_user_namespace,
                       .is_crun = box->variant.is_crun,
                       .netns_path = netns_path};
    return oci_spec_write(&spec, path, e);
}

/* ---- the runtime ---- */

static void on_ran(void *arg, const process_result_t *result)
{
    box_t *box = arg;
    box->process = NULL;
    auto_err err_t *e = NULL;
    if (result->exit_code != 0) {
        auto_free char *why = box_runtime_log(box);
        if (result->is_timed_out)
            err_set(&e, ERR_SANDBOX_FAILED, "the runtime did not start the sandbox within %d s", RUN_TIMEOUT_MS / 1000);
        else
            err_set(&e, ERR_SANDBOX_FAILED, "the runtime could not start the sandbox (status %d): %s",
                    result->exit_code, why ? why : "it gave no reason");
        box_finish(box, e);
        return;
    }
    box_phase_end(box, "runtime_ms");
    if (box_find_pids(box, &e) < 0 || box_watch(box, &e) < 0)
        box_fail(box, &e, "the sandbox was started but is gone");
    else
        box_finish(box, NULL);
}

runtime_t box_runtime(const box_t *box)
{
    return (runtime_t){.path = probe_runtime_path(box->gv->probe),
                       .root = box->gv->runtime_root,
                       .platform = box->variant.platform,
                       .is_crun = box->variant.is_crun,
                       .has_network = box_has_network(box)};
}

static int run(box_t *box, err_t **e)
{
    char *procs[CGROUP_CONTROLLERS + 1];
    auto_free char *log = mem_printf("%s/runtime.log", box->dir);
    auto_free char *pid = mem_printf("%s/pid", box->dir);
    const runtime_t r = box_runtime(box);
    runtime_command_t c;
    if (box_make_outputs(box->dir, e) < 0)
        return -1;
    runtime_begin(&c, &r, log);
    runtime_add(&c, "run");
    runtime_add(&c, "--detach");
    runtime_add(&c, "--bundle");
    runtime_add(&c, box->dir);
    runtime_add(&c, "--pid-file");
    runtime_add(&c, pid);
    runtime_add(&c, box->id);
    cgroup_procs_paths(&box->gv->cgroups, box->id, procs);
    process_options_t options = {.argv = c.argv,
                                 .fd_stdin = box->fds[0],
                                 .fd_stdout = box->fds[1],
                                 .fd_stderr = box->fds[2],
                                 .netns_fd = box->netns_fd,
                                 .mask_proc_sys_net_core = box->netns_fd >= 0,
                                 .timeout_ms = RUN_TIMEOUT_MS,
                                 .output_max = RUN_OUTPUT_MAX};
    for (int i = 0; procs[i]; i++)
        options.cgroup_procs[i] = procs[i];
    box->process = process_start(box->gv->daemon.base, &options, on_ran, box, e);
    for (int i = 0; procs[i]; i++)
        free(procs[i]);
    return box->process ? 0 : -1;
}

static void on_prepared(void *arg, const json_t *result, const err_t *err)
{
    (void)result;
    box_t *box = arg;
    box->job = NULL;
    auto_err err_t *e = NULL;
    if (err) {
        err_set(&e, err_code(err) == ERR_INTERNAL ? ERR_SANDBOX_FAILED : err_code(err), "%s", err_message(err));
        box_fail(box, &e, "cannot prepare the sandbox's disk and network");
        return;
    }
    box_phase_end(box, "prepare_ms");
    const json_t *number = json_object_get(box->facts, "slot");
    network_slot_t slot;
    if (number) {
        if (network_slot_of(&box->gv->pool, box->gv->tag, (uint32_t)json_integer_value(number), &slot, &e) < 0) {
            box_fail(box, &e, "cannot use the sandbox's network");
            return;
        }
        box->netns_fd = open(slot.netns_path, O_RDONLY | O_CLOEXEC);
        if (box->netns_fd < 0) {
            err_set_errno(&e, ERR_SANDBOX_FAILED, errno, "cannot open %s", slot.netns_path);
            box_finish(box, e);
            return;
        }
    }
    if (run(box, &e) < 0)
        box_fail(box, &e, "cannot run the sandbox's runtime");
}

static int prepare(box_t *box, err_t **e)
{
    json_t *args = json_pack("{s:s,s:s,s:I,s:[s,s],s:b,s:O*}", "dir", box->dir, "hostname", box->id, "disk_bytes",
                             (json_int_t)box->spec->disk_bytes, "lowers",
                             json_string_value(json_object_get(box->facts, "agent_layer")),
                             json_string_value(json_object_get(box->facts, "rootfs")), "has_loop",
                             box->variant.has_loop, "slot", json_object_get(box->facts, "slot"));
    box->job = worker_run(box->gv->worker, job_prepare, args, on_prepared, box, e);
    return box->job ? 0 : -1;
}

cgroup_limits_t box_limits(const box_t *box)
{
    return (cgroup_limits_t){.cpu_milli = box->spec->cpu_milli,
                             .memory_budget_bytes = box->spec->memory_bytes,
                             .pids_max = box->spec->pids_max};
}

void box_create(box_t *box, const runtime_variant_t *variant, provider_done_fn done, void *arg)
{
    box->variant = *variant;
    box->done = done;
    box->done_arg = arg;
    box->fds[0] = box->fds[1] = box->fds[2] = box->netns_fd = -1;
    box->phase_start_us = clock_monotonic_us();
    const cgroup_limits_t limits = box_limits(box);
    network_slot_t slot = {0};
    auto_err err_t *e = NULL;
    if (decide(box, &e) < 0 || (box_has_network(box) && box_choose_slot(box, &slot, &e) < 0) || prepare(box, &e) < 0 ||
        cgroup_make(&box->gv->cgroups, box->id, &limits, &e) < 0 || make_fifos(box, &e) < 0 ||
        box_write_config(box, slot.netns_path[0] ? slot.netns_path : NULL, &e) < 0) {
        worker_forget(&box->job);
        box_fail(box, &e, "cannot make the sandbox");
    }
}

/* ---- the end ---- */

static void on_torn_down(void *arg, const json_t *result, const err_t *err)
{
    (void)result;
    box_t *box = arg;
    box->job = NULL;
    box->is_destroying = false;
    box_release(box);
    box_finish(box, err);
}

void box_destroy(box_t *box, provider_done_fn done, void *arg)
{
    auto_err err_t *e = NULL;
    box->done = done;
    box->done_arg = arg;
    box->is_destroying = true;
    box->fds[0] = box->fds[1] = box->fds[2] = box->netns_fd = -1;
    worker_forget(&box->job);
    /* The watches stay until the processes have been reaped. */
    json_t *args =
        json_pack("{s:s,s:s,s:O*}", "id", box->id, "dir", box->dir, "slot", json_object_get(box->facts, "slot"));
    json_decref(box->start);
    box->start = NULL;
    box->job = worker_run(box->gv->worker, job_teardown, args, on_torn_down, box, &e);
    if (!box->job)
        box_finish(box, e);
}

static void on_ended(void *arg, const json_t *result, const err_t *err)
{
    (void)result;
    box_t *box = arg;
    box->end_job = NULL;
    if (err)
        log_warn("the processes of a dead sandbox stay until it is destroyed: %s", err_message(err));
    void (*next)(box_t *) = STEAL_PTR(box->after_end);
    if (next)
        next(box);
}

void box_end(box_t *box)
{
    auto_err err_t *e = NULL;
    if (box->end_job)
        return;
    json_t *args = json_pack("{s:s,s:s}", "id", box->id, "dir", box->dir);
    box->end_job = worker_run(box->gv->worker, job_end, args, on_ended, box, &e);
    if (!box->end_job)
        log_warn("the processes of a dead sandbox stay until it is destroyed: %s", err_message(e));
}

bool box_is_current(const box_t *box)
{
    auto_image image_t image = {0};
    auto_err err_t *ignored = NULL;
    char isolation[64];
    const probe_result_t *r = probe_result(box->gv->probe);
    variant_isolation(&r->variant, isolation, sizeof isolation);
    if (!box->gv->agent_layer || image_find(box->gv->image_dir, box->spec->image, &image, &ignored) < 0)
        return false;
    const struct {
        const char *key, *value;
    } wanted[] = {{"rootfs", image.rootfs},
                  {"agent_layer", box->gv->agent_layer},
                  {"isolation", isolation},
                  {"runtime_version", r->version}};
    for (size_t i = 0; i < COUNT_OF(wanted); i++) {
        const char *own = json_string_value(json_object_get(box->facts, wanted[i].key));
        if (!own || strcmp(own, wanted[i].value) != 0)
            return false;
    }
    return true;
}

int box_open_stream(box_t *box, int *fd_in, int *fd_out, err_t **e)
{
    auto_free char *in = mem_printf("%s/out", box->dir);
    auto_free char *out = mem_printf("%s/in", box->dir);
    auto_close int from = open(in, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    auto_close int to = open(out, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (from < 0 || to < 0)
        return err_set_errno(e, ERR_SANDBOX_FAILED, errno, "cannot open the agent's stream in %s", box->dir);
    *fd_in = STEAL_FD(from);
    *fd_out = STEAL_FD(to);
    return 0;
}
